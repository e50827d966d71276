//! ReferenceGrant: the consent of a namespace to be referred to from another.

use serde_json::Value;

use super::meta::Meta;
use super::wire::wire;

wire!(
    /// Lives in the namespace of what is referred to.
    ReferenceGrant {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: ReferenceGrantSpec;
        status: Option<Value>,
    }
);

wire!(
    ReferenceGrantSpec {
        from: Vec<GrantFrom>,
        to: Vec<GrantTo>;
    }
);

wire!(
    GrantFrom {
        group: String,
        kind: String,
        namespace: String;
    }
);

wire!(
    GrantTo {
        group: String,
        kind: String;
        name: Option<String>,
    }
);
