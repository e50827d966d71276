//! TLS settings as compiled: PEM texts, which the proxy makes into what its library wants.
//!
//! Keys are sealed: they never show in a log or on a debug page, and their fingerprints tell
//! changes.

use serde::Serialize;

use crate::objects::Sealed;

/// How a listener ends TLS.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListenerTls {
    /// In the order written; the first that names the host is shown to a client.
    pub certificates: Vec<CertificatePem>,
    /// Whether clients are asked for certificates.
    pub client_certificates: Option<ClientCertificates>,
}

/// A certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CertificatePem {
    /// PEM, the certificate itself first.
    pub chain: Sealed,
    /// PEM.
    pub key: Sealed,
}

/// What clients must show.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientCertificates {
    /// PEM of the authorities that are trusted.
    #[serde(serialize_with = "fingerprint")]
    pub ca: String,
    /// Whether a client without a certificate that one of them signed is turned away.
    pub required: bool,
}

/// TLS towards the endpoints of a backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendTls {
    /// Asked for by SNI, and what the certificate must name.
    pub hostname: Box<str>,
    /// What the certificate must name instead, if not empty: one of them.
    pub subject_names: Vec<SubjectName>,
    /// Who may have signed the certificate.
    pub ca: TrustedCa,
    /// What we show the endpoint.
    pub client_certificate: Option<CertificatePem>,
}

/// A name that a certificate may carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SubjectName {
    /// Of a host.
    Host(Box<str>),
    /// A URI, such as a SPIFFE id; compared as it is.
    Uri(Box<str>),
}

/// Authorities that are trusted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum TrustedCa {
    /// Those of the machine.
    System,
    /// PEM.
    Pem(#[serde(serialize_with = "fingerprint")] String),
}

fn fingerprint<S: serde::Serializer>(pem: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Sealed::new(pem))
}
