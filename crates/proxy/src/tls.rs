//! TLS: rustls with aws-lc-rs, towards clients (`tls/server.rs`) and servers (`tls/client.rs`).
//!
//! Settings come compiled, as PEM text; here they become rustls' own. Unchanged settings keep their
//! rustls configuration over reloads, and with it their session tickets.

pub(crate) mod client;
pub(crate) mod server;

use config::CertificatePem;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};
use std::sync::{Arc, LazyLock};

/// The one library of cryptography.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::General(what.to_string())
}

/// A certificate with its chain and its key, which fit together.
fn certified(pem: &CertificatePem) -> Result<CertifiedKey, Error> {
    let chain = chain(pem.chain.reveal())?;
    let key = PrivateKeyDer::from_pem_slice(pem.key.reveal().as_bytes()).map_err(invalid)?;
    CertifiedKey::from_der(chain, key, &PROVIDER)
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(invalid)
}

fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}
