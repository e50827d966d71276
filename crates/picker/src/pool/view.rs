//! What people and metrics see of a pool; nothing here changes anything.

use super::Pool;
use crate::endpoint::{EndpointId, Load, Member, Presence};
use crate::view::{EndpointView, RatesView, ReportedView};

impl Pool {
    /// All members, as of the last call that told the time.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointView> + '_ {
        let slots = self.loads.iter().zip(&self.members).enumerate();
        slots
            .filter(|(_, (load, _))| load.presence == Presence::Member)
            .map(|(slot, (load, member))| self.view(slot as u32, load, member))
    }

    /// One member; `None` when it is none any more.
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointView> {
        let slot = self.member_slot(id)?;
        let load = self.loads.get(slot as usize)?;
        Some(self.view(slot, load, self.members.get(slot as usize)?))
    }

    /// Requests in flight at an endpoint; 0 when it is no member.
    pub fn in_flight(&self, id: EndpointId) -> u32 {
        let slot = self.member_slot(id);
        let load = slot.and_then(|slot| self.loads.get(slot as usize));
        load.map_or(0, |load| load.in_flight)
    }

    /// Requests that wait for a turn.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that the waiting requests hold.
    pub fn queue_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// How near the pool is to making requests wait: the least, over its members, of predicted
    /// seconds ahead over the limit and of the KV cache's fill. 0 is idle, from 1 on it is
    /// saturated; 1 without members.
    pub fn saturation(&self) -> f32 {
        let members = self.loads.iter().zip(&self.members);
        members
            .filter(|(load, _)| load.presence == Presence::Member)
            .map(|(load, member)| self.fullness(load, member))
            .min_by(f32::total_cmp)
            .unwrap_or(1.0)
    }

    fn fullness(&self, load: &Load, member: &Member) -> f32 {
        if load.in_flight == 0 {
            return 0.0;
        }
        let token_seconds = member.learnt.rates(&self.shared).prefill_token_seconds;
        let belief = member.telemetry.belief(self.now);
        let foreign = member.telemetry.foreign(belief, self.median);
        let ahead = load.ahead_tokens(self.now, token_seconds, self.means.unstreamed);
        let tokens = ahead + foreign.waiting * self.means.uncached_tokens;
        let late = tokens * token_seconds / self.spec.saturation_seconds.max(1e-3);
        let capacity = member.telemetry.kv_capacity.unwrap_or(0) as f32;
        let filled = member
            .telemetry
            .kv_tokens(belief, load.kv_tokens, self.kv_share);
        let full = if capacity > 0.0 {
            filled / capacity
        } else {
            0.0
        };
        late.max(full)
    }

    fn view(&self, slot: u32, load: &Load, member: &Member) -> EndpointView {
        let telemetry = &member.telemetry;
        let foreign = telemetry.last_foreign();
        let reported = telemetry
            .age_seconds(self.now)
            .map(|age_seconds| ReportedView {
                running: telemetry.said.running,
                waiting: telemetry.said.waiting,
                kv_used: telemetry.said.kv_used,
                kv_tokens: telemetry.kv_capacity,
                foreign: foreign.waiting + foreign.running,
                age_seconds,
                failures: telemetry.failures,
            });
        let rates = member.learnt.rates(&self.shared);
        let text = |adapter: &crate::endpoint::LoadedAdapter| {
            self.names
                .get(adapter.name)
                .map(|name| name.text.to_string())
        };
        EndpointView {
            id: EndpointId {
                slot,
                generation: load.generation,
            },
            name: member.name.clone(),
            in_flight: load.in_flight,
            prefilling: load.prefilling,
            prefilling_tokens: load.prefilling_tokens,
            kv_tokens_in_flight: load.kv_tokens,
            reported,
            health: load.health.text(self.now),
            rates: RatesView {
                base_seconds: rates.prefill_base_seconds,
                prefill_seconds_per_token: rates.prefill_token_seconds,
                decode_seconds_per_token: rates.decode_base_seconds,
                decode_seconds_per_sequence: rates.decode_sequence_seconds,
                prefill_error: member.learnt.own.prefill_error(),
                decode_error: member.learnt.own.decode_error(),
                samples: member.learnt.own.samples(),
            },
            adapters: member.loaded.iter().filter_map(text).collect(),
            subsets: load.subsets,
        }
    }
}
