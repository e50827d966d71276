//! An API server in this process: lists, watches, patches with their preconditions, and a journal of
//! every write. What a real one validates, defaults and converts it does not.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

type Body = BoxBody<Bytes, Infallible>;
/// Namespace and name.
type Name = (String, String);

#[derive(Default)]
struct State {
    version: u64,
    /// By `GROUP/PLURAL`.
    objects: BTreeMap<String, BTreeMap<Name, Value>>,
    log: Vec<(u64, String, Value)>,
    absent: BTreeSet<String>,
    journal: Vec<String>,
    /// How often definitions were read.
    definitions: usize,
}

pub(super) struct Server {
    url: http::Uri,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// What a request is about.
struct Target {
    /// `GROUP/PLURAL`.
    resource: String,
    api_version: String,
    namespace: String,
    name: Option<String>,
    is_status: bool,
}

impl Target {
    fn of(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let (group, version) = match parts.next()? {
            "api" => (String::new(), parts.next()?),
            _ => (parts.next()?.to_owned(), parts.next()?),
        };
        let api_version = if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        };
        let mut next = parts.next()?;
        let mut namespace = String::new();
        let rest: Vec<&str> = parts.collect();
        let mut rest = rest.into_iter();
        if next == "namespaces" && rest.len() >= 2 {
            rest.next()?.clone_into(&mut namespace);
            next = rest.next()?;
        }
        Some(Self {
            resource: format!("{group}/{next}"),
            api_version,
            namespace,
            name: rest.next().map(str::to_owned),
            is_status: rest.next() == Some("status"),
        })
    }
}

