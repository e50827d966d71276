//! What can go wrong on demand: one enum, one list that help texts show, and the book of faults
//! that are active now.
//!
//! A fault reads `name[:key=value[,key=value]...]`, e.g. `500:count=3` or `reset:after=5,p=0.2`.
//! Several may be active; one of each kind. `/mock/*` never suffers from any.

use core::fmt;
use core::str::FromStr;
use std::time::Duration;

use parking_lot::Mutex;
use twox_hash::XxHash3_64;

/// Everything that can go wrong; [`FAULTS`] says what each kind does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    Dead,
    Refuse,
    Hang,
    SlowHead,
    Status500,
    Status503,
    Status429,
    Reset,
    Truncate,
    ErrorEvent,
    Abort,
    Endless,
    BadJson,
    NoUsage,
    NoCachedTokens,
    MetricsMissing,
    MetricsRenamed,
    MetricsFrozen,
    MetricsZeroed,
    MetricsHuge,
    MetricsHang,
}

/// Which requests a fault is drawn for (and counted by).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every request but those to `/mock/*`.
    All,
    /// Chat, completions, messages and embeddings.
    Inference,
    /// `/metrics`.
    Metrics,
}

/// One line of the list of faults.
#[derive(Debug)]
pub struct FaultEntry {
    /// The kind.
    pub kind: FaultKind,
    /// How it is written.
    pub name: &'static str,
    /// Options it takes beside `count` (the first N requests only) and `p` (probability, 0 to 1).
    pub options: &'static [&'static str],
    /// What it does.
    pub what: &'static str,
    scope: Scope,
}

const fn entry(
    kind: FaultKind,
    name: &'static str,
    scope: Scope,
    options: &'static [&'static str],
    what: &'static str,
) -> FaultEntry {
    FaultEntry {
        kind,
        name,
        options,
        what,
        scope,
    }
}

/// All faults, for parsing and help texts.
pub const FAULTS: &[FaultEntry] = &[
    entry(
        FaultKind::Dead,
        "dead",
        Scope::All,
        &[],
        "reset every connection on its first request",
    ),
    entry(
        FaultKind::Refuse,
        "refuse",
        Scope::Inference,
        &[],
        "take the request, then reset the connection without an answer",
    ),
    entry(
        FaultKind::Hang,
        "hang",
        Scope::Inference,
        &[],
        "take the request, never answer",
    ),
    entry(
        FaultKind::SlowHead,
        "slow-head",
        Scope::Inference,
        &["ms"],
        "wait `ms` milliseconds (1000) before anything else",
    ),
    entry(
        FaultKind::Status500,
        "500",
        Scope::Inference,
        &[],
        "answer 500 at once",
    ),
    entry(
        FaultKind::Status503,
        "503",
        Scope::Inference,
        &[],
        "answer 503 as a full queue does",
    ),
    entry(
        FaultKind::Status429,
        "429",
        Scope::Inference,
        &[],
        "answer 429 with retry-after: 1",
    ),
    entry(
        FaultKind::Reset,
        "reset",
        Scope::Inference,
        &["after"],
        "reset the connection after `after` tokens (0); a JSON answer at half its body",
    ),
    entry(
        FaultKind::Truncate,
        "truncate",
        Scope::Inference,
        &["after"],
        "end the stream cleanly after `after` tokens, without finish_reason or [DONE]; \
         close half way through a JSON body",
    ),
    entry(
        FaultKind::ErrorEvent,
        "error-event",
        Scope::Inference,
        &["after"],
        "error event with code 500 inside the 200 stream after `after` tokens, then [DONE]; \
         status 500 instead of a JSON answer",
    ),
    entry(
        FaultKind::Abort,
        "abort",
        Scope::Inference,
        &["after"],
        "finish_reason \"abort\" after `after` tokens, then a clean end",
    ),
    entry(
        FaultKind::Endless,
        "endless",
        Scope::Inference,
        &[],
        "never stop generating",
    ),
    entry(
        FaultKind::BadJson,
        "bad-json",
        Scope::Inference,
        &["after"],
        "broken JSON in the event after `after` tokens, or as JSON answer",
    ),
    entry(
        FaultKind::NoUsage,
        "no-usage",
        Scope::Inference,
        &[],
        "leave usage out",
    ),
    entry(
        FaultKind::NoCachedTokens,
        "no-cached-tokens",
        Scope::Inference,
        &[],
        "leave cached tokens out of usage",
    ),
    entry(
        FaultKind::MetricsMissing,
        "metrics-missing",
        Scope::Metrics,
        &[],
        "/metrics is 404",
    ),
    entry(
        FaultKind::MetricsRenamed,
        "metrics-renamed",
        Scope::Metrics,
        &[],
        "every metric has an unknown name",
    ),
    entry(
        FaultKind::MetricsFrozen,
        "metrics-frozen",
        Scope::Metrics,
        &[],
        "the first page after activation, again and again",
    ),
    entry(
        FaultKind::MetricsZeroed,
        "metrics-zeroed",
        Scope::Metrics,
        &[],
        "every value is 0",
    ),
    entry(
        FaultKind::MetricsHuge,
        "metrics-huge",
        Scope::Metrics,
        &[],
        "8 MiB of other metrics around the usual ones",
    ),
    entry(
        FaultKind::MetricsHang,
        "metrics-hang",
        Scope::Metrics,
        &[],
        "/metrics never answers",
    ),
];

