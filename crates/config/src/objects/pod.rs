//! Pod, as far as it makes a member of a pool: labels, addresses, readiness.

use serde_json::Value;

use super::meta::Meta;
use super::wire::wire;

wire!(
    /// A Pod. What it runs does not matter here.
    Pod {
        api_version: String,
        kind: String,
        metadata: Meta;
        spec: Option<Value>,
        status: Option<PodStatus>,
    }
);

wire!(
    #[derive(Default)]
    PodStatus {
        ;
        phase: Option<String>,
        #[serde(rename = "podIP")]
        pod_ip: Option<String>,
        conditions: Vec<PodCondition>,
    }
);

wire!(
    PodCondition {
        #[serde(rename = "type")]
        condition_type: String,
        status: String;
    }
);

impl Pod {
    /// Whether new requests may go there: ready, and not on its way out.
    pub fn takes_requests(&self) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        let mut ready = conditions.filter(|one| one.condition_type == "Ready");
        self.metadata.deletion_timestamp.is_none() && ready.any(|one| one.status == "True")
    }
}
