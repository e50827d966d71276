//! What servers say of themselves, taken in: reports, failures to report, lists of models.

use super::Pool;
use super::fill::FEW_ADAPTERS;
use crate::ask::Wake;
use crate::endpoint::{EndpointId, LoadedAdapter, Presence};
use crate::micros::Micros;
use crate::names::{Name, NameId, Names};
use crate::observation::{Announced, Observation, Report};
use crate::telemetry::{Foreign, Own};

/// The median over the members is taken at most this often, in seconds.
const MEDIAN_SECONDS: f32 = 0.1;
/// Adapters that are remembered per endpoint at most, whatever it says.
const MOST_ADAPTERS: usize = 256;

impl Pool {
    /// Takes in something learnt about an endpoint; passed over when it is no member. Returns the
    /// waits that this ends.
    pub fn observe(
        &mut self,
        now: Micros,
        endpoint: EndpointId,
        observation: Observation,
    ) -> Vec<Wake> {
        self.tell(now);
        let Some(slot) = self.member_slot(endpoint) else {
            return Vec::new();
        };
        match observation {
            Observation::Report(report) => self.report(slot, &report),
            Observation::ScrapeFailed => {
                if let Some(member) = self.members.get_mut(slot as usize) {
                    member.telemetry.failed();
                }
            }
            Observation::Models(announced) => self.announce(slot, &announced),
        }
        self.wake()
    }

    fn report(&mut self, slot: u32, report: &Report) {
        let at = slot as usize;
        let (Some(load), Some(member)) = (self.loads.get_mut(at), self.members.get_mut(at)) else {
            return;
        };
        let (in_flight, prefilling) = (load.in_flight, load.prefilling);
        let own = Own {
            in_flight,
            prefilling,
            kv_tokens: load.kv_tokens,
        };
        member
            .telemetry
            .report(self.now, report, own, &mut self.kv_share);
        let foreign = member.telemetry.last_foreign();
        (load.foreign_waiting, load.foreign_running) = (foreign.waiting, foreign.running);
        if report.max_adapters.is_some() {
            member.max_adapters = report.max_adapters;
        }
        for adapter in report
            .adapters_running
            .iter()
            .chain(&report.adapters_waiting)
        {
            let Some(id) = self.intern(adapter) else {
                continue;
            };
            if !self.names.get(id).is_some_and(|name| name.is_adapter) {
                self.edit_name(id, |name| name.is_adapter = true);
            }
            self.note_used(slot, Some(id));
        }
        self.refresh_median();
        self.show(slot);
    }

    fn announce(&mut self, slot: u32, announced: &[Announced]) {
        let mut ids = Vec::with_capacity(announced.len());
        for model in announced {
            let Some(id) = self.intern(&model.id) else {
                continue;
            };
            self.edit_name(id, |name| {
                name.announced.set(slot, true);
                name.is_adapter |= model.is_adapter;
            });
            ids.push(id);
        }
        let Some(member) = self.members.get_mut(slot as usize) else {
            return;
        };
        // A full table of names must not read as "serves nothing of all this".
        let said = !ids.is_empty() && ids.len() == announced.len();
        let mut gone = core::mem::take(&mut member.announced);
        gone.retain(|old| !ids.contains(old));
        // What a server does not list any more it has unloaded.
        member.loaded.retain(|loaded| !gone.contains(&loaded.name));
        member.announced = ids;
        for old in gone {
            self.edit_name(old, |name| {
                name.announced.set(slot, false);
                name.loaded.set(slot, false);
            });
        }
        self.edit_names(|names| names.said.set(slot, said));
    }

    /// An adapter was used there: it is loaded, and the one used longest ago may be dropped.
    pub(super) fn note_used(&mut self, slot: u32, name: Option<NameId>) {
        let Some(id) = name else { return };
        if !self.names.get(id).is_some_and(|name| name.is_adapter) {
            return;
        }
        let is_member = self
            .loads
            .get(slot as usize)
            .is_some_and(|load| load.presence == Presence::Member);
        let Some(member) = self.members.get_mut(slot as usize) else {
            return;
        };
        if !is_member {
            return;
        }
        let used_at = self.now;
        if let Some(loaded) = member.loaded.iter_mut().find(|loaded| loaded.name == id) {
            loaded.used_at = used_at;
            return;
        }
        member.loaded.push(LoadedAdapter { name: id, used_at });
        let most = member
            .max_adapters
            .map_or(FEW_ADAPTERS, |most| most as usize);
        let mut dropped = Vec::new();
        while member.loaded.len() > most.clamp(1, MOST_ADAPTERS) {
            let oldest = (0..member.loaded.len())
                .min_by_key(|at| member.loaded.get(*at).map(|loaded| loaded.used_at));
            let Some(oldest) = oldest else { break };
            dropped.push(member.loaded.swap_remove(oldest).name);
        }
        self.edit_name(id, |name| name.loaded.set(slot, true));
        for id in dropped {
            self.edit_name(id, |name| name.loaded.set(slot, false));
        }
    }

    /// Changes the table of names, and what others see of it.
    pub(super) fn edit_names<T>(&mut self, edit: impl Fn(&mut Names) -> T) -> T {
        edit(&mut self.overview.names_mut());
        edit(&mut self.names)
    }

    fn edit_name(&mut self, id: NameId, edit: impl Fn(&mut Name)) {
        self.edit_names(|names| {
            if let Some(name) = names.get_mut(id) {
                edit(name);
            }
        });
    }

    /// The name's number, given now if it has none; `None` when there are too many.
    pub(super) fn intern(&mut self, text: &str) -> Option<NameId> {
        self.names
            .find(text)
            .or_else(|| self.edit_names(|names| names.intern(text)))
    }

    fn refresh_median(&mut self) {
        if self
            .median_at
            .is_some_and(|at| self.now.seconds_since(at) < MEDIAN_SECONDS)
        {
            return;
        }
        self.median_at = Some(self.now);
        self.median = Foreign {
            waiting: self.median_of(|foreign| foreign.waiting),
            running: self.median_of(|foreign| foreign.running),
            per_seat: self.median_of(|foreign| foreign.per_seat),
        };
    }

    /// The median over members with a fresh report; 0 without any.
    fn median_of(&mut self, number: impl Fn(Foreign) -> f32) -> f32 {
        let numbers = &mut self.numbers;
        numbers.clear();
        for (load, member) in self.loads.iter().zip(&self.members) {
            if load.presence == Presence::Member && member.telemetry.is_fresh(self.now) {
                numbers.push(number(member.telemetry.last_foreign()));
            }
        }
        let middle = numbers.len() / 2;
        if numbers.is_empty() {
            return 0.0;
        }
        *numbers.select_nth_unstable_by(middle, f32::total_cmp).1
    }
}
