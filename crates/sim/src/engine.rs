//! One continuous-batching model server, step by step, on an integer clock.
//!
//! [`Engine`] owns the clock of its steps; `batch` says what a step computes, `timing` how long
//! that takes, `blocks` keeps the KV cache. A step that starts at `t` takes jobs that arrived
//! strictly before `t`, and an idle engine starts one microsecond after an arrival: so jobs of one
//! instant share a step, and `submit(t)` and `advance(t)` commute.

mod adapters;
mod batch;
mod blocks;
mod profile;
#[cfg(test)]
mod tests;
mod timing;

use rustc_hash::FxHashSet;

use crate::Micros;
use batch::{Batch, Sequence};
pub use profile::{PROFILES, Profile, UnknownProfile};

/// Name of a job; chosen by the caller, unique among the jobs in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Name of a LoRA adapter; chosen by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterId(pub u32);

/// One generation that the engine shall run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name in events and in [`Engine::abort`].
    pub id: JobId,
    /// Tokens of the prompt, at least 1.
    pub prompt_tokens: u32,
    /// Tokens to generate; 0 for an embedding, which finishes when its prompt is computed.
    pub output_tokens: u32,
    /// Identity of each full block of the prompt and, after it, of the output. Each hash must
    /// stand for everything before it too, and for adapter and cache salt. May be shorter than the
    /// sequence: the rest is then never found again.
    pub block_hashes: Vec<u64>,
    /// The adapter to run under.
    pub adapter: Option<AdapterId>,
}

/// What happened to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, in engine time.
    pub at: Micros,
    /// To which job.
    pub job: JobId,
    /// What.
    pub kind: EventKind,
}

/// Kinds of [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The first token came out.
    FirstToken {
        /// Prompt tokens that were found in the prefix cache.
        cached_tokens: u32,
    },
    /// A later token came out; `number` counts from 1, so it is at least 2.
    Token {
        /// Ordinal of the token.
        number: u32,
    },
    /// All tokens are out; comes right after the last one, at the same time.
    Finished {
        /// Prompt tokens that were found in the prefix cache.
        cached_tokens: u32,
    },
}

impl EventKind {
    /// Whether a token came out.
    #[must_use]
    pub fn is_token(&self) -> bool {
        matches!(self, Self::FirstToken { .. } | Self::Token { .. })
    }
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The prompt has no token.
    #[error("job has no prompt token: give it at least one")]
    EmptyPrompt,
    /// The whole cache could not hold it.
    #[error("job needs {needed} blocks and the engine has {total}: shorten it")]
    NeverFits {
        /// Blocks for prompt and output.
        needed: u64,
        /// Blocks of the engine.
        total: u32,
    },
    /// It wants an adapter and the engine has no slot.
    #[error("job wants an adapter and the engine has no adapter slot: raise `adapter_slots`")]
    NoAdapterSlot,
    /// A job of that name is in the engine.
    #[error("a job of the same name is in the engine: choose another name")]
    Duplicate,
}

/// How an engine is built. Zero sizes count as 1, except `adapter_slots`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSpec {
    /// Speed of its hardware.
    pub profile: Profile,
    /// Tokens in a KV block.
    pub block_tokens: u32,
    /// KV blocks.
    pub blocks: u32,
    /// Tokens computed in one step at most (`max_num_batched_tokens`).
    pub budget_tokens: u32,
    /// Sequences in one step at most (`max_num_seqs`).
    pub seats: u32,
    /// Tokens of one prompt in one step at most (`long_prefill_token_threshold`).
    pub long_prefill_tokens: u32,
    /// Different adapters in one step at most (`max_loras`).
    pub adapter_slots: u32,
    /// What loading an adapter into a slot adds to a step, in microseconds.
    pub adapter_load_micros: u64,
    /// Whether full blocks are kept for later requests.
    pub prefix_caching: bool,
}

impl EngineSpec {
    /// An engine on `profile` with vLLM's defaults: blocks of 16 tokens, 256 seats.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            block_tokens: 16,
            blocks: profile.kv_tokens / 16,
            budget_tokens: profile.budget_tokens,
            seats: 256,
            long_prefill_tokens: u32::MAX,
            adapter_slots: 4,
            adapter_load_micros: 200_000,
            prefix_caching: true,
        }
    }

    /// Tokens that the KV cache holds.
    #[must_use]
    pub fn kv_tokens(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.block_tokens)
    }

    fn with_sizes_above_zero(mut self) -> Self {
        for size in [
            &mut self.block_tokens,
            &mut self.blocks,
            &mut self.budget_tokens,
            &mut self.seats,
            &mut self.long_prefill_tokens,
        ] {
            *size = (*size).max(1);
        }
        self
    }
}

/// Counters since the engine was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens found there.
    pub prefix_hits: u64,
    /// Sequences thrown out of the batch for lack of blocks.
    pub preemptions: u64,
    /// Prompt tokens of sequences whose prompt was finished.
    pub prompt_tokens: u64,
    /// Tokens that came out.
    pub generated_tokens: u64,
}

/// What the engine looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gauges {
    /// Sequences in the batch.
    pub running: u32,
    /// Sequences in the queue.
    pub waiting: u32,
    /// KV blocks held by running sequences; what is only cached counts as free.
    pub blocks_used: u32,
    /// KV blocks in all.
    pub blocks: u32,
    /// Adapters of the running sequences, sorted, each once.
    pub adapters_running: Vec<AdapterId>,
    /// Adapters of the waiting sequences, sorted, each once.
    pub adapters_waiting: Vec<AdapterId>,
    /// Counters.
    pub totals: Totals,
}

