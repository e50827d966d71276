//! The bare floor: the least that a reverse proxy on hyper does, and what every figure is a ratio to.
//!
//! hyper's server and `hyper_util`'s pooled client on one current-thread runtime; bodies stream both
//! ways; no timeouts, no checks, no headers touched. It must stay this small: a feature added here
//! makes every proxy that is compared with it look better than it is.

use std::net::SocketAddr;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Forwards everything that reaches `listen` to `upstream`, until the process ends.
pub(crate) fn run(listen: SocketAddr, upstream: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(serve(listen, upstream))
}

async fn serve(listen: SocketAddr, upstream: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(None)
        .build(connector);
    let authority = Authority::try_from(upstream.to_string())?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, authority) = (client.clone(), authority.clone());
        let service = service_fn(move |request| client.request(aim(request, authority.clone())));
        #[expect(
            clippy::disallowed_methods,
            reason = "the floor's tasks end with the process"
        )]
        tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.header_read_timeout(None);
            // A client that leaves early is no event here, and the load generator counts it.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The same request with the upstream's address as its target.
fn aim(mut request: Request<Incoming>, authority: Authority) -> Request<Incoming> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts
        .path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    // All three parts are there, so the target is whole; the default is never reached.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}
