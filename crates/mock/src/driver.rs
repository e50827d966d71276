//! The engine in real time: one task owns it and sleeps until its next event.
//!
//! Requests talk to it by bounded channels and get their tokens by one channel each, which is as
//! long as the answer, so that a slow client never holds up the engine. Times come from
//! `tokio::time` only: under a paused clock the engine sees the same times as in the simulator.
//! A request that leaves (its [`Generation`] is dropped) leaves the engine at once.

mod observed;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sim::Micros;
use sim::engine::{Engine, EngineSpec, Event, EventKind, Gauges, Job, JobId, Refused};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use observed::{Ends, Histogram, Observed};

/// Jobs in the engine at once; more are told to try elsewhere.
const JOBS: usize = 16_384;
const COMMANDS: usize = 256;

/// Why a generation was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the engine holds {JOBS} jobs: try another server")]
    Full,
    #[error("the engine has stopped")]
    Stopped,
}

/// Something happened to one job of a generation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// Which job, as an index into what was submitted.
    pub(crate) index: usize,
    pub(crate) event: Event,
}

/// What the engine and its log look like at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) gauges: Gauges,
    pub(crate) observed: Observed,
}

#[derive(Debug)]
enum Command {
    Submit {
        jobs: Vec<Job>,
        ends: Ends,
        progress: mpsc::Sender<Progress>,
        answer: oneshot::Sender<Result<(), Refused>>,
    },
    Look(oneshot::Sender<Report>),
    SetSpeed(u32),
}

/// How requests reach the engine.
#[derive(Debug)]
pub(crate) struct EngineHandle {
    commands: mpsc::Sender<Command>,
    leaves: mpsc::Sender<JobId>,
    next_job: AtomicU64,
}

/// Running jobs and where their progress arrives. Dropping it takes the jobs out of the engine.
#[derive(Debug)]
pub(crate) struct Generation {
    progress: mpsc::Receiver<Progress>,
    _places: Vec<Place>,
}

impl Generation {
    /// What happens next; `None` once the engine has stopped or all jobs have finished.
    pub(crate) async fn next(&mut self) -> Option<Progress> {
        self.progress.recv().await
    }
}

/// The right to be in the engine, with room kept for the message of leaving.
#[derive(Debug)]
struct Place {
    job: JobId,
    leave: Option<mpsc::OwnedPermit<JobId>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave.send(self.job);
        }
    }
}

impl EngineHandle {
    /// Starts one generation of several jobs; their ids are given here.
    pub(crate) async fn submit(
        &self,
        mut jobs: Vec<Job>,
        ends: Ends,
    ) -> Result<Generation, SubmitError> {
        let mut places = Vec::with_capacity(jobs.len());
        for job in &mut jobs {
            job.id = JobId(self.next_job.fetch_add(1, Ordering::Relaxed));
            let leave = self
                .leaves
                .clone()
                .try_reserve_owned()
                .map_err(|error| match error {
                    TrySendError::Full(_) => SubmitError::Full,
                    TrySendError::Closed(_) => SubmitError::Stopped,
                })?;
            places.push(Place {
                job: job.id,
                leave: Some(leave),
            });
        }
        // Every token and one end per job: the engine's task never finds the channel full.
        let room: usize = jobs.iter().map(|job| job.output_tokens as usize + 1).sum();
        let (sender, progress) = mpsc::channel(room.max(1));
        let (answer, answered) = oneshot::channel();
        let command = Command::Submit {
            jobs,
            ends,
            progress: sender,
            answer,
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| SubmitError::Stopped)?;
        answered.await.map_err(|_| SubmitError::Stopped)??;
        Ok(Generation {
            progress,
            _places: places,
        })
    }

