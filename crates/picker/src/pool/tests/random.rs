//! Random runs: the books are exact after every step, every decision replays, nothing is lost.

use super::*;
use crate::endpoint::{Load, Presence};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Arrive {
        model: usize,
        tokens: u32,
        held: Vec<(usize, u32)>,
        priority: i32,
        exclude: usize,
    },
    FirstToken(usize),
    Finish(usize, usize),
    FinishAgain(usize),
    Cancel(usize),
    Sync(u16),
    Observe(usize, usize),
    Expire,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let arrive = (
        0..4_usize,
        prop_oneof![0..200_u32, 1000..60_000_u32],
        prop::collection::vec((0..8_usize, 0..600_u32), 0..4),
        -1..3_i32,
        0..3_usize,
    )
        .prop_map(|(model, tokens, held, priority, exclude)| Step::Arrive {
            model,
            tokens,
            held,
            priority,
            exclude,
        });
    let any = 0..10_000_usize;
    let step = prop_oneof![
        12 => arrive,
        6 => any.clone().prop_map(Step::FirstToken),
        6 => (any.clone(), 0..10_usize).prop_map(|(at, result)| Step::Finish(at, result)),
        1 => any.clone().prop_map(Step::FinishAgain),
        1 => any.clone().prop_map(Step::Cancel),
        1 => (0..256_u16).prop_map(Step::Sync),
        3 => (any, 0..6_usize).prop_map(|(at, what)| Step::Observe(at, what)),
        1 => Just(Step::Expire),
        4 => prop_oneof![0..50_u64, 500..3000_u64].prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..250)
}

const RESULTS: [Finished; 10] = [
    Finished::Complete,
    Finished::Complete,
    Finished::Cancelled,
    Finished::Failed(FailureKind::Connect),
    Finished::Failed(FailureKind::Reset),
    Finished::Failed(FailureKind::Hang),
    Finished::Failed(FailureKind::Status5xx),
    Finished::Failed(FailureKind::Status429),
    Finished::Failed(FailureKind::Cut),
    Finished::Failed(FailureKind::ClientFault),
];