impl Gauges {
    /// Share of the KV cache in use, 0 to 1.
    #[must_use]
    pub fn kv_used(&self) -> f64 {
        f64::from(self.blocks_used) / f64::from(self.blocks.max(1))
    }
}

/// One continuous-batching model server.
#[derive(Debug, Clone)]
pub struct Engine {
    spec: EngineSpec,
    batch: Batch,
    jobs: FxHashSet<JobId>,
    step_ends: Option<Micros>,
    /// End of the last step: no step starts before it.
    free_since: Micros,
    last_arrival: Micros,
    speed_per_mille: u32,
}

impl Engine {
    /// An idle engine with an empty cache.
    #[must_use]
    pub fn new(spec: EngineSpec) -> Self {
        let spec = spec.with_sizes_above_zero();
        Self {
            batch: Batch::new(&spec),
            spec,
            jobs: FxHashSet::default(),
            step_ends: None,
            free_since: Micros(0),
            last_arrival: Micros(0),
            speed_per_mille: 1_000,
        }
    }

    /// How it was built.
    #[must_use]
    pub fn spec(&self) -> &EngineSpec {
        &self.spec
    }

    /// Queues a job that arrives at `now`. A `now` earlier than that of the job before counts as
    /// equal to it.
    ///
    /// # Errors
    /// When the engine could never run the job, or has one of that name.
    pub fn submit(&mut self, now: Micros, job: Job) -> Result<(), Refused> {
        if job.prompt_tokens == 0 {
            return Err(Refused::EmptyPrompt);
        }
        // The last token that comes out is never computed, so it needs no room.
        let tokens = u64::from(job.prompt_tokens) + u64::from(job.output_tokens.max(1)) - 1;
        let needed = tokens.div_ceil(u64::from(self.spec.block_tokens));
        // Token counts of one sequence are 32 bits wide.
        if needed > u64::from(self.spec.blocks) || tokens >= u64::from(u32::MAX) {
            return Err(Refused::NeverFits {
                needed,
                total: self.spec.blocks,
            });
        }
        if job.adapter.is_some() && self.spec.adapter_slots == 0 {
            return Err(Refused::NoAdapterSlot);
        }
        if !self.jobs.insert(job.id) {
            return Err(Refused::Duplicate);
        }
        self.last_arrival = self.last_arrival.max(now);
        self.batch
            .waiting
            .push_back(Sequence::new(self.last_arrival, job));
        Ok(())
    }

    /// When something happens next; `None` when the engine is idle.
    #[must_use]
    pub fn next_event(&self) -> Option<Micros> {
        if self.step_ends.is_some() {
            return self.step_ends;
        }
        if !self.batch.running.is_empty() {
            return Some(self.free_since);
        }
        let first = self.batch.waiting.front()?;
        Some(first.arrived.plus(1).max(self.free_since))
    }

    /// Lets time pass until `now` and appends what happened to `events`, in order of time.
    pub fn advance(&mut self, now: Micros, events: &mut Vec<Event>) {
        while let Some(at) = self.next_event().filter(|at| *at <= now) {
            if self.step_ends.take().is_some() {
                self.end_step(at, events);
            } else {
                self.start_step(at);
            }
        }
    }

    /// Takes a job out, wherever it is; false when it is not here. Its blocks are free at once;
    /// the step in progress keeps its length.
    pub fn abort(&mut self, job: JobId) -> bool {
        self.jobs.remove(&job) && self.batch.remove(job)
    }

    /// Sets the speed from the next step on: 1,000 as the profile says, 500 half as fast.
    pub fn set_speed(&mut self, per_mille: u32) {
        self.speed_per_mille = per_mille.max(1);
    }

    /// Load, cache use and counters as of now.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let Batch {
            running,
            waiting,
            pool,
            totals,
            ..
        } = &self.batch;
        Gauges {
            running: u32::try_from(running.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(waiting.len()).unwrap_or(u32::MAX),
            blocks_used: pool.total() - pool.free(),
            blocks: pool.total(),
            adapters_running: adapters(running.iter()),
            adapters_waiting: adapters(waiting.iter()),
            totals: *totals,
        }
    }

    fn start_step(&mut self, at: Micros) {
        let load = self.batch.form(at, &self.spec);
        debug_assert!(
            !load.is_empty(),
            "a step with work to do computes at least one token"
        );
        let micros = load.micros(
            &self.spec.profile,
            self.spec.adapter_load_micros,
            self.speed_per_mille,
        );
        self.step_ends = Some(at.plus(micros));
    }

    fn end_step(&mut self, at: Micros, events: &mut Vec<Event>) {
        let first_new = events.len();
        self.free_since = at;
        self.batch.settle(at, &self.spec, events);
        for event in events.iter().skip(first_new) {
            if matches!(event.kind, EventKind::Finished { .. }) {
                self.jobs.remove(&event.job);
            }
        }
    }
}

fn adapters<'a>(sequences: impl Iterator<Item = &'a Sequence>) -> Vec<AdapterId> {
    let mut all: Vec<AdapterId> = sequences.filter_map(|sequence| sequence.adapter).collect();
    all.sort_unstable();
    all.dedup();
    all
}
