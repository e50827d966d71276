//! Names of models: InferenceModel, InferenceObjective and InferenceModelRewrite, one table a pool.
//!
//! The oldest InferenceModel of a name wins, the others are told so. What a name leads to: the
//! first rewrite rule that names it, else its own targets, else the first rewrite rule without a
//! match, else itself.

use indexmap::IndexMap;
use rustc_hash::FxHashMap;

use super::{Age, pools};
use crate::name::ObjectName;
use crate::objects::inference_model::{
    Criticality, InferenceModelRewriteSpec, InferenceModelSpec, ModelMatchType, PoolReference,
};
use crate::objects::meta::Meta;
use crate::objects::{Kind, Objects, POOL_GROUP, POOL_GROUP_X};
use crate::picker_spec::{ModelEntry, ModelTable, Target};
use crate::status::{Condition, ConditionType, ObjectStatus, Reason, Statuses, Truth};

/// The tables of all pools, and what to tell the objects.
pub(super) struct Tables {
    tables: FxHashMap<ObjectName, ModelTable>,
    refusals: FxHashMap<(Kind, ObjectName), (Reason, String, &'static str)>,
}

impl Tables {
    pub(super) fn build(objects: &Objects) -> Self {
        let mut tables = Self {
            tables: FxHashMap::default(),
            refusals: FxHashMap::default(),
        };
        tables.add_models(objects);
        tables.add_rewrites(objects);
        for (name, entry) in &objects.inference_objectives {
            let spec = &entry.object.spec;
            if let Some(pool) = tables.pool(objects, Kind::InferenceObjective, name, &spec.pool_ref)
            {
                let table = tables.tables.entry(pool).or_default();
                table
                    .objectives
                    .insert(name.name.to_string(), spec.priority.unwrap_or(0));
            }
        }
        for table in tables.tables.values_mut() {
            table.objectives.sort_unstable_keys();
        }
        tables
    }

    /// The table of one pool.
    pub(super) fn table(&self, pool: &ObjectName) -> ModelTable {
        self.tables.get(pool).cloned().unwrap_or_default()
    }

    fn add_models(&mut self, objects: &Objects) {
        let models = objects.inference_models.iter();
        let mut models: Vec<(Age, &ObjectName, &InferenceModelSpec)> = models
            .map(|(name, entry)| (age(&entry.object.metadata), name, &entry.object.spec))
            .collect();
        models.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let mut owners: FxHashMap<(ObjectName, &str), &ObjectName> = FxHashMap::default();
        for (_, name, spec) in models {
            let Some(pool) = self.pool(objects, Kind::InferenceModel, name, &spec.pool_ref) else {
                continue;
            };
            if let Some(owner) = owners.get(&(pool.clone(), spec.model_name.as_str())) {
                let message = format!(
                    "InferenceModel {owner} declared `{}` first",
                    spec.model_name
                );
                self.refusals.insert(
                    (Kind::InferenceModel, name.clone()),
                    (Reason::ModelNameInUse, message, "spec.modelName"),
                );
                continue;
            }
            owners.insert((pool.clone(), &spec.model_name), name);
            let targets = spec.target_models.iter().map(|target| Target {
                name: target.name.clone(),
                weight: target.weight.map(|weight| weight.value()),
            });
            let entry = ModelEntry {
                targets: targets.collect(),
                priority: priority(spec.criticality.as_ref()),
            };
            let table = self.tables.entry(pool).or_default();
            table.models.insert(spec.model_name.clone(), entry);
        }
        for table in self.tables.values_mut() {
            table.models.sort_unstable_keys();
        }
    }

