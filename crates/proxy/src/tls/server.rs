//! TLS towards clients: which certificate for which name, and handshakes that cannot crowd out
//! the streams of others.
//!
//! The costly step of a handshake, the signature, is taken one at a time per worker with a turn of
//! the other tasks after each, so a flood of handshakes delays established streams by one
//! signature. Handshakes have a deadline, and only so many are under way.

use super::{PROVIDER, certified, invalid, roots};
use crate::live::Shared;
use crate::socket::Socket;
use crate::worker::Local;
use config::{Bind, ListenerTls};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    Acceptor, ClientHello, NoClientAuth, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// How the listeners of one socket end TLS, in their order.
#[derive(Debug)]
pub(crate) struct Terminating {
    bind: Arc<Bind>,
    listeners: Vec<Option<Made>>,
}

/// Settings and what was made of them.
#[derive(Debug, Clone)]
struct Made {
    /// The listener: its Gateway and name.
    listener: (config::ObjectName, Box<str>),
    settings: Arc<ListenerTls>,
    /// Of settings that cannot be used, the last good one.
    config: Option<Arc<ServerConfig>>,
    /// Why the settings cannot be used.
    problem: Option<String>,
}

impl Terminating {
    /// What `bind` needs; `None` if its listeners do not end TLS.
    pub(crate) fn new(bind: &Arc<Bind>, earlier: Option<&Self>) -> Option<Self> {
        if bind.listeners.iter().all(|listener| listener.tls.is_none()) {
            return None;
        }
        let earlier = || {
            let listeners = earlier.iter().flat_map(|earlier| &earlier.listeners);
            listeners.flatten()
        };
        let make = |listener: &Arc<config::Listener>| {
            let settings = listener.tls.clone()?;
            let name = (listener.gateway.clone(), listener.name.clone());
            let of_listener = earlier().find(|made| made.listener == name);
            if let Some(same) = of_listener.filter(|made| made.settings == settings) {
                return Some(same.clone());
            }
            let (config, problem) = match server_config(&settings) {
                Ok(config) => (Some(Arc::new(config)), None),
                Err(error) => {
                    let (gateway, listener) = &name;
                    tracing::error!(%gateway, %listener, %error, "a certificate cannot be used");
                    let last = of_listener.and_then(|made| made.config.clone());
                    (last, Some(error.to_string()))
                }
            };
            Some(Made {
                listener: name,
                settings,
                config,
                problem,
            })
        };
        Some(Self {
            listeners: bind.listeners.iter().map(make).collect(),
            bind: bind.clone(),
        })
    }

    /// Gateway and name of each listener whose settings cannot be used, and why.
    pub(crate) fn problems(&self) -> Vec<(config::ObjectName, Box<str>, String)> {
        let problem = |made: &Made| {
            let (gateway, listener) = made.listener.clone();
            Some((gateway, listener, made.problem.clone()?))
        };
        self.listeners
            .iter()
            .flatten()
            .filter_map(problem)
            .collect()
    }

    fn config_for(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let listener = self
            .bind
            .listener_of(hello.server_name().unwrap_or_default())?;
        self.listeners.get(listener)?.as_ref()?.config.clone()
    }
}

fn server_config(settings: &ListenerTls) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()?;
    let verifier = match &settings.client_certificates {
        None => Arc::new(NoClientAuth) as Arc<dyn ClientCertVerifier>,
        Some(asked) => {
            let roots = Arc::new(roots(&asked.ca)?);
            let builder = WebPkiClientVerifier::builder_with_provider(roots, PROVIDER.clone());
            let verifier = builder.build().map_err(invalid)?;
            if asked.required {
                verifier
            } else {
                Arc::new(Anybody(verifier))
            }
        }
    };
    let certificates = settings.certificates.iter().map(certified);
    let certificates = certificates.map(|made| made.map(Arc::new));
    let resolver = Certificates(certificates.collect::<Result<_, _>>()?);
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// Asks for a certificate and takes any, or none (`AllowInsecureFallback`).
#[derive(Debug)]
struct Anybody(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The certificates of one listener.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    /// The first that names the host and that the client can verify; else the first it can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let names_host = |key: &&Arc<CertifiedKey>| {
            let parsed = key.cert.first().map(ParsedCertificate::try_from);
            match (parsed, &name) {
                (Some(Ok(certificate)), Some(name)) => {
                    verify_server_name(&certificate, name).is_ok()
                }
                _ => false,
            }
        };
        let mut all = self.0.iter().filter(usable);
        if self.0.len() > 1
            && let Some(named) = self.0.iter().filter(usable).find(names_host)
        {
            return Some(named.clone());
        }
        all.next().cloned()
    }
}

/// A client after its handshake.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) is_h2: bool,
    pub(crate) server_name: Option<Box<str>>,
}

/// The handshake with a client; `None` if it failed, took too long, or there are too many.
pub(crate) async fn accept(
    local: &Local,
    shared: &Shared,
    terminating: Arc<Terminating>,
    stream: TcpStream,
) -> Option<Accepted> {
    let _place = local.handshakes.place(shared.limits.handshakes)?;
    let shaking = handshake(local, &terminating, stream);
    let accepted = tokio::time::timeout(shared.limits.handshake, shaking).await;
    accepted.ok().flatten()
}

async fn handshake(
    local: &Local,
    terminating: &Terminating,
    stream: TcpStream,
) -> Option<Accepted> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
        .await
        .ok()?;
    let hello = start.client_hello();
    let server_name = hello.server_name().map(Into::into);
    let config = terminating.config_for(&hello)?;
    let turn = local.handshakes.turn.acquire().await.ok()?;
    let mut rest = pin!(start.into_stream(config));
    let first = poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await;
    tokio::task::yield_now().await;
    drop(turn);
    let stream = match first {
        Poll::Ready(done) => done,
        Poll::Pending => rest.await,
    };
    let stream = stream.ok()?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    Some(Accepted {
        socket: Socket::Tls(Box::new(TlsStream::Server(stream))),
        is_h2,
        server_name,
    })
}

/// The handshakes of a worker.
#[derive(Debug)]
pub(crate) struct Handshakes {
    under_way: std::cell::Cell<usize>,
    turn: tokio::sync::Semaphore,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            under_way: std::cell::Cell::new(0),
            turn: tokio::sync::Semaphore::new(1),
        }
    }
}

/// One handshake that is under way.
struct Place<'a>(&'a Handshakes);

impl Handshakes {
    fn place(&self, most: usize) -> Option<Place<'_>> {
        let under_way = self.under_way.get();
        (under_way < most).then(|| {
            self.under_way.set(under_way + 1);
            Place(self)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0
            .under_way
            .set(self.0.under_way.get().saturating_sub(1));
    }
}
