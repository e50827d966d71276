//! One compiled form of the three kinds that speak of model names in a pool: InferenceModel
//! (name -> criticality, weighted targets), InferenceObjective (name -> priority) and
//! InferenceModelRewrite (name or any -> weighted targets).
//!
//! Sources: Gateway API Inference Extension `apix/v1alpha2/inferencemodel_types.go` (until its
//! renaming to InferenceObjective) and `pkg/epp/requestcontrol/director.go` for what the reference
//! does at run time; llm-d router `apix/v1alpha2` and `pkg/epp/datastore/modelrewritestore.go`.
//!
//! Invariant: whoever is added first keeps the name, so the caller adds objects in the order of
//! precedence (oldest first). A request looks up at most three names and allocates nothing.

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

/// A model name that the engine knows, with its share of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// What stands in the request's `model` field when the engine reads it.
    pub name: String,
    /// Share among the targets of the same name; 0 gets nothing. The API allows 1 to 1,000,000 and
    /// wants weights on all targets or on none.
    pub weight: Option<u32>,
}

/// How much an InferenceModel matters when the pool is saturated.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Criticality {
    /// Dropped at once when the pool is saturated.
    Sheddable,
    /// Waits when the pool is saturated; what an unset field means.
    #[default]
    Standard,
    /// Waits in front of the others.
    Critical,
}

impl Criticality {
    /// The priority that an InferenceObjective would state: +1, 0 or -1; below 0 is sheddable.
    #[must_use]
    pub const fn priority(self) -> i32 {
        match self {
            Self::Critical => 1,
            Self::Standard => 0,
            Self::Sheddable => -1,
        }
    }
}

/// What the pool's objects say about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved<'table> {
    /// Models that may serve the name. Empty: the model of that name itself.
    pub targets: &'table [Target],
    /// Higher goes first; below 0 is sheddable.
    pub priority: i32,
    /// Whether an InferenceModel or a rewrite covers the name (a rewrite of any name covers all),
    /// so that it is a known model whatever the engines list.
    pub declared: bool,
}

/// Everything that the objects of one pool say about model names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelTable {
    names: IndexMap<String, Name, FxBuildHasher>,
    objectives: IndexMap<String, i32, FxBuildHasher>,
    /// Targets of the rewrite that matches any name.
    any: Option<Vec<Target>>,
    /// Whether any InferenceModel speaks of this pool: then undeclared names are sheddable.
    has_models: bool,
}

/// What is known of one name that a client may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Name {
    model: Option<Model>,
    rewrite: Option<Vec<Target>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    criticality: Criticality,
    targets: Vec<Target>,
}

impl ModelTable {
    /// Adds an InferenceModel; no targets means the model itself.
    ///
    /// Returns whether the name was free. If not, nothing changes and the object is to be told
    /// `ModelNameInUse`.
    pub fn add_model(
        &mut self,
        name: impl Into<String>,
        criticality: Criticality,
        targets: Vec<Target>,
    ) -> bool {
        let model = &mut self.names.entry(name.into()).or_default().model;
        if model.is_some() {
            return false;
        }
        *model = Some(Model {
            criticality,
            targets,
        });
        self.has_models = true;
        true
    }

    /// Adds an InferenceObjective (an unset priority is 0). Returns whether the name was free.
    pub fn add_objective(&mut self, name: impl Into<String>, priority: i32) -> bool {
        let name = name.into();
        if self.objectives.contains_key(&name) {
            return false;
        }
        self.objectives.insert(name, priority);
        true
    }

    /// Adds one rule of an InferenceModelRewrite; `None` matches any name.
    ///
    /// Returns whether the rule has an effect: it has none without targets, or when an earlier one
    /// matches the same.
    pub fn add_rewrite(&mut self, model: Option<&str>, targets: Vec<Target>) -> bool {
        let taken = match model {
            Some(name) => self
                .names
                .get(name)
                .is_some_and(|known| known.rewrite.is_some()),
            None => self.any.is_some(),
        };
        if taken || targets.is_empty() {
            return false;
        }
        match model {
            Some(name) => self.names.entry(name.to_owned()).or_default().rewrite = Some(targets),
            None => self.any = Some(targets),
        }
        true
    }

    /// What the objects say about a request for `model` that names `objective` (an unknown one is
    /// ignored).
    ///
    /// `trusted` tells where the objective comes from: from a trusted source it replaces the
    /// model's priority, from anybody else it can only lower it. A rewrite of exactly this name
    /// wins over a rewrite of any name, and both win over the InferenceModel's targets.
    #[must_use]
    pub fn resolve(&self, model: &str, objective: Option<&str>, trusted: bool) -> Resolved<'_> {
        let name = self.names.get(model);
        let declared_model = name.and_then(|known| known.model.as_ref());
        let rewrite = name
            .and_then(|known| known.rewrite.as_ref())
            .or(self.any.as_ref());
        let targets = rewrite.or(declared_model.map(|known| &known.targets));
        Resolved {
            targets: targets.map_or(&[], Vec::as_slice),
            priority: self.priority(declared_model, objective, trusted),
            declared: declared_model.is_some() || rewrite.is_some(),
        }
    }

    /// Model names that objects declare, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    fn priority(&self, model: Option<&Model>, objective: Option<&str>, trusted: bool) -> i32 {
        let criticality = match model {
            Some(model) => model.criticality,
            None if self.has_models => Criticality::Sheddable,
            None => Criticality::Standard,
        };
        let own = criticality.priority();
        match objective.and_then(|name| self.objectives.get(name)) {
            Some(&asked) if trusted => asked,
            Some(&asked) => asked.min(own),
            None => own,
        }
    }
}

/// Draws a target by weight; `draw` is a uniformly random number. Returns its index.
///
/// `None` means that weights do not decide: there is no target, there are several and none has a
/// weight (then cost chooses), or no weight is above 0, which is a mistake in the configuration
/// that the compiler of objects reports. A single target without weight is `Some(0)`. Where some
/// targets have weights, those without get nothing, as in the reference.
#[must_use]
pub fn draw(targets: &[Target], draw: u64) -> Option<usize> {
    if let [Target { weight: None, .. }] = targets {
        return Some(0);
    }
    let weight_of = |target: &Target| u64::from(target.weight.unwrap_or(0));
    let total: u64 = targets.iter().map(weight_of).sum();
    // Weights are below 2^32, so the remainder's bias is below one in 2^29 for ten targets.
    let mut left = draw.checked_rem(total)?;
    targets
        .iter()
        .position(|target| match left.checked_sub(weight_of(target)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
}

#[cfg(test)]
mod tests;
