//! Which endpoints are bad, by what happened to requests: ejection, trials, recovery.
//!
//! Failures in a row eject; after a pause one request at a time tries the endpoint out, and the
//! first success takes it back. A first token is a success, except where answers were cut after it:
//! there only a whole answer is. Who cuts answers, or has turned slow, is tried out by probes where
//! there are any (`pool/probe.rs`). Pauses are at most [`LONGEST_PAUSE_SECONDS`], so an endpoint
//! serves again within two seconds of its cure. Every bad mark expires. When all endpoints that
//! could serve are ejected, all are candidates (`pick.rs`): a guess beats a refusal.

use crate::micros::Micros;
use crate::outcome::FailureKind;
use crate::pool::probe::Probed;
use serde::{Deserialize, Serialize};

/// Marks at which an endpoint is ejected: two failed connects or cut answers, three other failures,
/// six refusals.
const EJECTED_AT: u8 = 6;
/// Marks are forgotten when nothing has failed for this long, in seconds.
const MARKS_LAST_SECONDS: f32 = 10.0;
/// First pause before a trial, and by how much each failed trial prolongs it, in seconds.
const PAUSE_STEP_SECONDS: f32 = 0.5;
/// Longest pause before a trial, in seconds.
const LONGEST_PAUSE_SECONDS: f32 = 1.5;
/// Longest pause between probes, in seconds, and how many in a row must come through.
const PROBE_PAUSE_SECONDS: f32 = 1.0;
const PROBES: u8 = 2;
/// A trial without news for this long, in seconds, makes room for another: an endpoint that hung
/// and was cured may leave old connections hanging.
const TRIAL_SECONDS: f32 = 1.5;

/// Silence that says nothing, in seconds: an engine may load an adapter or compile a kernel. And
/// how many times the predicted wait for a first token it may last.
const SILENCE_SECONDS: f32 = 3.0;
const SILENCE_SHARE: f32 = 3.0;
/// Streams without a first token that prove a hang when the silence has lasted that long: as many
/// as failures of other kinds eject.
const SILENT_STREAMS: u32 = 3;

/// Health at the time of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing has failed lately.
    Up,
    /// Something has failed, not enough to be ejected.
    Suspect,
    /// It gets requests only when all are ejected.
    Ejected,
    /// Ejected, and it is time to try it out.
    TrialDue,
}

/// The health of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Health {
    marks: u8,
    /// Marks for answers that were cut, beside the others.
    cuts: u8,
    marked_at: Micros,
    ejection: Option<Ejection>,
    /// Probes took it back, and no client has got a whole answer since.
    is_wary: bool,
}

/// What an endpoint was ejected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Failures,
    /// Its answers begin well.
    Cuts,
    Slowness,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Ejection {
    cause: For,
    /// Probes try it out, not clients.
    probed: bool,
    /// Probes in a row that came through.
    passed: u8,
    since: Micros,
    trial_at: Micros,
    pause_seconds: f32,
    /// When the trial under way began.
    trial: Option<Micros>,
}

/// Streams without a first token that were sent since the endpoint last gave a sign of life.
///
/// A server that hangs answers nothing, so nothing would fail until some deadline of minutes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Silence {
    streams: u32,
    since: Micros,
    heard_at: Micros,
}

impl Silence {
    /// A streamed request was sent.
    pub(crate) fn begin(&mut self, dispatched: Micros) {
        if self.streams == 0 {
            self.since = dispatched;
        }
        self.streams += 1;
    }

    /// A streamed request that was sent at `dispatched` got its first token or ended without.
    pub(crate) fn end(&mut self, dispatched: Micros) {
        if dispatched >= self.heard_at {
            self.streams = self.streams.saturating_sub(1);
        }
    }

    /// A first token or an answer came. What was sent before may still wait for other reasons.
    pub(crate) fn heard(&mut self, now: Micros) {
        *self = Self {
            heard_at: now,
            ..Self::default()
        };
    }

    /// Whether so many wait for so long that the endpoint must hang.
    pub(crate) fn proves_a_hang(&self, now: Micros, prefill_seconds: f32) -> bool {
        self.streams >= SILENT_STREAMS && is_overdue(self.since, now, prefill_seconds)
    }

    /// The earliest moment at which the silence can prove a hang; `None` while too few wait.
    pub(crate) fn proof_at(&self, prefill_seconds: f32) -> Option<Micros> {
        let seconds = SILENCE_SECONDS + SILENCE_SHARE * prefill_seconds;
        (self.streams >= SILENT_STREAMS).then(|| self.since.plus_seconds(seconds))
    }

