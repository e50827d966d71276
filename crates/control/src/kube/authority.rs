//! The certificate authority of the object stream: made once, kept in a Secret that all replicas read,
//! and shown to proxies in a ConfigMap.
//!
//! Each process issues its own certificate when it starts; only the authority's key is stored.

use super::KubeError;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use std::collections::BTreeMap;
use std::sync::Arc;

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// An authority that proxies trust.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    key: KeyPair,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn generate() -> Result<Self, KubeError> {
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = parameters()?.self_signed(&key).map_err(refused)?.pem();
        Ok(Self { certificate, key })
    }

    /// The one that the Secret `name` holds; made if there is none.
    pub(super) async fn shared(
        client: Client,
        namespace: &str,
        name: &str,
    ) -> Result<Self, KubeError> {
        let api: Api<Secret> = Api::namespaced(client, namespace);
        if let Some(secret) = api.get_opt(name).await? {
            return Self::read(&secret);
        }
        let made = Self::generate()?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([
                (
                    CERTIFICATE.to_owned(),
                    ByteString(made.certificate.clone().into_bytes()),
                ),
                (
                    KEY.to_owned(),
                    ByteString(made.key.serialize_pem().into_bytes()),
                ),
            ])),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(made),
            // Another replica was faster: its authority is the one.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Self::read(&api.get(name).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read(secret: &Secret) -> Result<Self, KubeError> {
        let text = |key: &str| {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            let text = value.and_then(|value| String::from_utf8(value.0.clone()).ok());
            text.ok_or_else(|| KubeError::Certificate(format!("the stored secret has no {key}")))
        };
        Ok(Self {
            certificate: text(CERTIFICATE)?,
            key: KeyPair::from_pem(&text(KEY)?).map_err(refused)?,
        })
    }

    /// The certificate that proxies trust, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// How a server of these names speaks TLS.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn server(&self, names: Vec<String>) -> Result<Arc<rustls::ServerConfig>, KubeError> {
        let key = KeyPair::generate().map_err(refused)?;
        let mut wanted = CertificateParams::new(names).map_err(refused)?;
        wanted.not_after = rcgen::date_time_ymd(2050, 1, 1);
        let issuer = Issuer::new(parameters()?, &self.key);
        let issued = wanted.signed_by(&key, &issuer).map_err(refused)?;
        let private = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|why| KubeError::Certificate(why.to_owned()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_no_client_auth()
            .with_single_cert(vec![issued.der().clone()], private)
            .map_err(refused)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The same for every process: what is signed by one is verified by the stored certificate.
fn parameters() -> Result<CertificateParams, KubeError> {
    let mut parameters = CertificateParams::new(Vec::new()).map_err(refused)?;
    parameters
        .distinguished_name
        .push(DnType::CommonName, "penstock object stream");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_after = rcgen::date_time_ymd(2050, 1, 1);
    Ok(parameters)
}

fn refused(error: impl std::fmt::Display) -> KubeError {
    KubeError::Certificate(error.to_string())
}
