//! TLS of the doctor: it believes whoever answers, and says for whom the certificate is not.
//!
//! Who signed it is not checked: which authorities clients trust is not the gateway's to know.

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use rustls::{ClientConnection, StreamOwned};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

/// A stream after its handshake.
pub(super) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// The handshake with a listener that serves `host`.
///
/// # Errors
/// The other side does not speak TLS, has no certificate for `host`, or closes.
pub(super) fn connect(mut stream: TcpStream, host: &str) -> io::Result<Secure> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let config = proxy::unverified_tls(&[b"http/1.1"]).map_err(io::Error::other)?;
    let mut session =
        ClientConnection::new(Arc::new(config), name.clone()).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    let certificates = session.peer_certificates().unwrap_or_default();
    let own = certificates.first().ok_or(io::ErrorKind::InvalidData)?;
    ParsedCertificate::try_from(own)
        .and_then(|own| verify_server_name(&own, &name))
        .map_err(io::Error::other)?;
    Ok(StreamOwned::new(session, stream))
}
