//! Objects as manifests in YAML.
//!
//! Values of Secrets are printed as fingerprints, so that an export can be shown around.

use crate::objects::Object;

/// The manifests of `objects`, one document each, in their order.
pub fn export(objects: impl IntoIterator<Item = Object>) -> String {
    let mut out = String::new();
    for object in objects {
        if !out.is_empty() {
            out.push_str("---\n");
        }
        // Wire types have string keys and plain scalars only, which YAML can always say.
        match serde_saphyr::to_string(&object.resource) {
            Ok(document) => out.push_str(&document),
            Err(error) => {
                out.push_str(&format!("# {} cannot be written: {error}\n", object.name()))
            }
        }
        if !out.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}