impl Server {
    pub(super) async fn start() -> (Arc<Self>, kube::Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Self {
            url: url.parse().unwrap(),
            state: Mutex::default(),
            changed: watch::channel(()).0,
        });
        let serving = server.clone();
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                let service = hyper::service::service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tasks.spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        let client = server.client();
        (server, client)
    }

    /// A client whose connections belong to the runtime that this is called on.
    pub(super) fn client(&self) -> kube::Client {
        kube::Client::try_from(kube::Config::new(self.url.clone())).unwrap()
    }

    /// Adds or replaces objects, as a user would.
    pub(super) fn put(&self, yaml: &str) {
        for document in yaml.split("---\n").filter(|text| !text.trim().is_empty()) {
            let object: Value = serde_saphyr::from_str(document).unwrap();
            let (group, _) = object["apiVersion"]
                .as_str()
                .unwrap()
                .rsplit_once('/')
                .unwrap_or_default();
            let resource = format!("{group}/{}", plural(object["kind"].as_str().unwrap()));
            self.store(&resource, object, false);
        }
    }

    /// Writes a version of an object; its generation grows unless only the status is new.
    fn store(&self, resource: &str, mut object: Value, is_status: bool) -> Value {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let name = name_of(&object);
        let known = state.objects.entry(resource.to_owned()).or_default();
        let before = known.get(&name).cloned();
        let metadata = &mut object["metadata"];
        let generation = before
            .as_ref()
            .map_or(0, |one| one["metadata"]["generation"].as_u64().unwrap());
        metadata["generation"] = (generation + u64::from(!is_status)).into();
        metadata["resourceVersion"] = version.to_string().into();
        metadata["uid"] = format!("uid-{}-{}", name.0, name.1).into();
        known.insert(name, object.clone());
        let event = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        state.log.push((
            version,
            resource.to_owned(),
            json!({"type": event, "object": object}),
        ));
        drop(state);
        self.changed.send_replace(());
        object
    }

    /// Replaces a status, as another controller would.
    pub(super) fn set_status(&self, resource: &str, namespace: &str, name: &str, status: Value) {
        let mut object = self.get(resource, namespace, name).unwrap();
        object["status"] = status;
        self.store(resource, object, true);
    }

    pub(super) fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let known = state.objects.entry(resource.to_owned()).or_default();
        let mut gone = known
            .remove(&(namespace.to_owned(), name.to_owned()))
            .unwrap();
        gone["metadata"]["resourceVersion"] = version.to_string().into();
        state.log.push((
            version,
            resource.to_owned(),
            json!({"type": "DELETED", "object": gone}),
        ));
        drop(state);
        self.changed.send_replace(());
    }

    /// Whether a resource's definition is installed.
    pub(super) fn serve(&self, resource: &str, served: bool) {
        let mut state = self.state.lock();
        if served {
            state.absent.remove(resource);
        } else {
            state.absent.insert(resource.to_owned());
        }
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.state.lock();
        let name = (namespace.to_owned(), name.to_owned());
        state.objects.get(resource)?.get(&name).cloned()
    }

    /// Every write so far but those to Leases.
    pub(super) fn journal(&self) -> Vec<String> {
        self.state.lock().journal.clone()
    }

    /// Waits until the objects are as wanted.
    pub(super) async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        };
        let patience = std::time::Duration::from_secs(30);
        let waited = tokio::time::timeout(patience, waiting).await;
        assert!(waited.is_ok(), "{what}: {:#?}", self.journal());
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let Some(target) = Target::of(request.uri().path()) else {
            return status(StatusCode::NOT_FOUND);
        };
        if target.resource == "apiextensions.k8s.io/customresourcedefinitions" {
            return self.definition(target.name.as_deref().unwrap_or_default());
        }
        if self.state.lock().absent.contains(&target.resource) {
            return status(StatusCode::NOT_FOUND);
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let (method, is_watch) = (request.method().clone(), query.contains("watch=true"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (method, &target.name) {
            (Method::GET, None) if is_watch => self.watch(target.resource, &query),
            (Method::GET, None) => self.list(&target),
            (Method::GET, Some(name)) => {
                let found = self.get(&target.resource, &target.namespace, name);
                found.map_or_else(|| status(StatusCode::NOT_FOUND), |one| answer(&one))
            }
            (method, _) => self.write(&method, &target, sent),
        }
    }

    /// How often definitions were read.
    pub(super) fn definitions(&self) -> usize {
        self.state.lock().definitions
    }

    fn definition(&self, name: &str) -> Response<Body> {
        let (plural, group) = name.split_once('.').unwrap();
        let mut state = self.state.lock();
        state.definitions += 1;
        if state.absent.contains(&format!("{group}/{plural}")) {
            return status(StatusCode::NOT_FOUND);
        }
        answer(&json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": name},
        }))
    }

    fn write(&self, method: &Method, target: &Target, sent: Value) -> Response<Body> {
        let name = target
            .name
            .clone()
            .or_else(|| sent["metadata"]["name"].as_str().map(str::to_owned));
        let name = name.unwrap_or_default();
        let standing = self.get(&target.resource, &target.namespace, &name);
        let version = |object: &Value| {
            object["metadata"]["resourceVersion"]
                .as_str()
                .map(str::to_owned)
        };
        let wanted = version(&sent);
        let outdated = wanted.is_some() && standing.as_ref().and_then(version) != wanted;
        if outdated || (*method == Method::POST && standing.is_some()) {
            return status(StatusCode::CONFLICT);
        }
        if !target.resource.ends_with("/leases") {
            let part = if target.is_status { "/status" } else { "" };
            let line = format!(
                "{method} {}{part} {}/{name}",
                target.resource, target.namespace
            );
            self.state.lock().journal.push(line);
        }
        if *method == Method::DELETE {
            self.delete(&target.resource, &target.namespace, &name);
            return answer(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
        }
        let mut object = standing.unwrap_or_else(|| json!({}));
        if target.is_status {
            merge(&mut object["status"], &sent["status"]);
        } else {
            merge(&mut object, &sent);
        }
        object["metadata"]["name"] = name.into();
        if !target.namespace.is_empty() {
            object["metadata"]["namespace"] = target.namespace.clone().into();
        }
        answer(&self.store(&target.resource, object, target.is_status))
    }

    fn list(&self, target: &Target) -> Response<Body> {
        let state = self.state.lock();
        let items: Vec<Value> = state
            .objects
            .get(&target.resource)
            .into_iter()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect();
        answer(&json!({
            "apiVersion": target.api_version, "kind": "List",
            "metadata": {"resourceVersion": state.version.to_string()}, "items": items,
        }))
    }

    fn watch(self: &Arc<Self>, resource: String, query: &str) -> Response<Body> {
        let from = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|text| text.parse().ok()).unwrap_or(0);
        let changed = self.changed.subscribe();
        let state = (self.clone(), resource, from, changed);
        let stream = futures_util::stream::unfold(
            state,
            |(server, resource, from, mut changed)| async move {
                loop {
                    let next = {
                        let state = server.state.lock();
                        let mut log = state.log.iter();
                        log.find(|(version, of, _)| *version > from && *of == resource)
                            .cloned()
                    };
                    if let Some((version, _, event)) = next {
                        let frame = Frame::data(Bytes::from(format!("{event}\n")));
                        return Some((Ok(frame), (server, resource, version, changed)));
                    }
                    changed.changed().await.ok()?;
                }
            },
        );
        Response::new(BodyExt::boxed(StreamBody::new(
            Box::pin(stream).boxed_sync(),
        )))
    }
}

/// So that a stream can be shared, as the body type asks.
trait BoxedSync: futures_util::Stream + Sized {
    fn boxed_sync(self) -> SyncStream<Self>;
}

impl<S: futures_util::Stream> BoxedSync for S {
    fn boxed_sync(self) -> SyncStream<Self> {
        SyncStream(Mutex::new(Box::pin(self)))
    }
}

struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().as_mut().poll_next(context)
    }
}

fn plural(kind: &str) -> String {
    match kind {
        "PoolPolicy" => "poolpolicies".to_owned(),
        "BackendTLSPolicy" => "backendtlspolicies".to_owned(),
        "GatewayClass" => "gatewayclasses".to_owned(),
        "GatewayParameters" => "gatewayparameters".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    }
}

fn name_of(object: &Value) -> Name {
    let text = |key: &str| {
        object["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("namespace"), text("name"))
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn answer(value: &Value) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(value.to_string()));
    Response::new(body.boxed())
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = answer(&json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code.as_u16(), "reason": code.canonical_reason().unwrap_or_default().replace(' ', ""), "message": code.to_string(),
    }));
    *response.status_mut() = code;
    response
}