    /// Whether a request that was sent at `dispatched` and given up now has waited too long, with
    /// no sign of life meanwhile.
    pub(crate) fn was_overdue(
        &self,
        dispatched: Micros,
        now: Micros,
        prefill_seconds: f32,
    ) -> bool {
        dispatched >= self.heard_at && is_overdue(dispatched, now, prefill_seconds)
    }
}

fn is_overdue(since: Micros, now: Micros, prefill_seconds: f32) -> bool {
    now.seconds_since(since) > SILENCE_SECONDS + SILENCE_SHARE * prefill_seconds
}

impl Health {
    /// Health at `now`.
    pub(crate) fn standing(&self, now: Micros) -> Standing {
        match &self.ejection {
            None if (self.marks | self.cuts) == 0 || self.marks_at(now) == 0 => Standing::Up,
            None => Standing::Suspect,
            Some(ejection) => {
                let busy = ejection
                    .trial
                    .is_some_and(|began| now.seconds_since(began) < TRIAL_SECONDS);
                if !ejection.probed && !busy && now >= ejection.trial_at {
                    Standing::TrialDue
                } else {
                    Standing::Ejected
                }
            }
        }
    }

    /// When it may be tried out; `None` when it is not ejected.
    pub(crate) fn trial_at(&self) -> Option<Micros> {
        let Ejection {
            trial_at,
            trial,
            probed,
            ..
        } = self.ejection?;
        if probed {
            return Some(Micros(u64::MAX));
        }
        let over = trial.map_or(trial_at, |began| began.plus_seconds(TRIAL_SECONDS));
        Some(trial_at.max(over))
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejection.is_some()
    }

    /// A request goes there although it is ejected.
    pub(crate) fn begin_trial(&mut self, now: Micros) {
        if let Some(ejection) = &mut self.ejection
            && !ejection.probed
        {
            ejection.trial = Some(now);
        }
    }

    pub(crate) fn is_probed(&self) -> bool {
        self.ejection.is_some_and(|ejection| ejection.probed)
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.ejection
            .is_some_and(|ejection| ejection.cause == For::Slowness)
    }

    /// For how many seconds it has been ejected for slowness.
    pub(crate) fn is_slow_for(&self, now: Micros) -> Option<f32> {
        let ejection = self.ejection.filter(|_| self.is_slow())?;
        Some(now.seconds_since(ejection.since))
    }

    /// Whether a probe is due; then it counts as sent.
    pub(crate) fn begin_probe(&mut self, now: Micros) -> bool {
        let Some(ejection) = &mut self.ejection else {
            return false;
        };
        let due = ejection.probed && ejection.trial.is_none() && now >= ejection.trial_at;
        if due {
            ejection.trial = Some(now);
        }
        due
    }

    /// A probe ended.
    pub(crate) fn probed(&mut self, now: Micros, probed: Probed) {
        let Some(ejection) = self.ejection.as_mut().filter(|ejection| ejection.probed) else {
            return;
        };
        ejection.trial = None;
        match probed {
            Probed::Whole => {
                ejection.passed += 1;
                ejection.trial_at = now;
                if ejection.passed >= PROBES {
                    let cuts = if ejection.cause == For::Cuts {
                        EJECTED_AT / 2
                    } else {
                        0
                    };
                    *self = Self {
                        cuts,
                        marked_at: now,
                        is_wary: true,
                        ..Self::default()
                    };
                }
            }
            Probed::Failed => {
                let longer = ejection.pause_seconds + PAUSE_STEP_SECONDS;
                ejection.pause_seconds = longer.min(PROBE_PAUSE_SECONDS);
                ejection.trial_at = now.plus_seconds(ejection.pause_seconds);
                ejection.passed = 0;
            }
            Probed::Untold if ejection.cause == For::Slowness => *self = Self::default(),
            Probed::Untold => {
                ejection.probed = false;
                ejection.pause_seconds = LONGEST_PAUSE_SECONDS;
                let trial_at = ejection.since.plus_seconds(LONGEST_PAUSE_SECONDS);
                ejection.trial_at = trial_at.max(now);
            }
        }
    }

    /// A trial ended and said nothing of the endpoint: another may follow at once.
    pub(crate) fn trial_without_evidence(&mut self, began: Micros) {
        if let Some(ejection) = &mut self.ejection
            && ejection.trial == Some(began)
        {
            ejection.trial = None;
        }
    }

