//! What a step computes: the running list, the waiting queue, and who gets tokens and blocks.
//!
//! Follows vLLM's V1 scheduler (`v1/core/sched/scheduler.py`): running sequences first, in order;
//! when blocks run out the last running one is preempted and recomputed later; only a step without
//! preemption admits from the queue, in order, and stops at the first that does not fit.
//! Invariant: blocks are held by running sequences only.

use std::collections::VecDeque;

use super::adapters::{AdapterSlots, Taken};
use super::blocks::BlockPool;
use super::timing::StepLoad;
use super::{AdapterId, EngineSpec, Event, EventKind, Job, JobId, Totals};
use crate::Micros;

/// One job on its way through the engine.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub(super) id: JobId,
    pub(super) arrived: Micros,
    pub(super) adapter: Option<AdapterId>,
    prompt_tokens: u32,
    output_tokens: u32,
    hashes: Vec<u64>,
    generated: u32,
    /// Tokens whose keys and values are in the cache.
    computed: u32,
    /// Tokens that the step in progress computes.
    scheduled: u32,
    table: Vec<u32>,
    /// Blocks of `table` that were found in, or entered into, the prefix cache.
    entered: u32,
    /// Prompt tokens found in the cache at first admission.
    cached_tokens: Option<u32>,
}

impl Sequence {
    pub(super) fn new(arrived: Micros, job: Job) -> Self {
        Self {
            id: job.id,
            arrived,
            adapter: job.adapter,
            prompt_tokens: job.prompt_tokens,
            output_tokens: job.output_tokens,
            hashes: job.block_hashes,
            generated: 0,
            computed: 0,
            scheduled: 0,
            table: Vec::new(),
            entered: 0,
            cached_tokens: None,
        }
    }

    /// Prompt and generated tokens: what must be computed before the next token comes out.
    fn known(&self) -> u32 {
        self.prompt_tokens + self.generated
    }

    fn missing_blocks(&self, tokens: u32, block_tokens: u32) -> u32 {
        let needed = (self.computed + tokens).div_ceil(block_tokens);
        needed.saturating_sub(u32::try_from(self.table.len()).unwrap_or(u32::MAX))
    }

    fn event(&self, at: Micros, kind: EventKind) -> Event {
        Event {
            at,
            job: self.id,
            kind,
        }
    }

    /// Counts the step's tokens as computed; true when the sequence is finished.
    fn settle(&mut self, at: Micros, events: &mut Vec<Event>) -> bool {
        self.computed += self.scheduled;
        let worked = core::mem::take(&mut self.scheduled) > 0;
        if !worked || self.computed < self.known() {
            return false;
        }
        let cached_tokens = self.cached_tokens.unwrap_or(0);
        if self.output_tokens > 0 {
            self.generated += 1;
            let kind = match self.generated {
                1 => EventKind::FirstToken { cached_tokens },
                number => EventKind::Token { number },
            };
            events.push(self.event(at, kind));
        }
        let finished = self.generated >= self.output_tokens;
        if finished {
            events.push(self.event(at, EventKind::Finished { cached_tokens }));
        }
        finished
    }
}

/// The sequences of one engine and what they hold.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) running: Vec<Sequence>,
    pub(super) waiting: VecDeque<Sequence>,
    pub(super) pool: BlockPool,
    pub(super) totals: Totals,
    slots: AdapterSlots,
    found: Vec<u32>,
}

impl Batch {
    pub(super) fn new(spec: &EngineSpec) -> Self {
        Self {
            running: Vec::new(),
            waiting: VecDeque::new(),
            pool: BlockPool::new(spec.blocks),
            totals: Totals::default(),
            slots: AdapterSlots::new(spec.adapter_slots),
            found: Vec::new(),
        }
    }

    /// Forms the step that starts at `start`: gives tokens and blocks to sequences.
    pub(super) fn form(&mut self, start: Micros, spec: &EngineSpec) -> StepLoad {
        let mut load = StepLoad::default();
        let mut budget = spec.budget_tokens;
        let preemptions = self.totals.preemptions;
        self.continue_running(spec, &mut budget, &mut load);
        if self.totals.preemptions == preemptions {
            self.admit(start, spec, &mut budget, &mut load);
        }
        load
    }

    /// Ends the step: enters full blocks, emits tokens, lets finished sequences go.
    pub(super) fn settle(&mut self, at: Micros, spec: &EngineSpec, events: &mut Vec<Event>) {
        let first_new = events.len();
        let Self {
            running,
            pool,
            slots,
            totals,
            ..
        } = self;
        running.retain_mut(|sequence| {
            let had_output = sequence.generated > 0;
            let finished = sequence.settle(at, events);
            if spec.prefix_caching {
                enter_full_blocks(sequence, pool, spec.block_tokens);
            }
            if !had_output && (finished || sequence.generated > 0) {
                totals.prompt_tokens += u64::from(sequence.prompt_tokens);
            }
            if finished {
                release(sequence, pool, slots);
            }
            !finished
        });
        let tokens = events
            .iter()
            .skip(first_new)
            .filter(|event| event.kind.is_token())
            .count();
        totals.generated_tokens += tokens as u64;
    }