/// What a user of the pool knows of it.
struct Model {
    bed: Bed,
    open: Vec<Reservation>,
    ended: Vec<Reservation>,
    waiting: Vec<Ticket>,
    /// Members beside those that come and go.
    crowd: usize,
    /// Of this or an earlier request, as chance has it: what is narrowed without the lock may be
    /// out of date.
    list: Shortlist,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self::crowded(seed, 0)
    }

    fn crowded(seed: u64, crowd: usize) -> Self {
        let spec = PoolSpec {
            queue: QueueLimits {
                requests: 5,
                wait_seconds: 4.0,
                bytes: 4500,
            },
            saturation_seconds: 1.0,
            ..PoolSpec::default()
        };
        let bed = Bed {
            pool: Pool::new(spec, seed),
            now: Micros(0),
            ids: Vec::new(),
        };
        Self {
            bed,
            open: Vec::new(),
            ended: Vec::new(),
            waiting: Vec::new(),
            crowd,
            list: Shortlist::default(),
        }
    }

    fn take_in(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Go(decision) => {
                check_replays(&decision);
                assert!(
                    self.bed.ids.contains(&decision.winner),
                    "only members are chosen"
                );
                let inputs = decision.table.as_ref().unwrap();
                assert_ne!(inputs.runner_up(), Some(decision.winner));
                self.open.push(decision.reservation);
            }
            Arrival::Wait(ticket) => self.waiting.push(ticket),
            Arrival::Refuse(_) => {}
        }
    }

    fn take_wakes(&mut self, wakes: Vec<Wake>) {
        for wake in wakes {
            let at = self
                .waiting
                .iter()
                .position(|ticket| *ticket == wake.ticket);
            self.waiting
                .remove(at.expect("only waiters are woken, and once"));
            assert!(!matches!(wake.arrival, Arrival::Wait(_)));
            self.take_in(wake.arrival);
        }
    }

    fn arrive(&mut self, step: &Step) {
        let Step::Arrive {
            model,
            tokens,
            held,
            priority,
            exclude,
        } = step
        else {
            return;
        };
        let mut holders = Held::default();
        for (index, blocks) in held {
            if let Some(id) = self.bed.ids.get(*index) {
                holders.push(*id, *blocks);
            }
        }
        let exclude = self
            .bed
            .ids
            .iter()
            .copied()
            .take(*exclude)
            .collect::<Vec<_>>();
        let targets = [target("v1"), target("lora-a")];
        let ask = Ask {
            model: ["base", "lora-a", "lora-b", "named"][*model],
            targets: if *model == 3 { &targets } else { &[] },
            priority: *priority,
            is_retry: !exclude.is_empty(),
            exclude: &exclude,
            ..plain(*tokens, &holders)
        };
        if *tokens % 3 > 0 {
            let overview = self.bed.pool.overview();
            overview.narrow(self.bed.now, &ask, &mut self.list);
        }
        let list = &self.list;
        let arrival = self.bed.pool.arrive_among(self.bed.now, &ask, list);
        if let Arrival::Go(decision) = &arrival {
            let inputs = decision.table.as_ref().unwrap();
            assert!(inputs.candidates.len() <= 2 * 64);
            assert!(!exclude.contains(&decision.winner));
        }
        self.take_in(arrival);
    }

    fn observation(what: usize) -> Observation {
        let report = |running, waiting, kv_used, adapters: &[&str]| {
            Observation::Report(Report {
                running: Some(running),
                waiting: Some(waiting),
                kv_used: Some(kv_used),
                kv_tokens: Some(300_000),
                adapters_running: adapters.iter().map(|name| (*name).to_owned()).collect(),
                max_adapters: Some(1),
                ..Report::default()
            })
        };
        match what {
            0 => report(0.0, 0.0, 0.0, &[]),
            1 => report(12.0, 3.0, 0.4, &["lora-a"]),
            2 => report(40.0, 30.0, 1.0, &["lora-b", "lora-a"]),
            3 => Observation::ScrapeFailed,
            4 => models(&[("base", false), ("lora-a", true)]),
            _ => report(f32::NAN, -1.0, f32::INFINITY, &[]),
        }
    }

    fn apply(&mut self, step: &Step) {
        let now = self.bed.now;
        let pick =
            |at: usize, list: &[Reservation]| (!list.is_empty()).then(|| at % list.len().max(1));
        match step {
            Step::Arrive { .. } => self.arrive(step),
            Step::FirstToken(at) => {
                if let Some(at) = pick(*at, &self.open) {
                    let wakes = self.bed.pool.first_token(now, self.open[at]);
                    self.take_wakes(wakes);
                }
            }
            Step::Finish(at, result) => {
                if let Some(at) = pick(*at, &self.open) {
                    let reservation = self.open.swap_remove(at);
                    self.ended.push(reservation);
                    let end = Outcome {
                        completion_tokens: at as u32 * 10,
                        prompt_tokens: 10,
                        ..outcome(RESULTS[*result])
                    };
                    let wakes = self.bed.pool.finish(now, reservation, end);
                    self.take_wakes(wakes);
                }
            }
            Step::FinishAgain(at) => {
                if let Some(at) = pick(*at, &self.ended) {
                    let reservation = self.ended[at];
                    let mut wakes = self.bed.finish(reservation, Finished::Complete);
                    wakes.extend(self.bed.first_token(reservation));
                    assert!(wakes.is_empty(), "settling twice does nothing");
                }
            }
            Step::Cancel(at) => {
                if !self.waiting.is_empty() {
                    let ticket = self.waiting.remove(at % self.waiting.len());
                    self.bed.pool.cancel(now, ticket);
                }
            }
            Step::Sync(mask) => self.sync(*mask),
            Step::Observe(at, what) => {
                if !self.bed.ids.is_empty() {
                    let id = self.bed.ids[at % self.bed.ids.len()];
                    let wakes = self.bed.pool.observe(now, id, Self::observation(*what));
                    self.take_wakes(wakes);
                }
            }
            Step::Expire => {
                let wakes = self.bed.pool.expire(now);
                self.take_wakes(wakes);
            }
            Step::Pass(milliseconds) => self.bed.pass(*milliseconds),
        }
    }

    fn sync(&mut self, mask: u16) {
        let coming_and_going = (0..8).filter(|bit| mask & (1 << bit) != 0);
        let members: Vec<MemberSpec> = coming_and_going
            .chain(100..100 + self.crowd)
            .map(member)
            .collect();
        let synced = self.bed.pool.sync(self.bed.now, &members);
        self.bed.ids.retain(|id| !synced.removed.contains(id));
        self.bed.ids.extend(synced.added.iter().map(|(id, _)| *id));
        assert_eq!(self.bed.ids.len(), members.len());
        self.take_wakes(synced.wakes);
    }

    /// The books of the pool against the sums over its reservations.
    fn check(&self) {
        let pool = &self.bed.pool;
        let mut sums = vec![Load::default(); pool.loads.len()];
        let mut count = 0;
        for booking in pool.books.iter() {
            let sum = &mut sums[booking.slot as usize];
            count += 1;
            sum.in_flight += 1;
            sum.kv_tokens += u64::from(booking.kv_tokens);
            if booking.first_token.is_none() {
                sum.prefilling += 1;
                sum.prefilling_tokens += u64::from(booking.uncached_tokens);
            }
        }
        assert_eq!(count, self.open.len());
        for (load, sum) in pool.loads.iter().zip(&sums) {
            let numbers = |load: &Load| {
                (
                    load.in_flight,
                    load.prefilling,
                    load.prefilling_tokens,
                    load.kv_tokens,
                )
            };
            assert_eq!(numbers(load), numbers(sum));
            assert!(load.presence != Presence::Free || load.in_flight == 0);
            assert!(load.presence != Presence::Tombstone || load.in_flight > 0);
        }
        for (slot, load) in pool.loads.iter().enumerate().filter(|_| self.crowd > 64) {
            assert!(pool.overview.shows(slot as u32, load), "slot {slot}");
        }
        assert_eq!(pool.queue_len(), self.waiting.len());
        assert_eq!(pool.queue_bytes(), 1000 * self.waiting.len());
        assert_eq!(pool.next_deadline().is_none(), self.waiting.is_empty());
        assert!(pool.saturation().is_finite());
    }

    /// Ends everything; exactly nothing remains.
    fn end(&mut self) {
        while let Some(reservation) = self.open.pop() {
            let wakes = self.bed.finish(reservation, Finished::Cancelled);
            self.take_wakes(wakes);
            self.check();
        }
        self.bed.pass(10_000);
        let wakes = self.bed.pool.expire(self.bed.now);
        self.take_wakes(wakes);
        for reservation in core::mem::take(&mut self.open) {
            let wakes = self.bed.finish(reservation, Finished::Complete);
            assert!(wakes.is_empty());
        }
        assert!(self.waiting.is_empty());
        self.check();
        for load in &self.bed.pool.loads {
            assert_eq!(
                (load.in_flight, load.prefilling_tokens, load.kv_tokens),
                (0, 0, 0)
            );
        }
    }
}