    /// A request that was dispatched at `dispatched` got its first token.
    pub(crate) fn spoke(&mut self, dispatched: Micros) {
        let stays =
            |ejection: Ejection| ejection.cause != For::Failures || dispatched < ejection.since;
        if !self.ejection.is_some_and(stays) {
            self.marks = 0;
            self.ejection = None;
        }
    }

    /// A request that was dispatched at `dispatched` got its whole response.
    pub(crate) fn success(&mut self, dispatched: Micros) {
        // A stream that began before the ejection says nothing of new requests.
        let stays =
            |ejection: Ejection| ejection.cause == For::Slowness || dispatched < ejection.since;
        if self.ejection.is_some_and(stays) {
            return;
        }
        *self = Self::default();
    }

    /// A request failed. `trial`: it tried the endpoint out. `probes`: there are any.
    pub(crate) fn failure(
        &mut self,
        now: Micros,
        kind: FailureKind,
        trial: Option<Micros>,
        probes: bool,
    ) {
        let weight = match kind {
            FailureKind::ClientFault => return,
            // A cut is seen by a client: nobody else can go on in the middle.
            FailureKind::Connect | FailureKind::Cut => 3,
            FailureKind::Reset | FailureKind::Hang | FailureKind::Status5xx => 2,
            FailureKind::Status429 => 1,
        };
        let is_cut = kind == FailureKind::Cut;
        match &mut self.ejection {
            Some(ejection) => {
                if trial.is_some() && ejection.trial == trial {
                    let longer = ejection.pause_seconds + PAUSE_STEP_SECONDS;
                    ejection.pause_seconds = longer.min(LONGEST_PAUSE_SECONDS);
                    ejection.trial_at = now.plus_seconds(ejection.pause_seconds);
                    ejection.trial = None;
                }
            }
            None => {
                if self.marks_at(now) == 0 {
                    *self = Self::default();
                }
                let marks = if is_cut {
                    &mut self.cuts
                } else {
                    &mut self.marks
                };
                *marks = marks.saturating_add(weight);
                self.marked_at = now;
                if self.marks_at(now) >= EJECTED_AT {
                    let (cause, pause) = match (is_cut, probes && !self.is_wary) {
                        (false, _) => (For::Failures, PAUSE_STEP_SECONDS),
                        (true, true) => (For::Cuts, PAUSE_STEP_SECONDS),
                        (true, false) => (For::Cuts, LONGEST_PAUSE_SECONDS),
                    };
                    self.eject_for(now, cause, pause, is_cut && probes);
                }
            }
        }
    }

    /// There is proof enough.
    pub(crate) fn eject(&mut self, now: Micros) {
        self.eject_for(now, For::Failures, PAUSE_STEP_SECONDS, false);
    }

    /// It is much slower than it was.
    pub(crate) fn eject_slow(&mut self, now: Micros) {
        let pause = if self.is_wary {
            LONGEST_PAUSE_SECONDS
        } else {
            PAUSE_STEP_SECONDS
        };
        self.eject_for(now, For::Slowness, pause, true);
    }

    fn eject_for(&mut self, now: Micros, cause: For, pause_seconds: f32, probed: bool) {
        self.ejection.get_or_insert(Ejection {
            cause,
            probed,
            passed: 0,
            since: now,
            trial_at: now.plus_seconds(pause_seconds),
            pause_seconds,
            trial: None,
        });
    }

    fn marks_at(&self, now: Micros) -> u8 {
        let forgotten = now.seconds_since(self.marked_at) > MARKS_LAST_SECONDS;
        if forgotten {
            0
        } else {
            self.marks.saturating_add(self.cuts)
        }
    }

