//! Reads an engine's `/metrics` line by line, only the few families that routing uses.
//!
//! No tree, no allocation when the report is reused, linear in the text, which is bounded. A value
//! that is NaN, infinite or negative is refused: the field stays unknown, never zero. The engine is
//! told by the prefix of its names; counters count with or without `_total`.
//! One file per engine in `metrics/`, registered in `DIALECTS`; add an engine there.

mod labels;
mod llama_cpp;
mod sglang;
mod tensorrt_llm;
mod vllm;

use labels::Labels;

/// More text than this is not read.
pub const MAX_METRICS_BYTES: usize = 8 * 1024 * 1024;

/// The software of a model server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's llama-server.
    LlamaCpp,
    /// TensorRT-LLM, served by trtllm-serve or Triton.
    TensorRtLlm,
    /// Metrics of none of these.
    #[default]
    Unknown,
}

/// What one reading of an engine's metrics says. `None`: not told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineReport {
    /// Whose metrics these are.
    pub engine: Engine,
    /// Requests being computed, over all engines of the server.
    pub running: Option<f32>,
    /// Requests waiting inside the server, over all its engines.
    pub waiting: Option<f32>,
    /// Share of the KV cache in use, 0 to 1; of the fullest engine.
    pub kv_used: Option<f32>,
    /// Tokens of one KV block.
    pub block_tokens: Option<u32>,
    /// KV blocks, over all engines of the server.
    pub kv_blocks: Option<u32>,
    /// Prompt tokens found in the prefix cache, since the start.
    pub prefix_hits: Option<f64>,
    /// Prompt tokens looked up in the prefix cache, since the start.
    pub prefix_queries: Option<f64>,
    /// Requests thrown out of the KV cache and computed again, since the start.
    pub preemptions: Option<f64>,
    /// LoRA adapters with running requests.
    pub adapters_running: Adapters,
    /// LoRA adapters with waiting requests.
    pub adapters_waiting: Adapters,
    /// LoRA adapters that fit at once.
    pub max_adapters: Option<u32>,
    /// Tokens generated, since the start.
    pub generation_tokens: Option<f64>,
    /// Prompt tokens, cached ones included, since the start.
    pub prompt_tokens: Option<f64>,
}

/// Names of adapters, as one comma list that is reused from reading to reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapters(String);

impl Adapters {
    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }

    /// Whether `name` is among them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|adapter| adapter == name)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Why a text is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// Longer than `MAX_METRICS_BYTES`.
    #[error("metrics of {bytes} bytes are longer than {MAX_METRICS_BYTES} bytes; not read")]
    TooLarge {
        /// Length of the text.
        bytes: usize,
    },
    /// Not one line is a sample.
    #[error("no line of the {bytes} bytes is a metrics sample; is this the metrics path?")]
    NoSamples {
        /// Length of the text.
        bytes: usize,
    },
}

/// One line behind its name.
#[derive(Clone, Copy, Debug)]
struct Sample<'a> {
    labels: Labels<'a>,
    value: f64,
}

/// How one engine tells.
#[derive(Debug)]
struct Dialect {
    engine: Engine,
    prefix: &'static [u8],
    families: &'static [Family],
}

/// One metric family: its name after the prefix, and what its samples say.
type Family = (&'static [u8], fn(&mut Draft<'_>, &Sample<'_>));

/// All engines that can be read.
const DIALECTS: [&Dialect; 5] = [
    &vllm::DIALECT,
    &sglang::DIALECT,
    &llama_cpp::DIALECT,
    &tensorrt_llm::SERVE,
    &tensorrt_llm::TRITON,
];

/// A report being filled.
#[derive(Debug)]
struct Draft<'a> {
    report: &'a mut EngineReport,
    /// Timestamp of the adapters taken so far.
    adapters_at: f64,
}

