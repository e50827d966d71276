//! Behaviour of a pool as its users see it. The random runs are in `tests/random.rs`.

mod load;
mod queue;
mod random;
mod routing;
mod silence;
mod slowness;
mod subsets;
mod telemetry;
mod trouble;

use crate::*;
use core::time::Duration;

/// A pool at one moment, with short words for what tests do.
struct Bed {
    pool: Pool,
    now: Micros,
    ids: Vec<EndpointId>,
}

fn member(index: usize) -> MemberSpec {
    MemberSpec {
        key: format!("key-{index}"),
        name: format!("10.0.0.{index}:8000"),
        subsets: Subsets::NONE,
    }
}

fn outcome(result: Finished) -> Outcome {
    Outcome {
        result,
        prompt_tokens: 0,
        cached_tokens: None,
        completion_tokens: 0,
    }
}

/// A request with nothing special.
fn plain<'a>(prompt_tokens: u32, held: &'a Held) -> Ask<'a> {
    Ask {
        model: "base",
        targets: &[],
        prompt_tokens,
        max_tokens: Some(64),
        held,
        blocks: prompt_tokens / 128,
        priority: 0,
        body_bytes: 1000,
        exclude: &[],
        subsets: Subsets::NONE,
        is_retry: false,
        streams: false,
    }
}

fn target(name: &str) -> Target {
    Target {
        name: name.to_owned(),
        weight: None,
    }
}

fn report(running: f32, waiting: f32, kv_used: f32) -> Observation {
    Observation::Report(Report {
        running: Some(running),
        waiting: Some(waiting),
        kv_used: Some(kv_used),
        kv_tokens: Some(4_000_000),
        ..Report::default()
    })
}

fn models(names: &[(&str, bool)]) -> Observation {
    let announced = |(id, is_adapter): &(&str, bool)| Announced {
        id: (*id).to_owned(),
        is_adapter: *is_adapter,
    };
    Observation::Models(names.iter().map(announced).collect())
}

impl Bed {
    fn new(members: usize) -> Self {
        Self::with(PoolSpec::default(), members)
    }

    fn with(spec: PoolSpec, members: usize) -> Self {
        let mut pool = Pool::new(spec, 7);
        let specs: Vec<MemberSpec> = (0..members).map(member).collect();
        let synced = pool.sync(Micros(0), &specs);
        let ids = synced.added.iter().map(|(id, _)| *id).collect();
        Self {
            pool,
            now: Micros(1_000_000),
            ids,
        }
    }

    /// A pool that is saturated never.
    fn patient(members: usize) -> Self {
        Self::with(
            PoolSpec {
                saturation_seconds: 1e9,
                ..PoolSpec::default()
            },
            members,
        )
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now = self.now + Duration::from_millis(milliseconds);
    }

    fn arrive(&mut self, ask: &Ask<'_>) -> Arrival {
        let arrival = self.pool.arrive(self.now, ask);
        if let Arrival::Go(decision) = &arrival {
            let inputs = decision.table.as_ref().expect("every decision has a table");
            replay(&inputs.table()).unwrap();
        }
        arrival
    }

    #[track_caller]
    fn go(&mut self, ask: &Ask<'_>) -> Decision {
        match self.arrive(ask) {
            Arrival::Go(decision) => decision,
            other => panic!("expected to go, not {other:?}"),
        }
    }

    /// The index of the chosen member.
    #[track_caller]
    fn chosen(&mut self, ask: &Ask<'_>) -> usize {
        let winner = self.go(ask).winner;
        self.index(winner)
    }

    fn index(&self, id: EndpointId) -> usize {
        self.ids
            .iter()
            .position(|known| *known == id)
            .expect("a known endpoint")
    }

    #[track_caller]
    fn wait(&mut self, ask: &Ask<'_>) -> Ticket {
        match self.arrive(ask) {
            Arrival::Wait(ticket) => ticket,
            other => panic!("expected to wait, not {other:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, ask: &Ask<'_>) -> Cause {
        match self.arrive(ask) {
            Arrival::Refuse(why) => {
                assert!((1..=60).contains(&why.retry_after_seconds));
                why.cause
            }
            other => panic!("expected to be refused, not {other:?}"),
        }
    }

    fn first_token(&mut self, reservation: Reservation) -> Vec<Wake> {
        self.pool.first_token(self.now, reservation)
    }

    fn finish(&mut self, reservation: Reservation, result: Finished) -> Vec<Wake> {
        self.pool.finish(self.now, reservation, outcome(result))
    }

    fn fail(&mut self, reservation: Reservation, kind: FailureKind) {
        self.finish(reservation, Finished::Failed(kind));
    }

    fn observe(&mut self, index: usize, observation: Observation) -> Vec<Wake> {
        self.pool.observe(self.now, self.ids[index], observation)
    }

    fn in_flight(&self) -> Vec<u32> {
        self.ids.iter().map(|id| self.pool.in_flight(*id)).collect()
    }

    /// Puts `tokens` of uncached work on one member, by excluding the others.
    fn burden(&mut self, index: usize, tokens: u32) -> Reservation {
        let others: Vec<EndpointId> = self
            .ids
            .iter()
            .copied()
            .filter(|id| *id != self.ids[index])
            .collect();
        let held = Held::default();
        let ask = Ask {
            exclude: &others,
            ..plain(tokens, &held)
        };
        let decision = self.go(&ask);
        assert_eq!(decision.winner, self.ids[index]);
        decision.reservation
    }
}

fn spread(in_flight: &[u32]) -> u32 {
    in_flight.iter().max().unwrap() - in_flight.iter().min().unwrap()
}
