//! New connections to endpoints for HTTP/1.1, with TLS where the endpoint asks for it.
//!
//! A pooled connection may be closed by the server at the very moment we use it. If it ends before
//! any response byte, the engine has not answered, and the caller may try again elsewhere.

use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use crate::pool::Endpoint;
use crate::socket::Socket;
use crate::upstream::{self, Upstream, Wire};

/// A new connection to `endpoint`.
///
/// # Errors
/// A connect that failed or took longer than `limits.connect`.
pub(crate) async fn connect(endpoint: &Endpoint, limits: &Limits) -> Result<Upstream, Failure> {
    Ok(Upstream {
        wire: Wire::H1(dial(endpoint, limits).await?),
        reused: false,
    })
}

/// A socket to `endpoint`, ready for the first request.
pub(crate) async fn dial(endpoint: &Endpoint, limits: &Limits) -> Result<Socket, Failure> {
    let dialled = tokio::time::timeout(limits.connect, upstream::connect(endpoint));
    let error = match dialled.await {
        Ok(Ok(stream)) => match &endpoint.transport.tls {
            crate::pool::Tls::None => return Ok(Socket::Tcp(stream)),
            crate::pool::Tls::Connect(tls) => {
                // Boxed: a handshake's state is large, and most endpoints are without.
                let shaken = Box::pin(tokio::time::timeout(limits.handshake, tls.connect(stream)));
                match shaken.await {
                    Ok(Ok(socket)) => return Ok(socket),
                    Ok(Err(error)) => format!("the tls handshake failed: {error}"),
                    Err(_) => format!("no tls handshake within {:?}", limits.handshake),
                }
            }
            crate::pool::Tls::Unusable(why) => why.to_string(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {:?}", limits.connect),
    };
    let message = format!("cannot connect to endpoint {}: {error}", endpoint.name);
    Err(Failure::new(Phase::Connect, Cause::ConnectFailed, message))
}
