//! Everything that is known of the cluster: the objects for the compiler, the statuses that stand in
//! the API, and the JSON that proxies get.
//!
//! An object whose content is the same keeps its typed form, so that a status that was written (by us
//! or by others) compiles nothing again. What is not as it was is named in `touched`, for who looks only
//! at that; a version that is known already touches nothing.

use super::apply::Key;
use super::manifests::made_for;
use super::resources::WATCHED;
use bytes::Bytes;
use config::{Kind, Object, ObjectName, Objects, Resource};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::hash::Hasher;

/// The annotation of a Pod that decides which of its ports are used.
const ACTIVE_PORTS: &str = "inference.networking.k8s.io/active-ports";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One object as the API server has it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) resource_version: String,
    pub(super) generation: i64,
    pub(super) api_version: String,
    pub(super) metadata: Map<String, Value>,
    pub(super) status: Value,
    /// The rest, without what only the API server needs.
    pub(super) content: Content,
    /// For the few that need fields: Services, Deployments, routes.
    pub(super) spec: Value,
}

impl Stored {
    /// Hash of what it is for, without the number of replicas: to tell whether somebody changed it.
    pub(super) fn essence(&self) -> u64 {
        let Value::Object(spec) = &self.spec else {
            return self.content.hash;
        };
        let mut spec = spec.clone();
        spec.remove("replicas");
        Content::new(Value::Object(spec).to_string().into_bytes()).hash
    }
}

/// An object as proxies get it.
#[derive(Debug, Clone)]
pub struct Content {
    /// Hash of the JSON: two processes of one version agree on it.
    pub hash: u64,
    /// The object.
    pub json: Bytes,
}

/// An object that is not as it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) key: Key,
    /// Of what the compiler reads; else only its status, or what the provisioner made.
    pub(super) compiled: Option<Kind>,
    /// The Gateway that it was made for.
    pub(super) made_for: Option<ObjectName>,
}

/// All objects, by resource.
#[derive(Debug)]
pub(super) struct Store {
    resources: Vec<BTreeMap<ObjectName, Stored>>,
    synced: Vec<bool>,
    pub(super) objects: Objects,
    /// Since whoever reads this emptied it.
    pub(super) touched: Vec<Touched>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            resources: WATCHED.iter().map(|_| BTreeMap::new()).collect(),
            synced: vec![false; WATCHED.len()],
            objects: Objects::default(),
            touched: Vec::new(),
        }
    }
}

impl Store {
    /// Whether every resource was listed once, or is known not to be served.
    pub(super) fn is_synced(&self) -> bool {
        self.synced.iter().all(|synced| *synced)
    }

    pub(super) fn missing(&self) -> Vec<String> {
        let waiting = WATCHED
            .iter()
            .zip(&self.synced)
            .filter(|(_, synced)| !**synced);
        waiting.map(|(watched, _)| watched.definition()).collect()
    }

    pub(super) fn get(&self, index: usize, name: &ObjectName) -> Option<&Stored> {
        self.resources.get(index)?.get(name)
    }

    /// The resource that an object of a kind comes from, and the object.
    pub(super) fn of_kind(&self, kind: Kind, name: &ObjectName) -> Option<(usize, &Stored)> {
        self.all_of_kind(kind, name).next()
    }

    /// The same, and then what others serve under that name: the compiler does not get those.
    pub(super) fn all_of_kind<'a>(
        &'a self,
        kind: Kind,
        name: &ObjectName,
    ) -> impl Iterator<Item = (usize, &'a Stored)> {
        let indices = WATCHED.iter().enumerate();
        let indices = indices.filter(move |(_, watched)| watched.kind == Some(kind));
        indices.filter_map(|(index, _)| Some((index, self.get(index, name)?)))
    }

    pub(super) fn all(&self, index: usize) -> impl Iterator<Item = (&ObjectName, &Stored)> {
        self.resources.get(index).into_iter().flatten()
    }

    /// The objects of one namespace.
    pub(super) fn all_in<'a>(
        &'a self,
        index: usize,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a Stored)> {
        let known = self.resources.get(index).into_iter();
        let from = known.flat_map(move |known| known.range(ObjectName::new(namespace, "")..));
        from.take_while(move |(name, _)| &*name.namespace == namespace)
    }

    pub(super) fn listed(&mut self, index: usize, values: Vec<Value>) {
        self.settled(index);
        let mut seen = std::collections::BTreeSet::new();
        for value in values {
            seen.extend(name_of(&value));
            self.applied(index, value);
        }
        let known = self
            .resources
            .get(index)
            .into_iter()
            .flat_map(BTreeMap::keys);
        let gone: Vec<ObjectName> = known.filter(|name| !seen.contains(name)).cloned().collect();
        for name in gone {
            self.removed(index, &name);
        }
    }

    /// A resource that is not served has been looked for.
    pub(super) fn settled(&mut self, index: usize) {
        if let Some(synced) = self.synced.get_mut(index) {
            *synced = true;
        }
    }

    /// Takes over the answer to a write. It may come after the event that the object is gone, so it
    /// never brings one back.
    pub(super) fn refreshed(&mut self, index: usize, value: Value) {
        let known = name_of(&value).and_then(|name| self.get(index, &name));
        if known.is_some_and(|known| value["metadata"]["uid"] == *known.uid()) {
            self.applied(index, value);
        }
    }

    pub(super) fn applied(&mut self, index: usize, value: Value) {
        let (Some(watched), Some(name)) = (WATCHED.get(index), name_of(&value)) else {
            return;
        };
        let Some(stored) = Stored::of(watched.kind, value) else {
            return;
        };
        let Some(known) = self.resources.get_mut(index) else {
            return;
        };
        let before = known.get(&name);
        if before.is_some_and(|before| before.is_newer_than(&stored) || before.is(&stored)) {
            return;
        }
        let is_same = before.is_some_and(|before| before.content.hash == stored.content.hash);
        let made_for = made_for(&stored).or_else(|| made_for(before?));
        let json = stored.content.json.clone();
        known.insert(name.clone(), stored);
        let compiled = watched
            .kind
            .filter(|kind| !is_same && self.put(*kind, index, &name, &json));
        self.touched.push(Touched {
            key: (index, name),
            compiled,
            made_for,
        });
    }

    pub(super) fn deleted(&mut self, index: usize, value: &Value) {
        if let Some(name) = name_of(value) {
            self.removed(index, &name);
        }
    }

    fn removed(&mut self, index: usize, name: &ObjectName) {
        let known = self.resources.get_mut(index);
        let Some(gone) = known.and_then(|known| known.remove(name)) else {
            return;
        };
        let kind = WATCHED.get(index).and_then(|watched| watched.kind);
        if let Some(kind) = kind {
            self.objects.remove(kind, name);
            // The same kind may be served from another group.
            let other = self.of_kind(kind, name);
            let other = other.map(|(index, stored)| (index, stored.content.json.clone()));
            if let Some((index, json)) = other {
                self.put(kind, index, name, &json);
            }
        }
        self.touched.push(Touched {
            key: (index, name.clone()),
            compiled: kind,
            made_for: made_for(&gone),
        });
    }

    /// Hands an object to the compiler unless an earlier resource has one of that name; whether it
    /// took it.
    fn put(&mut self, kind: Kind, index: usize, name: &ObjectName, json: &Bytes) -> bool {
        if self
            .of_kind(kind, name)
            .is_some_and(|(first, _)| first != index)
        {
            return false;
        }
        let decoded = serde_json::from_slice(json).and_then(|json| Resource::from_json(kind, json));
        match decoded {
            Ok(resource) => {
                self.objects.insert(Object::from(resource));
                true
            }
            Err(error) => {
                tracing::warn!(%kind, %name, %error, "an object cannot be read; what stood before stays");
                false
            }
        }
    }
}