/// One fault as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// After how many tokens.
    pub after: u32,
    /// How long, for `slow-head`.
    pub delay: Duration,
    /// For the first so many requests only.
    pub count: Option<u32>,
    /// With which probability, 0 to 1.
    pub probability: f64,
}

impl Fault {
    /// The fault with its defaults: at once, always.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        let delay = Duration::from_secs(1);
        Self {
            kind,
            after: 0,
            delay,
            count: None,
            probability: 1.0,
        }
    }

    fn entry(&self) -> Option<&'static FaultEntry> {
        FAULTS.iter().find(|entry| entry.kind == self.kind)
    }

    fn set(&mut self, entry: &FaultEntry, key: &str, value: &str) -> Result<(), FaultError> {
        let bad = || FaultError::BadValue {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let whole = || value.parse::<u32>().map_err(|_| bad());
        match key {
            "count" => self.count = Some(whole()?),
            "p" => {
                let p: f64 = value.parse().map_err(|_| bad())?;
                self.probability = if (0.0..=1.0).contains(&p) {
                    p
                } else {
                    return Err(bad());
                };
            }
            "after" if entry.options.contains(&key) => self.after = whole()?,
            "ms" if entry.options.contains(&key) => {
                self.delay = Duration::from_millis(whole()?.into());
            }
            _ => {
                let all = entry.options.iter().chain(&["count", "p"]);
                return Err(FaultError::UnknownOption {
                    fault: entry.name,
                    key: key.to_owned(),
                    options: all.copied().collect::<Vec<_>>().join(", "),
                });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(entry) = self.entry() else {
            return Ok(());
        };
        f.write_str(entry.name)?;
        let after = entry
            .options
            .contains(&"after")
            .then(|| format!("after={}", self.after));
        let ms = entry
            .options
            .contains(&"ms")
            .then(|| format!("ms={}", self.delay.as_millis()));
        let count = self.count.map(|count| format!("count={count}"));
        let p = (self.probability < 1.0).then(|| format!("p={}", self.probability));
        let options: Vec<String> = [after, ms, count, p].into_iter().flatten().collect();
        if options.is_empty() {
            Ok(())
        } else {
            write!(f, ":{}", options.join(","))
        }
    }
}

/// Why a fault could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No fault of that name.
    #[error("no fault is called `{name}`: use one of {names}")]
    UnknownName {
        /// What was asked for.
        name: String,
        /// What there is.
        names: String,
    },
    /// The fault has no such option.
    #[error("fault `{fault}` has no option `{key}`: use one of {options}")]
    UnknownOption {
        /// The fault.
        fault: &'static str,
        /// What was asked for.
        key: String,
        /// What there is.
        options: String,
    },
    /// An option without `=`.
    #[error("option `{0}` has no value: write {0}=VALUE")]
    NoValue(String),
    /// The value is not what the option takes.
    #[error("option `{key}` does not take `{value}`: p is 0 to 1, the others are whole numbers")]
    BadValue {
        /// The option.
        key: String,
        /// Its value.
        value: String,
    },
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, options) = text.split_once(':').unwrap_or((text, ""));
        let known = FAULTS
            .iter()
            .find(|entry| entry.name.eq_ignore_ascii_case(name.trim()));
        let Some(entry) = known else {
            let names: Vec<&str> = FAULTS.iter().map(|entry| entry.name).collect();
            let (name, names) = (name.trim().to_owned(), names.join(", "));
            return Err(FaultError::UnknownName { name, names });
        };
        let mut fault = Self::new(entry.kind);
        for option in options
            .split([',', ':'])
            .map(str::trim)
            .filter(|option| !option.is_empty())
        {
            let Some((key, value)) = option.split_once('=') else {
                return Err(FaultError::NoValue(option.to_owned()));
            };
            fault.set(entry, key.trim(), value.trim())?;
        }
        Ok(fault)
    }
}

