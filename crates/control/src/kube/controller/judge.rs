//! From what was touched to what statuses should say, and to what proxies get.
//!
//! A change of routes alone reaches only the Gateways that take them, before or after; a change of where
//! endpoints are leaves all statuses as they were.

use super::super::counts::Counts;
use super::super::manifests::resource_name;
use super::super::store::{Content, Touched};
use super::Controller;
use config::{GatewayPlan, Kind, ObjectName};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use tokio::time::Instant;

impl Controller {
    /// Compiles what was touched, if the compiler reads it, and feeds the proxies that it concerns.
    pub(super) fn compile(&mut self, touched: &[Touched]) {
        let is_first = self.judged.is_none();
        let compiled = touched.iter().filter_map(|one| one.compiled);
        let kinds: BTreeSet<Kind> = compiled.collect();
        if kinds.is_empty() && !is_first {
            return;
        }
        let only_routes = !is_first && kinds.iter().all(|kind| *kind == Kind::HttpRoute);
        let routes = touched.iter();
        let routes = routes.filter(|one| one.compiled == Some(Kind::HttpRoute));
        let routes: BTreeSet<ObjectName> = routes.map(|one| one.key.1.clone()).collect();
        let mut takers = self.compiler.takers(&routes);
        if is_first || kinds.iter().any(|kind| kind.is_judged()) {
            self.judge();
            takers.extend(self.compiler.takers(&routes));
        }
        if only_routes {
            let takers: HashSet<ObjectName> = takers.into_iter().collect();
            let plans = self.compiler.plans().iter();
            plans
                .filter(|plan| takers.contains(&plan.name))
                .for_each(|plan| self.feed(plan));
        } else {
            self.feed_all();
        }
    }

    /// Compiles; statuses and plans that are new or other ones than before are due.
    fn judge(&mut self) {
        let began = Instant::now();
        let before = self.compiler.plans().to_vec();
        let statuses = self.compiler.judge(&self.store.objects);
        let counts = &self.writes.counts;
        Counts::add(&counts.compilations, 1);
        Counts::add(&counts.compile_us, began.elapsed().as_micros() as u64);
        let plans = self.compiler.plans();
        counts.gateways.store(plans.len() as u64, Relaxed);
        let objects = self.store.objects.count() as u64;
        counts.objects.store(objects, Relaxed);
        if before != plans {
            let all = before.iter().chain(plans);
            self.due.gateways.extend(all.map(|plan| plan.name.clone()));
        }
        let mut earlier = self.judged.take().unwrap_or_default();
        let mut judged = HashMap::with_capacity(statuses.objects.len());
        for status in statuses.objects {
            let subject = (status.kind, status.name.clone());
            if earlier.remove(&subject).as_ref() != Some(&status) {
                self.due.statuses.insert(subject.clone());
            }
            judged.insert(subject, status);
        }
        self.judged = Some(judged);
    }

    /// Hands every Gateway's objects to who feeds its proxies.
    fn feed_all(&self) {
        let mut accounts = HashMap::new();
        for plan in self.compiler.plans() {
            let Some((_, gateway)) = self.store.of_kind(Kind::Gateway, &plan.name) else {
                continue;
            };
            let class = gateway.spec["gatewayClassName"]
                .as_str()
                .unwrap_or_default();
            let account = resource_name(&plan.name.name, class);
            accounts.insert(
                (plan.name.namespace.to_string(), account),
                plan.name.clone(),
            );
            self.feed(plan);
        }
        self.feeds
            .retain(|name| self.compiler.plans().iter().any(|plan| plan.name == *name));
        self.feeds.set_accounts(accounts);
    }

    fn feed(&self, plan: &GatewayPlan) {
        let Some((_, gateway)) = self.store.of_kind(Kind::Gateway, &plan.name) else {
            return;
        };
        let reachable = self.compiler.reachable(&self.store.objects, &plan.name);
        let contents = reachable.all().into_iter().filter_map(|object| {
            let (kind, name) = (object.resource.kind(), object.name());
            let (_, stored) = self.store.of_kind(kind, &name)?;
            Some((format!("{kind:?}/{name}"), stored.content.clone()))
        });
        let contents: BTreeMap<String, Content> = contents.collect();
        self.feeds.publish(&plan.name, gateway.generation, contents);
    }
}