    fn add_rewrites(&mut self, objects: &Objects) {
        let rewrites = objects.inference_model_rewrites.iter();
        let mut rewrites: Vec<(Age, &ObjectName, &InferenceModelRewriteSpec)> = rewrites
            .map(|(name, entry)| (age(&entry.object.metadata), name, &entry.object.spec))
            .collect();
        rewrites.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let mut exact: IndexMap<ObjectName, IndexMap<String, Vec<Target>>> = IndexMap::new();
        for (_, name, spec) in rewrites {
            let kind = Kind::InferenceModelRewrite;
            let Some(pool) = self.pool(objects, kind, name, &spec.pool_ref) else {
                continue;
            };
            for rule in &spec.rules {
                let targets: Vec<Target> = rule
                    .targets
                    .iter()
                    .map(|target| Target {
                        name: target.model_rewrite.clone(),
                        weight: target.weight.map(|weight| weight.value()),
                    })
                    .collect();
                let named = rule.matches.iter().filter_map(|one| one.model.as_ref());
                let named: Vec<_> = named
                    .filter(|one| matches!(one.match_type, None | Some(ModelMatchType::Exact)))
                    .map(|one| one.value.clone())
                    .collect();
                let matches_all =
                    rule.matches.is_empty() || rule.matches.iter().any(|one| one.model.is_none());
                let table = self.tables.entry(pool.clone()).or_default();
                if matches_all && table.generic.is_empty() {
                    table.generic.clone_from(&targets);
                }
                let known = exact.entry(pool.clone()).or_default();
                for model in named {
                    known.entry(model).or_insert_with(|| targets.clone());
                }
            }
        }
        for (pool, rewrites) in exact {
            let table = self.tables.entry(pool).or_default();
            for (model, targets) in rewrites {
                table.rewrites.insert(model, targets);
            }
            table.rewrites.sort_unstable_keys();
        }
    }

    /// The pool of a reference; a refusal is noted if there is none.
    fn pool(
        &mut self,
        objects: &Objects,
        kind: Kind,
        name: &ObjectName,
        reference: &PoolReference,
    ) -> Option<ObjectName> {
        let referred = reference
            .kind
            .as_deref()
            .unwrap_or(Kind::InferencePool.as_str());
        let group = reference.group.as_deref().unwrap_or(POOL_GROUP);
        let pool = ObjectName::new(&name.namespace, &reference.name);
        let refusal = if referred != Kind::InferencePool.as_str()
            || ![POOL_GROUP, POOL_GROUP_X].contains(&group)
        {
            (
                Reason::InvalidKind,
                format!("{referred} of group `{group}` is no pool"),
                "spec.poolRef",
            )
        } else if pools::find(objects, &pool).is_none() {
            (
                Reason::Pending,
                format!("InferencePool {pool} not found"),
                "spec.poolRef.name",
            )
        } else {
            return Some(pool);
        };
        self.refusals.insert((kind, name.clone()), refusal);
        None
    }

    /// Statuses of models, objectives and rewrites.
    pub(super) fn report(&self, objects: &Objects, statuses: &mut Statuses) {
        let models = objects
            .inference_models
            .keys()
            .map(|name| (Kind::InferenceModel, name));
        let objectives = objects
            .inference_objectives
            .keys()
            .map(|name| (Kind::InferenceObjective, name));
        let rewrites = objects
            .inference_model_rewrites
            .keys()
            .map(|name| (Kind::InferenceModelRewrite, name));
        for (kind, name) in models.chain(objectives).chain(rewrites) {
            let mut status = ObjectStatus::new(kind, name, objects.origin(kind, name));
            let mut condition =
                Condition::plain(ConditionType::Accepted, Truth::True, Reason::Accepted);
            if let Some((reason, message, path)) = self.refusals.get(&(kind, name.clone())) {
                let is_pending = *reason == Reason::Pending;
                condition.status = if is_pending {
                    Truth::Unknown
                } else {
                    Truth::False
                };
                condition.reason = *reason;
                condition.message = message.clone();
                condition.path = (*path).to_owned();
            }
            status.conditions.push(condition);
            statuses.objects.push(status);
        }
    }
}

fn age(meta: &Meta) -> Age {
    Age::of(meta)
}

/// A criticality that is not known counts as none.
fn priority(criticality: Option<&Criticality>) -> i32 {
    match criticality {
        Some(Criticality::Critical) => 1,
        Some(Criticality::Sheddable) => -1,
        Some(Criticality::Standard | Criticality::Unknown(_)) | None => 0,
    }
}