/// Reads a whole metrics text (Prometheus text or OpenMetrics) into `into`, whose earlier content
/// is dropped and whose buffers are reused. A text without a known engine gives
/// `Engine::Unknown` and nothing else.
///
/// # Errors
/// When the text is too long, or holds no sample at all; `into` is empty then.
pub fn scan_metrics(text: &[u8], into: &mut EngineReport) -> Result<(), MetricsError> {
    clear(into);
    let bytes = text.len();
    if bytes > MAX_METRICS_BYTES {
        return Err(MetricsError::TooLarge { bytes });
    }
    let mut draft = Draft {
        report: into,
        adapters_at: f64::NEG_INFINITY,
    };
    let mut dialect = None;
    let mut samples = 0usize;
    let mut rest = text;
    while !rest.is_empty() {
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let (line, tail) = rest.split_at(length);
        rest = tail.get(1..).unwrap_or_default();
        if matches!(line.first(), None | Some(b'#')) {
            continue;
        }
        dialect = dialect.or_else(|| Dialect::of(line));
        let is_sample = match dialect {
            Some(spoken) => spoken.take(line, &mut draft),
            None => Sample::parse(line).is_some(),
        };
        samples += usize::from(is_sample);
    }
    if samples == 0 {
        Err(MetricsError::NoSamples { bytes })
    } else {
        Ok(())
    }
}

fn clear(report: &mut EngineReport) {
    let mut adapters_running = core::mem::take(&mut report.adapters_running);
    let mut adapters_waiting = core::mem::take(&mut report.adapters_waiting);
    adapters_running.0.clear();
    adapters_waiting.0.clear();
    *report = EngineReport {
        adapters_running,
        adapters_waiting,
        ..EngineReport::default()
    };
}

impl Dialect {
    /// The dialect whose prefix the line has.
    fn of(line: &[u8]) -> Option<&'static Self> {
        DIALECTS
            .into_iter()
            .find(|dialect| line.starts_with(dialect.prefix))
    }

    /// Takes one line; says whether it was a sample of this engine.
    fn take(&self, line: &[u8], draft: &mut Draft<'_>) -> bool {
        let Some(line) = line.strip_prefix(self.prefix) else {
            return false;
        };
        draft.report.engine = self.engine;
        let end = line
            .iter()
            .position(|byte| matches!(byte, b'{' | b' ' | b'\t'));
        let name = without_total(line.get(..end.unwrap_or(line.len())).unwrap_or_default());
        let mut known = self
            .families
            .iter()
            .filter(|(family, _)| *family == name)
            .peekable();
        if known.peek().is_none() {
            return true;
        }
        let Some(sample) = Sample::parse(line).filter(|sample| sample.is_sound()) else {
            return true;
        };
        known.for_each(|(_, take)| take(draft, &sample));
        true
    }
}

fn without_total(name: &[u8]) -> &[u8] {
    name.strip_suffix(b"_total").unwrap_or(name)
}

impl<'a> Sample<'a> {
    /// A line `name{labels} value [timestamp]`.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let end = line
            .iter()
            .position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix(b"{") {
            Some(rest) => Labels::parse(rest)?,
            None => (Labels::default(), rest),
        };
        let token = rest.trim_ascii().split(u8::is_ascii_whitespace).next()?;
        let value = core::str::from_utf8(token).ok()?.parse().ok()?;
        (!name.is_empty()).then_some(Self { labels, value })
    }

    fn is_sound(&self) -> bool {
        self.value.is_finite() && self.value >= 0.0
    }
}

impl Draft<'_> {
    /// The newest of several series wins: its value is the time of its last change.
    fn adapters(&mut self, sample: &Sample<'_>, running: &[u8], waiting: &[u8], most: &[u8]) {
        if sample.value <= self.adapters_at {
            return;
        }
        self.adapters_at = sample.value;
        sample
            .labels
            .copy(running, &mut self.report.adapters_running.0);
        sample
            .labels
            .copy(waiting, &mut self.report.adapters_waiting.0);
        self.report.max_adapters = sample.labels.number(most);
    }
}

/// Adds a sample to a sum over series.
fn add(field: &mut Option<f64>, value: f64) {
    *field = Some(field.unwrap_or(0.0) + value);
}

/// Adds a sample to a gauge's sum over the engines of a server.
fn add_gauge(field: &mut Option<f32>, value: f64) {
    *field = Some(field.unwrap_or(0.0) + value as f32);
}

/// Keeps the larger share, within 0 to 1.
fn fullest(field: &mut Option<f32>, share: f64) {
    *field = Some(field.unwrap_or(0.0).max(share.min(1.0) as f32));
}

/// A count, which has no fraction; too large a one is cut at `u32::MAX`.
fn count(value: f64) -> u32 {
    value as u32
}

/// Adds to a count over the engines of a server.
fn add_count(field: &mut Option<u32>, value: u32) {
    *field = Some(field.unwrap_or(0).saturating_add(value));
}

#[cfg(test)]
mod tests;