impl Stored {
    fn of(kind: Option<Kind>, value: Value) -> Option<Self> {
        let Value::Object(mut fields) = value else {
            return None;
        };
        let Some(Value::Object(mut metadata)) = fields.remove("metadata") else {
            return None;
        };
        let text = |metadata: &Map<String, Value>, key: &str| {
            metadata
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let resource_version = text(&metadata, "resourceVersion");
        let generation = metadata
            .get("generation")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        let api_version = text(&fields, "apiVersion");
        let status = fields.remove("status").unwrap_or(Value::Null);
        let spec = fields.get("spec").cloned().unwrap_or(Value::Null);
        metadata.remove("managedFields");
        let mut shown = metadata.clone();
        shown.remove("resourceVersion");
        shown.remove("selfLink");
        if let Some(Value::Object(annotations)) = shown.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
        if kind == Some(Kind::Pod) {
            trim_pod(&mut fields, &mut shown, &status);
        }
        fields.insert("metadata".to_owned(), Value::Object(shown));
        let json = serde_json::to_vec(&fields).ok()?;
        Some(Self {
            resource_version,
            generation,
            api_version,
            metadata,
            status,
            content: Content::new(json),
            spec,
        })
    }

    pub(super) fn uid(&self) -> &str {
        self.metadata
            .get("uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.get("annotations")?.get(key)?.as_str()
    }

    pub(super) fn is_going(&self) -> bool {
        self.metadata.contains_key("deletionTimestamp")
    }

    /// Whether `other` is this very state of the object, as this very version of its kind.
    fn is(&self, other: &Self) -> bool {
        !self.resource_version.is_empty()
            && self.resource_version == other.resource_version
            && self.api_version == other.api_version
            && self.uid() == other.uid()
    }

    /// Whether `other`, of the same object, is an older state: answers to writes and events of
    /// watches cross. Versions that are no numbers are taken as they come.
    fn is_newer_than(&self, other: &Self) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        let same = self.uid() == other.uid();
        same && match (
            number(&self.resource_version),
            number(&other.resource_version),
        ) {
            (Some(mine), Some(theirs)) => mine > theirs,
            _ => false,
        }
    }
}

impl Content {
    /// An object's JSON and its hash.
    pub fn new(json: impl Into<Bytes>) -> Self {
        let json = json.into();
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        hasher.write(&json);
        Self {
            hash: hasher.finish(),
            json,
        }
    }
}

/// FNV-1a: the same on every platform and in every version, unlike the standard hasher.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Of a Pod only what makes it a member: the rest changes often and is nobody's business.
fn trim_pod(fields: &mut Map<String, Value>, metadata: &mut Map<String, Value>, status: &Value) {
    fields.remove("spec");
    metadata.retain(|key, _| {
        [
            "name",
            "namespace",
            "uid",
            "labels",
            "annotations",
            "deletionTimestamp",
        ]
        .contains(&key.as_str())
    });
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.retain(|key, _| key == ACTIVE_PORTS);
    }
    let mut kept = Map::new();
    for key in ["phase", "podIP"] {
        if let Some(value) = status.get(key) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    let conditions = status.get("conditions").and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .filter(|one| one["type"] == "Ready");
    let ready = ready.map(|one| serde_json::json!({"type": "Ready", "status": one["status"]}));
    kept.insert("conditions".to_owned(), ready.collect());
    fields.insert("status".to_owned(), Value::Object(kept));
}

pub(super) fn name_of(value: &Value) -> Option<ObjectName> {
    let metadata = value.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(Value::as_str);
    let name = metadata.get("name")?.as_str()?;
    Some(ObjectName::new(namespace.unwrap_or_default(), name))
}
