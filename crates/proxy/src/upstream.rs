//! Connections to endpoints: connect, send a request, read its response head, keep for later.
//!
//! HTTP/1.1 only; the codec is the crate `http1`. `fetch` is the small client of the telemetry.

pub(crate) mod fetch;
pub(crate) mod h1;
pub(crate) mod idle;
