//! TLS towards servers: whom we trust to be the server, and what we show it.

use super::{PROVIDER, certified, chain, invalid, roots};
use crate::socket::Socket;
use config::{BackendTls, SubjectName, TrustedCa};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

/// How the endpoints of a pool are connected to over TLS.
#[derive(Clone)]
pub(crate) struct Connecting {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connecting")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Connecting {
    /// # Errors
    /// A CA or a certificate that cannot be read, or a key that does not fit.
    pub(crate) fn new(settings: &BackendTls, h2: bool) -> Result<Self, Error> {
        let roots = match &settings.ca {
            TrustedCa::Pem(pem) => roots(pem)?,
            TrustedCa::System => system_roots()?,
        };
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), PROVIDER.clone())
                .build()
                .map_err(invalid)?;
        let names = settings.subject_names.iter().map(|name| match name {
            SubjectName::Host(host) => ServerName::try_from(host.to_string())
                .map(Name::Host)
                .map_err(invalid),
            SubjectName::Uri(uri) => Ok(Name::Uri(uri.clone())),
        });
        let verifier = Verifier {
            inner: verifier,
            names: names.collect::<Result<_, _>>()?,
        };
        let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &settings.client_certificate {
            None => builder.with_no_client_auth(),
            Some(own) => {
                // Checks that they fit together.
                certified(own)?;
                let key: PrivateKeyDer<'static> =
                    rustls::pki_types::pem::PemObject::from_pem_slice(own.key.reveal().as_bytes())
                        .map_err(invalid)?;
                builder.with_client_auth_cert(chain(own.chain.reveal())?, key)?
            }
        };
        config.alpn_protocols = vec![if h2 {
            b"h2".to_vec()
        } else {
            b"http/1.1".to_vec()
        }];
        config.resumption = Resumption::in_memory_sessions(64);
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(settings.hostname.to_string()).map_err(invalid)?,
        })
    }

    /// Whoever answers is believed: for servers that sign their own certificates. Nobody is named.
    ///
    /// # Errors
    /// The library of cryptography has no usable version of TLS.
    pub(crate) fn unverified(h2: bool) -> Result<Self, Error> {
        let mut config = unverified_tls(if h2 { &[b"h2"] } else { &[] })?;
        config.enable_sni = false;
        config.resumption = Resumption::in_memory_sessions(64);
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from("picker.invalid").map_err(invalid)?,
        })
    }

    /// The handshake over a new connection.
    ///
    /// # Errors
    /// The server cannot prove who it is, or does not speak TLS.
    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<Socket> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        Ok(Socket::Tls(Box::new(TlsStream::Client(stream))))
    }
}

/// TLS that believes whoever answers, and offers these protocols (ALPN).
///
/// # Errors
/// The library of cryptography has no usable version of TLS.
pub fn unverified_tls(protocols: &[&[u8]]) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// Takes every certificate; that the other side has its key is still checked.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(invalid("this system has no trusted certificates"));
    }
    Ok(roots)
}

/// The usual check, against other names than the one that is asked for where they are given
/// (subjectAltNames of BackendTLSPolicy): any of them will do.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    names: Vec<Name>,
}

#[derive(Debug)]
enum Name {
    Host(ServerName<'static>),
    Uri(Box<str>),
}

/// Whether the certificate has this URI among its names.
fn has_uri(certificate: &CertificateDer<'_>, uri: &str) -> bool {
    let parsed = webpki::EndEntityCert::try_from(certificate);
    parsed.is_ok_and(|parsed| parsed.valid_uri_names().any(|name| name == uri))
}

/// Whether a check failed at the name only: the chain is checked before the name.
fn is_of_another_name(error: &Error) -> bool {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
    matches!(
        error,
        Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let check = |name: &ServerName<'_>| {
            let inner = &self.inner;
            inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let by_host = check(server_name);
        if self.names.is_empty() {
            return by_host;
        }
        let is_trusted = match &by_host {
            Ok(_) => true,
            Err(error) => is_of_another_name(error),
        };
        let holds = |name: &Name| match name {
            Name::Host(host) => check(host).is_ok(),
            Name::Uri(uri) => is_trusted && has_uri(end_entity, uri),
        };
        if self.names.iter().any(holds) {
            return Ok(ServerCertVerified::assertion());
        }
        by_host.and(Err(rustls::CertificateError::NotValidForName.into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
