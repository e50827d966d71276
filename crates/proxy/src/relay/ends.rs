//! How an answer ends that does not come whole: the failures of the way back.

use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use std::io;

pub(super) fn broken(error: &io::Error, received: bool) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionReset if !received => Failure::new(
            Phase::Head,
            Cause::ClosedEarly,
            "the endpoint reset the connection before it answered",
        ),
        _ => Failure::new(
            Phase::Head,
            Cause::Reset,
            format!("the connection to the endpoint broke: {error}"),
        ),
    }
}

pub(super) fn closed_early(received: bool) -> Failure {
    if received {
        Failure::new(
            Phase::Head,
            Cause::Reset,
            "the endpoint closed the connection within its response head",
        )
    } else {
        Failure::new(
            Phase::Head,
            Cause::ClosedEarly,
            "the endpoint closed the connection before it answered",
        )
    }
}

pub(super) fn late(cause: Cause) -> Failure {
    Failure::new(
        Phase::Head,
        cause,
        "the endpoint did not begin its answer in time",
    )
}

pub(super) fn not_a_stream(status: u16) -> Failure {
    let message = format!("a stream was begun, and another endpoint answered {status} without one");
    Failure::new(Phase::Head, Cause::BadResponse, message)
}

/// As good as closed: nobody is there any more who would answer on this connection.
pub(super) fn vanished() -> Failure {
    let message = "the endpoint refuses connections and has not begun its answer";
    Failure::new(Phase::Head, Cause::ClosedEarly, message)
}

pub(super) fn vanished_mid_stream() -> Failure {
    let message = "the endpoint refuses connections and fell silent in mid-answer";
    Failure::new(Phase::Stream, Cause::Cut, message)
}

pub(super) fn closed_mid_stream() -> Failure {
    Failure::new(
        Phase::Stream,
        Cause::Cut,
        "the endpoint closed the connection before its answer was complete",
    )
}

pub(super) fn reset_mid_stream(error: &io::Error) -> Failure {
    Failure::new(
        Phase::Stream,
        Cause::Cut,
        format!("the connection to the endpoint broke in mid-answer: {error}"),
    )
}

pub(super) fn out_of_time() -> Failure {
    let message = "the route's request timeout passed in mid-answer";
    Failure::new(Phase::Stream, Cause::RouteTimeout, message)
}

pub(super) fn idle(limits: &Limits) -> Failure {
    let message = format!("the endpoint sent nothing for {:?}", limits.stream_idle);
    Failure::new(Phase::Stream, Cause::StreamIdle, message)
}
