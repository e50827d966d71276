//! Which base model a name stands for: the ConfigMaps that body-based routing reads.
//!
//! A ConfigMap labelled [`LABEL`] names a base model and its adapters. The gateway tells the base
//! model of a request in `x-gateway-base-model-name`, so that routes can match on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::compile::Age;
use crate::objects::{ConfigMap, Objects};

/// Marks ConfigMaps that are read (inference extension, body-based routing).
const LABEL: (&str, &str) = ("inference.networking.k8s.io/bbr-managed", "true");

/// Name of a model or adapter to its base model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BaseModels(BTreeMap<Box<str>, Box<str>>);

impl BaseModels {
    /// The base model of `name`.
    pub fn of(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|base| &**base)
    }

    /// What the ConfigMaps of a namespace say; of two that name one model, the older.
    pub(crate) fn of_namespace(objects: &Objects, namespace: &str) -> Option<Arc<Self>> {
        let maps = objects.config_maps.iter();
        let maps =
            maps.filter(|(name, entry)| &*name.namespace == namespace && is_read(&entry.object));
        let mut maps: Vec<_> = maps
            .map(|(name, entry)| (Age::of(&entry.object.metadata), name, &entry.object))
            .collect();
        maps.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let mut all = Self::default();
        for (_, _, map) in maps {
            let Some(base) = map.data.get("baseModel") else {
                continue;
            };
            let base = base.trim();
            let adapters = map.data.get("adapters").map(String::as_str);
            for name in adapters.into_iter().flat_map(listed).chain([base]) {
                let entry = all.0.entry(name.into());
                entry.or_insert_with(|| base.into());
            }
        }
        (!all.0.is_empty()).then(|| Arc::new(all))
    }
}

/// Whether a ConfigMap is one of body-based routing.
pub(crate) fn is_read(map: &ConfigMap) -> bool {
    let (key, value) = LABEL;
    let label = map.metadata.labels.get(key);
    label.is_some_and(|label| label == value)
}

/// The entries of a YAML list, one a line.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    let items = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix('-'));
    let items = items.map(|item| item.trim().trim_matches(['"', '\'']));
    items.filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_and_the_base_itself_stand_for_the_base() {
        let labels = "labels: {inference.networking.k8s.io/bbr-managed: 'true'}";
        let map = |name: &str, labels: &str, data: &str| {
            format!(
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, {labels}}}\ndata:\n{data}\n"
            )
        };
        let text = [
            map(
                "a",
                labels,
                "  baseModel: org/One\n  adapters: |\n    - x\n    - \"y\"",
            ),
            map("b", labels, "  baseModel: org/Two\n  adapters: |\n    - x"),
            map("c", "labels: {}", "  baseModel: org/Three"),
        ];
        let objects: Objects = crate::decode_for_tests(&text.concat())
            .into_iter()
            .collect();
        let models = BaseModels::of_namespace(&objects, "default").unwrap();
        for (name, base) in [
            ("x", Some("org/One")),
            ("y", Some("org/One")),
            ("org/One", Some("org/One")),
            ("org/Two", Some("org/Two")),
            ("org/Three", None),
            ("z", None),
        ] {
            assert_eq!(models.of(name), base, "{name}");
        }
        assert_eq!(BaseModels::of_namespace(&objects, "other"), None);
    }
}