    /// Takes a job out, wherever it is; false when it is not here.
    pub(super) fn remove(&mut self, id: JobId) -> bool {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            let mut sequence = self.running.remove(index);
            release(&mut sequence, &mut self.pool, &mut self.slots);
            return true;
        }
        let queued = self.waiting.iter().position(|sequence| sequence.id == id);
        queued
            .and_then(|index| self.waiting.remove(index))
            .is_some()
    }

    fn continue_running(&mut self, spec: &EngineSpec, budget: &mut u32, load: &mut StepLoad) {
        let mut index = 0;
        while index < self.running.len() && *budget > 0 {
            let sequence = &self.running[index];
            let remaining = sequence.known() - sequence.computed;
            let tokens = remaining.min(*budget).min(spec.long_prefill_tokens);
            let missing = sequence.missing_blocks(tokens, spec.block_tokens);
            while self.pool.free() < missing && self.running.len() > index {
                self.preempt_last();
            }
            let Some(sequence) = self.running.get_mut(index) else {
                return;
            };
            schedule(sequence, tokens, &mut self.pool, spec.block_tokens);
            if sequence.generated > 0 && remaining == 1 {
                load.decode(sequence.computed + 1);
            } else {
                load.prefill(tokens, sequence.computed);
            }
            *budget -= tokens;
            index += 1;
        }
    }

    fn preempt_last(&mut self) {
        let Some(mut victim) = self.running.pop() else {
            return;
        };
        release(&mut victim, &mut self.pool, &mut self.slots);
        self.totals.preemptions += 1;
        self.waiting.push_front(victim);
    }

    fn admit(&mut self, start: Micros, spec: &EngineSpec, budget: &mut u32, load: &mut StepLoad) {
        let mut index = 0;
        while *budget > 0 && self.running.len() < spec.seats as usize {
            let Some(candidate) = self.waiting.get(index) else {
                return;
            };
            if candidate.arrived >= start {
                return;
            }
            if candidate
                .adapter
                .is_some_and(|adapter| !self.slots.has_room(adapter))
            {
                // As in vLLM: who waits for an adapter's slot lets others pass.
                index += 1;
                continue;
            }
            // At least one token must be computed, or no next token could come out.
            let limit = (candidate.known() - 1) / spec.block_tokens;
            self.pool
                .lookup(&candidate.hashes, limit as usize, &mut self.found);
            let cached = u32::try_from(self.found.len()).unwrap_or(u32::MAX) * spec.block_tokens;
            let uncached = candidate.known() - cached;
            let free = self.pool.free() - self.pool.count_free(&self.found);
            if free < uncached.div_ceil(spec.block_tokens) {
                return;
            }
            let Some(sequence) = self.waiting.remove(index) else {
                return;
            };
            let tokens = uncached.min(*budget).min(spec.long_prefill_tokens);
            self.start(sequence, tokens, spec, load);
            *budget -= tokens;
        }
    }

    /// Puts a sequence in the batch, on the cached blocks that `found` lists.
    fn start(
        &mut self,
        mut sequence: Sequence,
        tokens: u32,
        spec: &EngineSpec,
        load: &mut StepLoad,
    ) {
        if let Some(adapter) = sequence.adapter
            && self.slots.take(adapter) == Taken::Loaded
        {
            load.adapter_load();
        }
        for id in &self.found {
            self.pool.touch(*id);
        }
        sequence.table.extend_from_slice(&self.found);
        sequence.entered = u32::try_from(self.found.len()).unwrap_or(u32::MAX);
        sequence.computed = sequence.entered * spec.block_tokens;
        if sequence.cached_tokens.is_none() {
            sequence.cached_tokens = Some(sequence.computed);
            self.totals.prefix_queries += u64::from(sequence.known());
            self.totals.prefix_hits += u64::from(sequence.computed);
        }
        load.prefill(tokens, sequence.computed);
        schedule(&mut sequence, tokens, &mut self.pool, spec.block_tokens);
        self.running.push(sequence);
    }
}

fn schedule(sequence: &mut Sequence, tokens: u32, pool: &mut BlockPool, block_tokens: u32) {
    sequence.scheduled = tokens;
    for _ in 0..sequence.missing_blocks(tokens, block_tokens) {
        sequence.table.extend(pool.allocate());
    }
}

fn enter_full_blocks(sequence: &mut Sequence, pool: &mut BlockPool, block_tokens: u32) {
    let full = sequence.computed / block_tokens;
    for index in sequence.entered as usize..full as usize {
        if let (Some(id), Some(hash)) = (sequence.table.get(index), sequence.hashes.get(index)) {
            pool.enter(*id, *hash);
        }
    }
    sequence.entered = sequence.entered.max(full);
}

/// Gives back everything that a sequence holds; its tail first, so that the head of a prefix,
/// which more requests share, is evicted last.
fn release(sequence: &mut Sequence, pool: &mut BlockPool, slots: &mut AdapterSlots) {
    for id in sequence.table.drain(..).rev() {
        pool.release(id);
    }
    sequence.computed = 0;
    sequence.scheduled = 0;
    sequence.entered = 0;
    if let Some(adapter) = sequence.adapter {
        slots.release(adapter);
    }
}
