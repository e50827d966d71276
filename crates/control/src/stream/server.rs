//! The controller's end: TLS, HTTP/2, who asks, and then the differences.
//!
//! A proxy proves by the token of its ServiceAccount which Gateway it serves; it cannot ask for
//! another's objects. A stream ends after an hour, so that a token that is revoked does not live on.

use super::wire::{Applied, Change, FromProxy, Hello, Said, Upsert};
use super::{METHOD, MOST_MESSAGE, MOST_OBJECTS};
use crate::kube::{Feed, Feeds, Report};
use config::ObjectName;
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

const HANDSHAKE: Duration = Duration::from_secs(10);
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
const PING: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(3_600);
/// Objects of one message, by bytes.
const CHUNK: usize = 1 << 20;
/// Versions that a proxy may leave without an answer and answer later.
const UNANSWERED: usize = 1_024;
/// Most connections at a time.
const CONNECTIONS: usize = 4_096;

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// The ServiceAccount.
    pub account: String,
    /// The Pod that the token is bound to.
    pub pod: String,
}

/// Says who a token belongs to.
pub trait Reviewer: Send + Sync + 'static {
    /// `None` when the token is not valid for the object stream.
    fn review(&self, token: String) -> Pin<Box<dyn Future<Output = Option<Caller>> + Send + '_>>;
}

/// Asks the API server.
#[derive(Clone)]
pub struct TokenReviewer {
    client: kube::Client,
    audience: String,
}

impl std::fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReviewer")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl TokenReviewer {
    /// A reviewer of tokens for `audience`.
    pub fn new(client: kube::Client, audience: impl Into<String>) -> Self {
        Self {
            client,
            audience: audience.into(),
        }
    }

    async fn ask(&self, token: String) -> Option<Caller> {
        let api: kube::Api<TokenReview> = kube::Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.clone()]),
                token: Some(token),
            },
            ..TokenReview::default()
        };
        let reviewed = match api.create(&kube::api::PostParams::default(), &review).await {
            Ok(reviewed) => reviewed.status?,
            Err(error) => {
                tracing::warn!(%error, "a token cannot be reviewed");
                return None;
            }
        };
        let for_us = reviewed
            .audiences
            .is_some_and(|audiences| audiences.contains(&self.audience));
        if reviewed.authenticated != Some(true) || !for_us {
            return None;
        }
        let user = reviewed.user?;
        let name = user.username?;
        let (namespace, account) = name
            .strip_prefix("system:serviceaccount:")?
            .split_once(':')?;
        let extra = user.extra.unwrap_or_default();
        let pod = extra.get("authentication.kubernetes.io/pod-name");
        Some(Caller {
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            pod: pod
                .and_then(|pods| pods.first())
                .cloned()
                .unwrap_or_default(),
        })
    }
}

impl Reviewer for TokenReviewer {
    fn review(&self, token: String) -> Pin<Box<dyn Future<Output = Option<Caller>> + Send + '_>> {
        Box::pin(self.ask(token))
    }
}

/// What the server needs.
#[derive(Clone)]
pub struct ServeSettings {
    /// What is served.
    pub feeds: Arc<Feeds>,
    /// Who asks.
    pub reviewer: Arc<dyn Reviewer>,
    /// Namespace and ServiceAccount of the controller's replicas, which relay reports.
    pub replicas: (String, String),
    /// Certificate and key.
    pub tls: Arc<rustls::ServerConfig>,
}

impl std::fmt::Debug for ServeSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeSettings").finish_non_exhaustive()
    }
}

/// Serves the object stream until `stop`.
pub async fn serve(listener: TcpListener, settings: ServeSettings, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let acceptor = TlsAcceptor::from(settings.tls.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, room.clone().try_acquire_owned()) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let connection = serve_connection(acceptor.clone(), stream, settings.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn serve_connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    settings: ServeSettings,
    stop: CancellationToken,
) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a proxy's tls handshake failed"),
        Err(_) => return,
    };
    let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
        let follow = Follow {
            settings: settings.clone(),
        };
        async move {
            if request.uri().path() != METHOD {
                let unknown = Status::new(Code::Unimplemented, "no such method");
                return Ok::<_, Infallible>(unknown.into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Change, FromProxy>::default())
                .max_decoding_message_size(MOST_MESSAGE);
            Ok(grpc.streaming(follow, request).await)
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(4);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = &mut serving => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a proxy's connection ended");
            }
        }
        () = stop.cancelled() => {}
        () = tokio::time::sleep(LIFE) => {}
    }
}

struct Follow {
    settings: ServeSettings,
}

type Changes = Pin<Box<dyn futures_util::Stream<Item = Result<Change, Status>> + Send>>;

impl tonic::server::StreamingService<FromProxy> for Follow {
    type Response = Change;
    type ResponseStream = Changes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Changes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<FromProxy>>) -> Self::Future {
        let settings = self.settings.clone();
        Box::pin(async move { open(settings, request).await.map(Response::new) })
    }
}

/// Tells streams apart in reports.
static STREAMS: AtomicU64 = AtomicU64::new(1);