/// The same winner again, also after the table was written and read.
fn check_replays(decision: &Decision) {
    let inputs = decision.table.as_ref().expect("every decision has a table");
    let table = inputs.table();
    replay(&table).unwrap();
    let json = serde_json::to_string(inputs).unwrap();
    let read: Table = serde_json::from_str(&json).unwrap();
    assert_eq!(read, table);
    replay(&read).unwrap();
    assert_eq!(
        read.rows[read.winner as usize].candidate.endpoint,
        decision.winner
    );
    let (candidates, targets) = (inputs.candidates.clone(), inputs.targets.clone());
    let restored = Inputs::restored(
        inputs.numbers(),
        candidates,
        targets,
        &inputs.member_names(),
    );
    assert_eq!(restored, **inputs);
    for row in &table.rows {
        assert!(
            row.seconds
                .iter()
                .all(|seconds| seconds.is_finite() && *seconds >= 0.0)
        );
        assert!(row.total.is_finite());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn books_are_exact_and_decisions_replay(steps in steps(), seed in any::<u64>()) {
        let mut model = Model::new(seed);
        model.sync(0b1111);
        for step in &steps {
            model.apply(step);
            model.check();
        }
        model.end();
    }

    #[test]
    fn books_are_exact_in_a_crowd(steps in steps(), seed in any::<u64>()) {
        let mut model = Model::crowded(seed, 70);
        model.sync(0b1111);
        for step in &steps {
            model.apply(step);
            model.check();
        }
        model.end();
    }

    #[test]
    fn the_same_calls_give_the_same_answers(steps in steps(), seed in any::<u64>()) {
        let run = || {
            let mut model = Model::new(seed);
            model.sync(0b1111);
            let mut answers = Vec::new();
            for step in &steps {
                model.apply(step);
                answers.push((model.open.clone(), model.waiting.clone(), model.bed.in_flight()));
            }
            answers
        };
        prop_assert!(run() == run());
    }
}

#[test]
fn a_changed_table_is_found_out() {
    let mut bed = Bed::new(3);
    let none = Held::default();
    for _ in 0..4 {
        bed.go(&plain(1000, &none));
    }
    let table = bed.go(&plain(1000, &none)).table.unwrap().table();
    replay(&table).unwrap();
    let changed = |change: &dyn Fn(&mut Table)| {
        let mut table = table.clone();
        change(&mut table);
        replay(&table).unwrap_err()
    };
    let found = changed(&|table| table.rows[1].candidate.ahead_tokens += 5000.0);
    assert!(
        matches!(found, Mismatch::Term { term: "queue", .. }),
        "{found}"
    );
    let found = changed(&|table| table.rows[2].total += 1.0);
    assert!(matches!(found, Mismatch::Total { .. }), "{found}");
    let found = changed(&|table| table.rows[0].accepts = false);
    assert!(
        matches!(
            found,
            Mismatch::Accepts {
                recorded: false,
                now: true,
                ..
            }
        ),
        "{found}"
    );
    let found = changed(&|table| table.winner = (table.winner + 1) % 3);
    assert!(matches!(found, Mismatch::Winner { .. }), "{found}");
    let found = changed(&|table| table.winner = 77);
    assert!(
        matches!(found, Mismatch::Winner { recorded: 77, .. }),
        "{found}"
    );
    let found = changed(&|table| table.runner_up = None);
    assert!(
        matches!(found, Mismatch::RunnerUp { recorded: None, .. }),
        "{found}"
    );
    let found = changed(&|table| table.rows.clear());
    assert!(
        matches!(found, Mismatch::Winner { now: None, .. }),
        "{found}"
    );
}