/// The faults that are active now.
#[derive(Debug)]
pub struct FaultBook {
    active: Mutex<Active>,
    seed: u64,
}

#[derive(Debug, Default)]
struct Active {
    faults: Vec<Fault>,
    draws: u64,
}

impl FaultBook {
    pub(crate) fn new(faults: Vec<Fault>, seed: u64) -> Self {
        let book = Self {
            active: Mutex::default(),
            seed,
        };
        for fault in faults {
            book.set(fault);
        }
        book
    }

    /// Activates a fault; one of the same kind is replaced.
    pub fn set(&self, fault: Fault) {
        let mut active = self.active.lock();
        active.faults.retain(|other| other.kind != fault.kind);
        active.faults.push(fault);
    }

    /// Ends all faults; what hangs already keeps hanging.
    pub fn clear(&self) {
        self.active.lock().faults.clear();
    }

    /// The active faults, with what is left of their counts.
    #[must_use]
    pub fn active(&self) -> Vec<Fault> {
        self.active.lock().faults.clone()
    }

    /// Draws which faults hit one request of `scope`, and counts them.
    pub(crate) fn draw(&self, scope: Scope) -> Struck {
        let mut guard = self.active.lock();
        let Active { faults, draws } = &mut *guard;
        let mut struck = Vec::new();
        faults.retain_mut(|fault| {
            if fault.entry().is_none_or(|entry| entry.scope != scope) {
                return true;
            }
            *draws += 1;
            let draw = XxHash3_64::oneshot_with_seed(self.seed, &draws.to_le_bytes());
            if draw as f64 / u64::MAX as f64 >= fault.probability && fault.probability < 1.0 {
                return true;
            }
            if fault.count == Some(0) {
                return false;
            }
            struck.push(fault.clone());
            let Some(count) = &mut fault.count else {
                return true;
            };
            *count -= 1;
            *count > 0
        });
        Struck(struck)
    }
}

/// The faults that hit one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Struck(Vec<Fault>);

impl Struck {
    pub(crate) fn get(&self, kind: FaultKind) -> Option<&Fault> {
        self.0.iter().find(|fault| fault.kind == kind)
    }

    pub(crate) fn has(&self, kind: FaultKind) -> bool {
        self.get(kind).is_some()
    }

    /// The fault that ends an answer before its time, if one does.
    pub(crate) fn cut(&self) -> Option<&Fault> {
        use FaultKind::{Abort, ErrorEvent, Reset, Truncate};
        self.0
            .iter()
            .find(|f| matches!(f.kind, Reset | Truncate | ErrorEvent | Abort))
    }
}