async fn open(
    settings: ServeSettings,
    request: Request<Streaming<FromProxy>>,
) -> Result<Changes, Status> {
    let token = request.metadata().get("authorization");
    let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.ok_or_else(|| Status::unauthenticated("a ServiceAccount token is needed"))?;
    let caller = settings.reviewer.review(token.to_owned()).await;
    let caller = caller.ok_or_else(|| Status::unauthenticated("the token is not valid here"))?;
    let (namespace, account) = &settings.replicas;
    if (&caller.namespace, &caller.account) == (namespace, account) {
        return Ok(relayed(settings.feeds, request.into_inner()));
    }
    let gateway = settings
        .feeds
        .gateway_of(&caller.namespace, &caller.account);
    let gateway = gateway.ok_or_else(|| {
        let Caller {
            namespace, account, ..
        } = &caller;
        Status::permission_denied(format!(
            "ServiceAccount {namespace}/{account} serves no Gateway"
        ))
    })?;
    let mut said = request.into_inner();
    let first = tokio::time::timeout(FIRST_MESSAGE, said.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no first message in time"))??;
    let Some(Said::Hello(hello)) = first.and_then(|message| message.said) else {
        return Err(Status::invalid_argument(
            "the first message must be a Hello",
        ));
    };
    if hello.have.len() > MOST_OBJECTS {
        return Err(Status::resource_exhausted("too many objects"));
    }
    tracing::info!(%gateway, pod = caller.pod, binary = hello.binary, "a proxy follows");
    let (sender, changes) = mpsc::channel(4);
    let feed = settings.feeds.follow(&gateway);
    let session = Session {
        stream: STREAMS.fetch_add(1, Ordering::Relaxed),
        gateway,
        pod: caller.pod,
        feeds: settings.feeds,
        generations: BTreeMap::new(),
    };
    // The session lives exactly as long as the stream of changes, which the connection owns.
    let running = session.run(hello, said, feed, sender);
    let running = futures_util::stream::once(running).filter_map(|()| std::future::ready(None));
    let changes = futures_util::stream::unfold(changes, |mut changes| async {
        changes.recv().await.map(|change| (change, changes))
    });
    Ok(Box::pin(futures_util::stream::select(changes, running)))
}

/// Takes over what another replica relays, for as long as it does.
fn relayed(feeds: Arc<Feeds>, mut said: Streaming<FromProxy>) -> Changes {
    struct Relay(Arc<Feeds>, u64);
    impl Drop for Relay {
        fn drop(&mut self) {
            self.0.relay(self.1, Vec::new());
        }
    }
    let relay = Relay(feeds, STREAMS.fetch_add(1, Ordering::Relaxed));
    let running = async move {
        while let Ok(Some(message)) = said.message().await {
            if let Some(Said::Relayed(list)) = message.said {
                relay.0.relay(relay.1, super::relay::reports(&list));
            }
        }
    };
    let running = futures_util::stream::once(running);
    Box::pin(running.filter_map(|()| std::future::ready(None)))
}

struct Session {
    stream: u64,
    gateway: ObjectName,
    pod: String,
    feeds: Arc<Feeds>,
    /// Generation of the Gateway in each version that was sent and not yet applied.
    generations: BTreeMap<u64, i64>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.feeds.left(&self.gateway, self.stream);
    }
}

impl Session {
    async fn run(
        mut self,
        hello: Hello,
        mut said: Streaming<FromProxy>,
        mut feed: watch::Receiver<Feed>,
        changes: mpsc::Sender<Result<Change, Status>>,
    ) {
        let mut sent: HashMap<String, u64> = hello.have;
        let mut last = 0;
        loop {
            let now = feed.borrow_and_update().clone();
            if now.version > last {
                last = now.version;
                self.generations.insert(now.version, now.generation);
                if self.generations.len() > UNANSWERED {
                    self.generations.pop_first();
                }
                let differences = differences(&mut sent, &now);
                if send(&changes, differences).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = feed.changed() => {
                    if changed.is_err() {
                        let gone = "the Gateway is not served by this controller any more";
                        let _ = changes.send(Err(Status::not_found(gone))).await;
                        return;
                    }
                }
                message = said.message() => match message {
                    Ok(Some(FromProxy { said: Some(Said::Applied(applied)) })) => self.applied(&applied),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    fn applied(&mut self, applied: &Applied) {
        let Some(generation) = self.generations.get(&applied.version).copied() else {
            return;
        };
        self.generations = self.generations.split_off(&applied.version);
        let listeners = applied.listeners.iter();
        let report = Report {
            pod: self.pod.clone(),
            generation,
            listeners: listeners
                .map(|one| (one.name.clone(), one.state()))
                .collect(),
        };
        self.feeds.report(&self.gateway, self.stream, report);
    }
}

async fn send(
    changes: &mpsc::Sender<Result<Change, Status>>,
    all: Vec<Change>,
) -> Result<(), mpsc::error::SendError<Result<Change, Status>>> {
    for change in all {
        changes.send(Ok(change)).await?;
    }
    Ok(())
}

/// What turns `sent` into the feed, in pieces; the last one commits.
fn differences(sent: &mut HashMap<String, u64>, feed: &Feed) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut change = Change::default();
    let mut bytes = 0;
    for (key, content) in feed.objects.iter() {
        if sent.get(key) == Some(&content.hash) {
            continue;
        }
        sent.insert(key.clone(), content.hash);
        bytes += key.len() + content.json.len();
        change.upserts.push(Upsert {
            key: key.clone(),
            object: content.json.clone(),
        });
        if bytes > CHUNK {
            bytes = 0;
            changes.push(std::mem::take(&mut change));
        }
    }
    let gone: BTreeSet<String> = sent
        .keys()
        .filter(|key| !feed.objects.contains_key(*key))
        .cloned()
        .collect();
    for key in gone {
        sent.remove(&key);
        change.deletes.push(key);
    }
    change.commit = Some(feed.version);
    change.binary = env!("CARGO_PKG_VERSION").to_owned();
    changes.push(change);
    changes
}
