//! How a request ended, as whoever carried it tells the pool.
//!
//! One outcome settles one reservation. What it says of the endpoint's health is judged in
//! `health.rs`, what it says of its speed in `rates.rs`.

/// How a request ended and what it turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The end.
    pub result: Finished,
    /// Tokens of the prompt by the engine's own count; 0 when it did not say.
    pub prompt_tokens: u32,
    /// Tokens of the prompt that the engine had cached, when it said so.
    pub cached_tokens: Option<u32>,
    /// Tokens that were generated; 0 when unknown.
    pub completion_tokens: u32,
}

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// The whole response was received.
    Complete,
    /// The client left, or nobody waits any more: says nothing of the endpoint.
    Cancelled,
    /// It went wrong.
    Failed(FailureKind),
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection could be made.
    Connect,
    /// The connection broke before the response had begun.
    Reset,
    /// Nothing came within the time allowed.
    Hang,
    /// The engine answered with a status of 500 to 599.
    Status5xx,
    /// The engine said that it has too much to do.
    Status429,
    /// The response broke off after it had begun.
    Cut,
    /// The request itself was at fault (a status of 400 to 499): says nothing of the endpoint.
    ClientFault,
}
