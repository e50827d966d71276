//! Files beside the manifests: an annotation `file.penstock.dev/KEY: PATH` of a Secret or ConfigMap
//! stands for the content of a file under KEY. Reading it is the caller's; this crate has no files.

use std::sync::Arc;

use crate::objects::{Object, Resource, Sealed};

/// Prefix of the annotations; the key follows.
pub const FILE_ANNOTATION: &str = "file.penstock.dev/";

/// Keys and paths of the files that an object stands for.
pub fn attached(resource: &Resource) -> Vec<(&str, &str)> {
    if !matches!(resource, Resource::Secret(_) | Resource::ConfigMap(_)) {
        return Vec::new();
    }
    let annotations = resource.meta().annotations.iter();
    annotations
        .filter_map(|(name, path)| Some((name.strip_prefix(FILE_ANNOTATION)?, path.as_str())))
        .collect()
}

/// The object with the contents of its files, as far as `read` knows them.
pub fn attach(mut object: Object, read: impl Fn(&str) -> Option<String>) -> Object {
    let files: Vec<(String, String)> = attached(&object.resource)
        .into_iter()
        .filter_map(|(key, path)| Some((key.to_owned(), read(path)?)))
        .collect();
    match &mut object.resource {
        Resource::Secret(secret) => {
            let secret = Arc::make_mut(secret);
            for (key, text) in files {
                secret.string_data.insert(key, Sealed::new(text));
            }
        }
        Resource::ConfigMap(map) => {
            let map = Arc::make_mut(map);
            map.data.extend(files);
        }
        _ => {}
    }
    object
}
