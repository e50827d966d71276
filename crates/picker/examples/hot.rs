//! What a pick costs: arrive, first token and finish over and over, with a prompt that is known.
//!
//! `cargo run --release -p picker --example hot` prints times for 10, 100 and 1,000 members;
//! `-- --members 4 --rounds 20000` runs that alone, for an instruction counter such as
//! `valgrind --tool=callgrind`. Requests come every 10 ms, so that each teaches the pool speeds; with
//! `--every-us 500` they end too soon for that.
#![expect(clippy::print_stdout, reason = "it is a command line tool")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use picker::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Requests in flight.
const OPEN: usize = 8;
/// Records that are kept.
const KEPT: usize = 64;

struct Bed {
    pool: Pool,
    overview: Arc<Overview>,
    list: Shortlist,
    index: PrefixIndex,
    chain: Vec<u64>,
    held: Held,
    now: u64,
    /// Microseconds from one request to the next.
    every_us: u64,
    open: VecDeque<Reservation>,
    /// Records of decisions, as they are kept.
    records: VecDeque<Box<Inputs>>,
}

impl Bed {
    fn new(members: usize, every_us: u64) -> Self {
        let mut pool = Pool::new(PoolSpec::default(), 7);
        let specs: Vec<MemberSpec> = (0..members)
            .map(|index| MemberSpec {
                key: format!("key-{index}"),
                name: format!("10.0.{}.{}:8000", index / 250, index % 250),
                subsets: picker::Subsets::NONE,
            })
            .collect();
        let synced = pool.sync(Micros(0), &specs);
        for (id, _) in &synced.added {
            let models = vec![Announced {
                id: "base".to_owned(),
                is_adapter: false,
            }];
            pool.observe(Micros(0), *id, Observation::Models(models));
        }
        let overview = pool.overview();
        Self {
            pool,
            index: PrefixIndex::new(1 << 20),
            chain: (1..=8_u64)
                .map(|block| block.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                .collect(),
            held: Held::default(),
            now: 1_000_000,
            every_us,
            open: VecDeque::new(),
            records: VecDeque::new(),
            list: Shortlist::default(),
            overview,
        }
    }

    /// One request comes, one that came before ends. Returns nanoseconds of the whole pick and of
    /// the part that needs the pool.
    fn round(&mut self) -> (u64, u64) {
        self.now += self.every_us;
        let begun = Instant::now();
        self.index.lookup(&self.chain, &mut self.held);
        let ask = Ask {
            model: "base",
            targets: &[],
            prompt_tokens: 1000,
            max_tokens: Some(64),
            held: &self.held,
            blocks: 8,
            priority: 0,
            body_bytes: 4000,
            exclude: &[],
            subsets: picker::Subsets::NONE,
            is_retry: false,
            streams: true,
        };
        let now = Micros(self.now);
        self.overview.narrow(now, &ask, &mut self.list);
        let full = self.records.len() >= KEPT;
        let spare = full.then(|| self.records.pop_front()).flatten();
        let locked = Instant::now();
        if let Some(spare) = spare {
            self.pool.reuse(spare);
        }
        let arrival = self.pool.arrive_among(now, &ask, &self.list);
        let held = locked.elapsed();
        let Arrival::Go(decision) = arrival else {
            return (0, 0);
        };
        self.index.insert(decision.winner, &self.chain);
        let whole = begun.elapsed();
        self.records.extend(decision.table);
        self.pool
            .first_token(Micros(self.now + self.every_us / 2), decision.reservation);
        self.open.push_back(decision.reservation);
        if self.open.len() > OPEN {
            self.end();
        }
        (whole.as_nanos() as u64, held.as_nanos() as u64)
    }

    fn end(&mut self) {
        let Some(reservation) = self.open.pop_front() else {
            return;
        };
        let outcome = Outcome {
            result: Finished::Complete,
            prompt_tokens: 1000,
            cached_tokens: Some(990),
            completion_tokens: 64,
        };
        self.pool
            .finish(Micros(self.now + self.every_us / 2), reservation, outcome);
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut members, mut rounds, mut every_us) = (vec![10, 100, 1000], 50_000, 10_000);
    while let (Some(flag), Some(value)) = (args.next(), args.next()) {
        let number: usize = value.parse().unwrap_or(0);
        match flag.as_str() {
            "--members" => members = vec![number],
            "--every-us" => every_us = number,
            _ => rounds = number,
        }
    }
    for members in members {
        let mut bed = Bed::new(members, every_us as u64);
        let (mut whole, mut held): (Vec<u64>, Vec<u64>) = (0..rounds).map(|_| bed.round()).unzip();
        whole.sort_unstable();
        held.sort_unstable();
        let us = |times: &[u64], share: f64| {
            let at = (times.len() as f64 * share) as usize;
            times.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e3)
        };
        println!(
            "{members} members: pick p50 {:.2} us, p99 {:.2} us; lock held p50 {:.2} us, p99 {:.2} us",
            us(&whole, 0.5),
            us(&whole, 0.99),
            us(&held, 0.5),
            us(&held, 0.99),
        );
    }
}