    /// For people.
    pub(crate) fn text(&self, now: Micros) -> String {
        match (self.standing(now), &self.ejection) {
            (Standing::Up, _) => "up".to_owned(),
            (Standing::Suspect, _) => {
                format!("suspect: {} of {EJECTED_AT} marks", self.marks_at(now))
            }
            (_, Some(Ejection { probed: true, .. })) if self.is_slow() => {
                "ejected for slowness: until probes are answered in time".to_owned()
            }
            (_, Some(Ejection { probed: true, .. })) => {
                "ejected for cut answers: until probes are answered whole".to_owned()
            }
            (
                _,
                Some(Ejection {
                    trial: Some(began), ..
                }),
            ) => {
                format!("trial: under way for {:.1} s", now.seconds_since(*began))
            }
            (Standing::TrialDue, _) => "trial: with the next request".to_owned(),
            (_, ejection) => {
                let pause = ejection.map_or(0.0, |ejection| ejection.trial_at.seconds_since(now));
                format!("ejected: trial in {pause:.1} s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    /// Feeds failures 10 ms apart; tells how many it took to be ejected.
    fn failures_to_ejection(kind: FailureKind) -> Option<u32> {
        let mut health = Health::default();
        (1..=20).find(|i| {
            health.failure(Micros(u64::from(*i) * 10 * MS), kind, None, false);
            health.is_ejected()
        })
    }

    #[test]
    fn evidence_has_its_weight() {
        for (kind, expected) in [
            (FailureKind::Connect, Some(2)),
            (FailureKind::Reset, Some(3)),
            (FailureKind::Hang, Some(3)),
            (FailureKind::Status5xx, Some(3)),
            (FailureKind::Cut, Some(2)),
            (FailureKind::Status429, Some(6)),
            (FailureKind::ClientFault, None),
        ] {
            assert_eq!(failures_to_ejection(kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn marks_expire_and_a_success_clears_them() {
        let mut health = Health::default();
        health.failure(Micros(0), FailureKind::Connect, None, false);
        assert_eq!(health.standing(Micros(1)), Standing::Suspect);
        assert_eq!(health.standing(Micros(11_000 * MS)), Standing::Up);
        health.failure(Micros(11_000 * MS), FailureKind::Connect, None, false);
        assert!(!health.is_ejected());
        health.success(Micros(10_000 * MS));
        health.failure(Micros(11_001 * MS), FailureKind::Connect, None, false);
        assert!(!health.is_ejected());
    }

    fn ejected() -> Health {
        let mut health = Health::default();
        health.failure(Micros(0), FailureKind::Connect, None, false);
        health.failure(Micros(0), FailureKind::Connect, None, false);
        assert_eq!(health.standing(Micros(0)), Standing::Ejected);
        health
    }

    #[test]
    fn trials_come_one_at_a_time_with_pauses_of_at_most_a_second_and_a_half() {
        let mut health = ejected();
        let mut failed_at = Micros(0);
        for pause_ms in [500, 1000, 1500, 1500, 1500] {
            let due = Micros(failed_at.0 + pause_ms * MS);
            assert_eq!(health.standing(Micros(due.0 - 1)), Standing::Ejected);
            assert_eq!(health.standing(due), Standing::TrialDue);
            health.begin_trial(due);
            assert_eq!(health.standing(due), Standing::Ejected, "one at a time");
            failed_at = Micros(due.0 + 3 * MS);
            health.failure(failed_at, FailureKind::Reset, Some(due), false);
        }
    }

    #[test]
    fn a_trial_that_hangs_makes_room_for_another() {
        let mut health = ejected();
        health.begin_trial(Micros(500 * MS));
        assert_eq!(health.standing(Micros(1999 * MS)), Standing::Ejected);
        assert_eq!(health.standing(Micros(2000 * MS)), Standing::TrialDue);
        health.success(Micros(2000 * MS));
        assert_eq!(health.standing(Micros(2000 * MS)), Standing::Up);
    }

    #[test]
    fn where_answers_were_cut_only_a_whole_one_is_a_success() {
        let mut health = Health::default();
        for at in [1, 2] {
            health.spoke(Micros(at * 10 * MS));
            health.failure(Micros(at * 10 * MS + 1), FailureKind::Cut, None, false);
        }
        assert!(health.is_ejected());
        let began = Micros(1600 * MS);
        health.begin_trial(began);
        health.spoke(began);
        assert!(health.is_ejected(), "it begins well, as before");
        health.success(began);
        assert_eq!(health.standing(began), Standing::Up);
        // Other failures are over with the first token.
        let mut health = ejected();
        health.spoke(Micros(600 * MS));
        assert!(!health.is_ejected());
    }

    #[test]
    fn old_streams_and_client_faults_do_not_take_an_endpoint_back() {
        let mut health = Health::default();
        for _ in 0..3 {
            health.failure(Micros(9 * MS), FailureKind::Hang, None, false);
        }
        health.success(Micros(8 * MS));
        assert!(health.is_ejected());
        let began = Micros(600 * MS);
        health.begin_trial(began);
        health.trial_without_evidence(began);
        assert_eq!(health.standing(began), Standing::TrialDue);
    }
}
