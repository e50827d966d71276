//! Time on the data path: one monotonic clock that starts with the process, and its wall-clock text.
//!
//! Everything inside measures in [`Micros`] since start. Wall time exists only in what people read
//! (the access log); its text is remembered per second, so that a line costs three digits.

use picker::Micros;
use std::cell::{Cell, RefCell};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

static START: LazyLock<(Instant, jiff::Timestamp)> =
    LazyLock::new(|| (Instant::now(), jiff::Timestamp::now()));

/// Time since the process first asked for it.
pub(crate) fn now() -> Micros {
    let elapsed = START.0.elapsed();
    let now = elapsed.as_secs() * 1_000_000 + u64::from(elapsed.subsec_micros());
    LATEST.set(now);
    Micros(now)
}

/// The time that this thread last asked for: at most one tick of the worker old. Good enough for
/// deadlines, and free.
pub(crate) fn coarse() -> Micros {
    Micros(LATEST.get())
}

/// The moment `at`, as the runtime's timers count.
pub(crate) fn instant(at: Micros) -> Instant {
    START.0 + Duration::from_micros(at.0)
}

/// The wall clock at `at`, as milliseconds since the Unix epoch.
pub(crate) fn unix_millis(at: Micros) -> i64 {
    START.1.as_millisecond() + (at.0 / 1000) as i64
}

thread_local! {
    static LATEST: Cell<u64> = const { Cell::new(0) };
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// Appends RFC 3339 text with milliseconds, such as `2026-11-23T10:00:00.123Z`.
pub(crate) fn write_stamp(at: Micros, out: &mut Vec<u8>) {
    let millis = unix_millis(at);
    let (second, rest) = (millis.div_euclid(1000), millis.rem_euclid(1000) as u16);
    SECOND.with_borrow_mut(|(known, text)| {
        if *known != second {
            *known = second;
            *text = match jiff::Timestamp::from_second(second) {
                Ok(stamp) => stamp.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
                Err(_) => "0000-00-00T00:00:00".to_owned(),
            };
        }
        out.extend_from_slice(text.as_bytes());
    });
    let digit = |n: u16| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest), b'Z']);
}