    /// The engine as of now; `None` once it has stopped.
    pub(crate) async fn look(&self) -> Option<Report> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Look(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Sets the engine's speed in thousandths of its profile's.
    pub(crate) async fn set_speed(&self, per_mille: u32) {
        // An engine that has stopped needs no speed.
        let _ = self.commands.send(Command::SetSpeed(per_mille)).await;
    }
}

#[derive(Debug)]
struct Client {
    index: usize,
    progress: mpsc::Sender<Progress>,
    submitted: Micros,
    first_token: Option<Micros>,
    last_token: Micros,
    tokens: u32,
    ends: Ends,
}

/// The task that owns the engine.
#[derive(Debug)]
pub(crate) struct Driver {
    engine: Engine,
    epoch: Instant,
    commands: mpsc::Receiver<Command>,
    leaves: mpsc::Receiver<JobId>,
    clients: HashMap<JobId, Client>,
    observed: Observed,
    events: Vec<Event>,
}

impl Driver {
    /// An idle engine whose clock starts now, and the handle to it.
    pub(crate) fn new(spec: EngineSpec) -> (Self, EngineHandle) {
        let (commands, commands_received) = mpsc::channel(COMMANDS);
        let (leaves, leaves_received) = mpsc::channel(JOBS);
        let driver = Self {
            engine: Engine::new(spec),
            epoch: Instant::now(),
            commands: commands_received,
            leaves: leaves_received,
            clients: HashMap::new(),
            observed: Observed::default(),
            events: Vec::new(),
        };
        (
            driver,
            EngineHandle {
                commands,
                leaves,
                next_job: AtomicU64::new(0),
            },
        )
    }

    /// Runs until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let now = self.catch_up();
            let next = self.engine.next_event();
            let wake = self.epoch + Duration::from_micros(next.unwrap_or(now).0);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some(job) = self.leaves.recv() => self.leave(job),
                Some(command) = self.commands.recv() => self.obey(command),
                () = tokio::time::sleep_until(wake), if next.is_some() => {}
            }
        }
    }

    fn now(&self) -> Micros {
        Micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Lets the engine's time pass until now and hands out what happened.
    fn catch_up(&mut self) -> Micros {
        let now = self.now();
        let mut events = core::mem::take(&mut self.events);
        self.engine.advance(now, &mut events);
        for event in events.drain(..) {
            self.deliver(event);
        }
        self.events = events;
        now
    }

    fn leave(&mut self, job: JobId) {
        self.catch_up();
        self.engine.abort(job);
        self.clients.remove(&job);
    }

    fn obey(&mut self, command: Command) {
        let now = self.catch_up();
        match command {
            Command::Submit {
                jobs,
                ends,
                progress,
                answer,
            } => {
                // Whoever asked may be gone: its leaving was read before its coming.
                if !progress.is_closed() {
                    let taken = self.take(now, jobs, ends, &progress);
                    // If nobody reads this, the jobs' leaving is on its way.
                    let _ = answer.send(taken);
                }
            }
            Command::Look(answer) => {
                let gauges = self.engine.gauges();
                self.observed.note_adapters(&gauges, now);
                let _ = answer.send(Report {
                    gauges,
                    observed: self.observed.clone(),
                });
            }
            Command::SetSpeed(per_mille) => self.engine.set_speed(per_mille),
        }
    }

    fn take(
        &mut self,
        now: Micros,
        jobs: Vec<Job>,
        ends: Ends,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<(), Refused> {
        for (index, job) in jobs.into_iter().enumerate() {
            let id = job.id;
            self.engine.submit(now, job)?;
            let client = Client {
                index,
                progress: progress.clone(),
                submitted: now,
                first_token: None,
                last_token: now,
                tokens: 0,
                ends,
            };
            self.clients.insert(id, client);
        }
        Ok(())
    }

    fn deliver(&mut self, event: Event) {
        let Some(client) = self.clients.get_mut(&event.job) else {
            return;
        };
        if event.kind.is_token() {
            match client.first_token {
                None => self
                    .observed
                    .first_token
                    .add(event.at.since(client.submitted)),
                Some(_) => self
                    .observed
                    .token_gap
                    .add(event.at.since(client.last_token)),
            }
            client.first_token.get_or_insert(event.at);
            client.last_token = event.at;
            client.tokens += 1;
        }
        // It fails only when the client is gone; then its leaving is on its way.
        let _ = client.progress.try_send(Progress {
            index: client.index,
            event,
        });
        if let EventKind::Finished { .. } = event.kind {
            self.observed
                .finished(client.ends, event.at.since(client.submitted));
            if let Some(first) = client.first_token.filter(|_| client.tokens > 1) {
                let per_token = event.at.since(first) / u64::from(client.tokens - 1);
                self.observed.per_token.add(per_token);
            }
            self.clients.remove(&event.job);
        }
    }
}
