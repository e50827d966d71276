//! `metadata`, and the two kinds that are little else: Namespace and ConfigMap.

use indexmap::IndexMap;
use serde_json::Value;

use super::wire::wire;

/// Labels and annotations, in the order written.
pub type Labels = IndexMap<String, String>;

wire!(
    /// The metadata that every object carries. Fields that nothing reads are kept as they are.
    #[derive(Default)]
    Meta {
        name: String;
        namespace: Option<String>,
        labels: Labels,
        annotations: Labels,
        creation_timestamp: Option<String>,
        generation: Option<i64>,
        uid: Option<String>,
        resource_version: Option<String>,
        deletion_timestamp: Option<String>,
        deletion_grace_period_seconds: Option<i64>,
        generate_name: Option<String>,
        self_link: Option<String>,
        finalizers: Vec<String>,
        owner_references: Option<Value>,
        managed_fields: Option<Value>,
    }
);

wire!(
    /// A namespace; its labels decide what listeners with a namespace selector let in.
    Namespace {
        api_version: String,
        kind: String,
        metadata: Meta;
        spec: Option<Value>,
        status: Option<Value>,
    }
);

wire!(
    /// Plain settings and certificate authorities.
    ConfigMap {
        api_version: String,
        kind: String,
        metadata: Meta;
        data: Labels,
        binary_data: Labels,
        immutable: Option<bool>,
    }
);

wire!(
    /// A label selector.
    #[derive(Default)]
    LabelSelector {
        ;
        match_labels: Labels,
        match_expressions: Vec<SelectorExpression>,
    }
);

wire!(
    /// One requirement of a label selector.
    SelectorExpression {
        key: String,
        operator: SelectorOperator;
        values: Vec<String>,
    }
);

super::wire::open_enum!(
    /// How an expression compares a label.
    SelectorOperator {
        In = "In",
        NotIn = "NotIn",
        Exists = "Exists",
        DoesNotExist = "DoesNotExist",
    }
);

impl LabelSelector {
    /// Whether `labels` satisfy every requirement. An operator that is not known satisfies none.
    pub fn matches(&self, labels: &Labels) -> bool {
        selects(&self.match_labels, labels)
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.matches(labels))
    }
}

impl SelectorExpression {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            SelectorOperator::In => listed,
            SelectorOperator::NotIn => !listed,
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::DoesNotExist => value.is_none(),
            SelectorOperator::Unknown(_) => false,
        }
    }
}

/// Whether `labels` hold every pair of `wanted`.
pub(crate) fn selects(wanted: &Labels, labels: &Labels) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
