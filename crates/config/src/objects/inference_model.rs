//! Names of models and their priority: InferenceModel v1alpha2 and its successors
//! InferenceObjective and InferenceModelRewrite (groups `inference.networking.x-k8s.io` and
//! `llm-d.ai`, which have the same shape).

use serde_json::Value;

use super::meta::Meta;
use super::wire::{Weight, open_enum, wire};

wire!(
    /// A name that clients ask for, its criticality and what serves it.
    InferenceModel {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: InferenceModelSpec;
        status: Option<Value>,
    }
);

wire!(
    InferenceModelSpec {
        model_name: String,
        pool_ref: PoolReference;
        criticality: Option<Criticality>,
        target_models: Vec<TargetModel>,
    }
);

open_enum!(
    /// How much a request of the model matters; absent means `Standard`.
    Criticality {
        Critical = "Critical",
        Standard = "Standard",
        Sheddable = "Sheddable",
    }
);

wire!(
    TargetModel {
        name: String;
        weight: Option<Weight>,
    }
);

wire!(
    /// A pool in the same namespace; group and kind default to InferencePool of either version.
    PoolReference {
        name: String;
        group: Option<String>,
        kind: Option<String>,
    }
);

wire!(
    /// A priority that requests name in a header.
    InferenceObjective {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: InferenceObjectiveSpec;
        status: Option<Value>,
    }
);

wire!(
    InferenceObjectiveSpec {
        pool_ref: PoolReference;
        priority: Option<i32>,
    }
);

wire!(
    /// Which models stand in for the one that was asked for.
    InferenceModelRewrite {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: InferenceModelRewriteSpec;
        status: Option<Value>,
    }
);

wire!(
    InferenceModelRewriteSpec {
        pool_ref: PoolReference,
        rules: Vec<RewriteRule>;
    }
);

wire!(
    /// No match means every model.
    RewriteRule {
        targets: Vec<RewriteTarget>;
        matches: Vec<RewriteMatch>,
    }
);

wire!(
    #[derive(Default)]
    RewriteMatch {
        ;
        model: Option<ModelMatch>,
    }
);

wire!(
    ModelMatch {
        value: String;
        #[serde(rename = "type")]
        match_type: Option<ModelMatchType>,
    }
);

open_enum!(
    /// How a model's name is compared; absent means `Exact`.
    ModelMatchType {
        Exact = "Exact",
    }
);

wire!(
    RewriteTarget {
        model_rewrite: String;
        weight: Option<Weight>,
    }
);
