//! Names of models: InferenceModel, InferenceObjective and InferenceModelRewrite, one table a pool.
//!
//! Objects are added oldest first, because whoever is added first keeps a name; an InferenceModel
//! whose name is taken is told so. What a name leads to is the table's business (`picker::models`).

use rustc_hash::FxHashMap;

use super::{Age, pools};
use crate::name::ObjectName;
use crate::objects::inference_model::{
    Criticality as WireCriticality, InferenceModelRewriteSpec, InferenceModelSpec, ModelMatchType,
    PoolReference, RewriteRule,
};
use crate::objects::{Kind, Meta, Objects, POOL_GROUP, POOL_GROUP_X, Store};
use crate::status::{Condition, ConditionType, ObjectStatus, Reason, Statuses, Truth};
use picker::models::{Criticality, ModelTable, Target};

/// The tables of all pools, and what to tell the objects.
pub(super) struct Tables {
    tables: FxHashMap<ObjectName, ModelTable>,
    refusals: FxHashMap<(Kind, ObjectName), (Reason, String, String)>,
}

impl Tables {
    pub(super) fn build(objects: &Objects) -> Self {
        let mut tables = Self {
            tables: FxHashMap::default(),
            refusals: FxHashMap::default(),
        };
        tables.add_models(objects);
        for (name, rewrite) in oldest_first(&objects.inference_model_rewrites, |o| &o.metadata) {
            tables.add_rewrite(objects, name, &rewrite.spec);
        }
        for (name, objective) in oldest_first(&objects.inference_objectives, |o| &o.metadata) {
            let spec = &objective.spec;
            if let Some(pool) = tables.pool(objects, Kind::InferenceObjective, name, &spec.pool_ref)
            {
                let table = tables.tables.entry(pool).or_default();
                table.add_objective(&*name.name, spec.priority.unwrap_or(0));
            }
        }
        tables
    }

    /// The table of one pool.
    pub(super) fn table(&self, pool: &ObjectName) -> ModelTable {
        self.tables.get(pool).cloned().unwrap_or_default()
    }

    fn add_models(&mut self, objects: &Objects) {
        let kind = Kind::InferenceModel;
        let mut owners: FxHashMap<(ObjectName, &str), &ObjectName> = FxHashMap::default();
        for (name, model) in oldest_first(&objects.inference_models, |o| &o.metadata) {
            let spec: &InferenceModelSpec = &model.spec;
            let Some(pool) = self.pool(objects, kind, name, &spec.pool_ref) else {
                continue;
            };
            let targets = spec.target_models.iter().map(|target| Target {
                name: target.name.clone(),
                weight: target.weight.map(|weight| weight.value()),
            });
            let targets: Vec<Target> = targets.collect();
            self.check_weights(kind, name, &targets, "spec.targetModels");
            let table = self.tables.entry(pool.clone()).or_default();
            let criticality = criticality(spec.criticality.as_ref());
            if table.add_model(spec.model_name.as_str(), criticality, targets) {
                owners.insert((pool, &spec.model_name), name);
                continue;
            }
            let owner = owners.get(&(pool, spec.model_name.as_str()));
            let owner = owner
                .map(|owner| format!("InferenceModel {owner} "))
                .unwrap_or_default();
            let message = format!("{owner}declared `{}` first", spec.model_name);
            self.refuse(
                kind,
                name,
                Reason::ModelNameInUse,
                (message, "spec.modelName"),
            );
        }
    }

    fn add_rewrite(
        &mut self,
        objects: &Objects,
        name: &ObjectName,
        spec: &InferenceModelRewriteSpec,
    ) {
        let kind = Kind::InferenceModelRewrite;
        let Some(pool) = self.pool(objects, kind, name, &spec.pool_ref) else {
            return;
        };
        for (index, rule) in spec.rules.iter().enumerate() {
            let targets = rule.targets.iter().map(|target| Target {
                name: target.model_rewrite.clone(),
                weight: target.weight.map(|weight| weight.value()),
            });
            let targets: Vec<Target> = targets.collect();
            self.check_weights(
                kind,
                name,
                &targets,
                &format!("spec.rules[{index}].targets"),
            );
            let table = self.tables.entry(pool.clone()).or_default();
            match matched_models(rule) {
                Err(word) => {
                    let message = format!("unknown match type `{word}`");
                    let path = format!("spec.rules[{index}].matches");
                    self.refuse(kind, name, Reason::UnsupportedValue, (message, &path));
                }
                Ok(None) => {
                    table.add_rewrite(None, targets);
                }
                Ok(Some(models)) => {
                    for model in models {
                        table.add_rewrite(Some(model), targets.clone());
                    }
                }
            }
        }
    }

    /// Weights that are all zero let no request through: said, and left as it is.
    fn check_weights(&mut self, kind: Kind, name: &ObjectName, targets: &[Target], path: &str) {
        let weighted = targets.iter().any(|target| target.weight.is_some());
        if weighted && targets.iter().all(|target| target.weight.unwrap_or(0) == 0) {
            let message = "no target has a weight above 0".to_owned();
            self.refuse(kind, name, Reason::UnsupportedValue, (message, path));
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
        let is_pool =
            referred == Kind::InferencePool.as_str() && [POOL_GROUP, POOL_GROUP_X].contains(&group);
        if !is_pool {
            let message = format!("{referred} of group `{group}` is no pool");
            self.refuse(kind, name, Reason::InvalidKind, (message, "spec.poolRef"));
            return None;
        }
        if pools::find(objects, &pool).is_none() {
            let message = format!("InferencePool {pool} not found");
            self.refuse(kind, name, Reason::Pending, (message, "spec.poolRef.name"));
            return None;
        }
        Some(pool)
    }

    fn refuse(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        reason: Reason,
        (message, path): (String, &str),
    ) {
        let refusal = (reason, message, path.to_owned());
        self.refusals.entry((kind, name.clone())).or_insert(refusal);
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
                condition.path = path.clone();
            }
            status.conditions.push(condition);
            statuses.objects.push(status);
        }
    }
}

/// The names that a rule matches; `None` for all. The match type if it is unknown.
fn matched_models(rule: &RewriteRule) -> Result<Option<Vec<&str>>, &str> {
    let mut models = Vec::new();
    for one in &rule.matches {
        match &one.model {
            None => return Ok(None),
            Some(model) => match &model.match_type {
                Some(ModelMatchType::Unknown(word)) => return Err(word),
                None | Some(ModelMatchType::Exact) => models.push(model.value.as_str()),
            },
        }
    }
    Ok(if models.is_empty() {
        None
    } else {
        Some(models)
    })
}

fn oldest_first<T>(store: &Store<T>, meta: impl Fn(&T) -> &Meta) -> Vec<(&ObjectName, &T)> {
    let mut objects: Vec<(Age, &ObjectName, &T)> = store
        .iter()
        .map(|(name, entry)| (Age::of(meta(&entry.object)), name, &*entry.object))
        .collect();
    objects.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    objects
        .into_iter()
        .map(|(_, name, object)| (name, object))
        .collect()
}

/// A criticality that is not known counts as none.
fn criticality(wire: Option<&WireCriticality>) -> Criticality {
    match wire {
        Some(WireCriticality::Critical) => Criticality::Critical,
        Some(WireCriticality::Sheddable) => Criticality::Sheddable,
        Some(WireCriticality::Standard | WireCriticality::Unknown(_)) | None => {
            Criticality::Standard
        }
    }
}
