//! How both kinds of clients (proxies, and replicas that do not lead) reach a controller.
//!
//! Only the stored authority is trusted, never the system's; the name that is verified is given apart
//! from the address, since a replica is reached by its Pod's.

use super::StreamError;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const CONNECT: Duration = Duration::from_secs(5);
pub(super) const PING: Duration = Duration::from_secs(10);

type Driver = http2::Connection<TokioIo<TlsStream<TcpStream>>, tonic::body::Body, TokioExecutor>;

/// Connects to `address`, which must show a certificate for `name` by an authority of `pem`. The
/// second part has to be polled for as long as the first is used.
pub(super) async fn open(
    address: &str,
    name: &str,
    pem: &[u8],
) -> Result<(Http, Driver), StreamError> {
    let stream = tokio::time::timeout(CONNECT, dial(address, name, pem)).await;
    let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = stream.map_err(|source| StreamError::Connect {
        address: address.to_owned(),
        source,
    })?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let (http, driver) = builder.handshake(TokioIo::new(stream)).await?;
    Ok((Http(http), driver))
}

async fn dial(address: &str, name: &str, pem: &[u8]) -> io::Result<TlsStream<TcpStream>> {
    let other = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| other(&error))?;
        roots.add(certificate).map_err(|error| other(&error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| other(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(name.to_owned()).map_err(|error| other(&error))?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

/// The host of `HOST:PORT`.
pub(super) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// hyper's sender as the service that gRPC wants. The connection ends with the last one.
#[derive(Clone)]
pub(super) struct Http(http2::SendRequest<tonic::body::Body>);

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Http {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = StreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StreamError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_ready(context).map_err(StreamError::from)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let answer = self.0.send_request(request);
        Box::pin(async move { Ok(answer.await?) })
    }
}

/// Opens the stream: what is sent comes from `said`. `http` has to be kept as long.
pub(super) async fn stream(
    http: &Http,
    address: &str,
    token: &str,
    said: tokio::sync::mpsc::Receiver<super::wire::FromProxy>,
) -> Result<tonic::Streaming<super::wire::Change>, StreamError> {
    let unusable = |error: &dyn std::fmt::Display| StreamError::Unusable(error.to_string());
    let origin = format!("https://{address}").parse();
    let origin = origin.map_err(|error| unusable(&error))?;
    let mut grpc = tonic::client::Grpc::with_origin(http.clone(), origin)
        .max_decoding_message_size(super::MOST_MESSAGE);
    grpc.ready().await?;
    let said = futures_util::stream::unfold(said, |mut said| async {
        said.recv().await.map(|message| (message, said))
    });
    let mut request = tonic::Request::new(said);
    let bearer = format!("Bearer {token}").parse();
    let bearer = bearer.map_err(|error| unusable(&error))?;
    request.metadata_mut().insert("authorization", bearer);
    let codec = tonic_prost::ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static(super::METHOD);
    Ok(grpc.streaming(request, path, codec).await?.into_inner())
}
