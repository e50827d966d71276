//! Certificates for tests: an authority, what it signs, and clients that trust it.

use crate::gateway::{Answer, read_answer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::io::{BufReader, Cursor};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a client says first.
pub(crate) fn hello(connector: &TlsConnector, host: &'static str) -> Vec<u8> {
    let host = ServerName::try_from(host).unwrap();
    let mut client = ClientConnection::new(connector.config().clone(), host).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Certificate {
    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (chain.map(Result::unwrap).collect(), key)
    }

    /// A Secret of this name.
    pub(crate) fn secret(&self, name: &str) -> String {
        let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\n\
            stringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
            indented(&self.chain),
            indented(&self.key)
        )
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate of these hosts and URIs.
    pub(crate) fn sign(&self, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let (uris, names): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.contains(':'));
        let mut params = CertificateParams::new(names).unwrap();
        let uri = |uri: String| SanType::URI(uri.try_into().unwrap());
        params.subject_alt_names.extend(uris.into_iter().map(uri));
        Certificate {
            chain: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A ConfigMap of this name.
    pub(crate) fn config_map(&self, name: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  ca.crt: |\n    {}\n",
            self.pem().trim().replace('\n', "\n    ")
        )
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority, offers `alpn` and shows `own`.
    pub(crate) fn client(&self, alpn: &str, own: Option<&Certificate>) -> TlsConnector {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = own.der();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        if !alpn.is_empty() {
            config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        }
        TlsConnector::from(Arc::new(config))
    }

    /// A server that shows `own`, and asks for a certificate of this authority if `asks`.
    pub(crate) fn server(&self, own: &Certificate, alpn: &str, asks: bool) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let roots = Arc::new(self.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = own.der();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

pub(crate) type Tls = TlsStream<tokio::net::TcpStream>;

/// A handshake with `address`, asking for `host`.
pub(crate) async fn handshake(
    connector: TlsConnector,
    address: SocketAddr,
    host: &'static str,
) -> std::io::Result<Tls> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let name = ServerName::try_from(host).unwrap();
    connector.connect(name, stream).await
}

/// One GET over HTTP/1.1 and TLS; the answer.
pub(crate) async fn get(stream: &mut Tls, host: &str, path: &str) -> std::io::Result<Answer> {
    let text = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(text.as_bytes()).await?;
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(answer) = read_answer(&mut BufReader::new(Cursor::new(&received))) {
            return Ok(answer);
        }
    }
}

/// The certificate that the other side showed, as it stands in `Certificate`.
pub(crate) fn shown(stream: &Tls) -> Vec<u8> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().unwrap()[0].to_vec()
}

pub(crate) fn is(certificate: &Certificate, shown: &[u8]) -> bool {
    certificate.der().0[0].as_ref() == shown
}
