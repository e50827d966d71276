//! How a listener ends TLS: whether the certificates that it names exist, may be used and are PEM,
//! and what the Gateway wants to see of clients.
//!
//! Whether a key fits its certificate is found out by the proxy: it takes cryptography.

use rustc_hash::FxHashSet;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Gateways;
use crate::compile::grants::{self, Referrer};
use crate::name::ObjectName;
use crate::objects::gateway::{
    FrontendValidation, GatewayListener, GatewaySpec, SecretReference, TlsMode, ValidationMode,
};
use crate::objects::{GATEWAY_GROUP, Objects, Sealed, Secret};
use crate::status::{Condition, ConditionType, Reason, Truth};
use crate::tls::{CertificatePem, ClientCertificates};

/// Reason, message and field below the listener.
type Refusal = (Reason, String, String);

/// The certificates of an HTTPS listener; every reference must be good.
pub(super) fn of_listener(
    objects: &Objects,
    gateway: &ObjectName,
    listener: &GatewayListener,
) -> Result<Vec<CertificatePem>, Refusal> {
    let invalid = |message: &str, field: &str| {
        Err((
            Reason::InvalidCertificateRef,
            message.to_owned(),
            field.to_owned(),
        ))
    };
    let Some(tls) = &listener.tls else {
        return invalid("an HTTPS listener needs `tls`", "");
    };
    if tls
        .mode
        .as_ref()
        .is_some_and(|mode| *mode != TlsMode::Terminate)
    {
        return invalid(
            "an HTTPS listener ends tls itself: the mode must be Terminate",
            ".tls.mode",
        );
    }
    if tls.certificate_refs.is_empty() {
        return invalid("an HTTPS listener needs a certificate", ".tls");
    }
    let mut certificates = Vec::new();
    for (index, reference) in tls.certificate_refs.iter().enumerate() {
        let certificate = certificate(objects, gateway, reference);
        certificates.push(certificate.map_err(|(reason, message)| {
            (reason, message, format!(".tls.certificateRefs[{index}]"))
        })?);
    }
    Ok(certificates)
}

/// What clients of a listener must show, if anything.
pub(super) fn clients(
    objects: &Objects,
    (gateway, spec): (&ObjectName, &GatewaySpec),
    listener: &GatewayListener,
) -> Result<Option<ClientCertificates>, Refusal> {
    match validation(spec, listener.port.number()) {
        None => Ok(None),
        Some(validation) => client_certificates(objects, gateway, validation).map(Some),
    }
}

/// The condition of a Gateway that lets clients in whatever they show.
pub(super) fn insecure(spec: &GatewaySpec) -> Option<Condition> {
    let frontend = spec.tls.as_ref()?.frontend.as_ref()?;
    let of_ports = frontend.per_port.iter().filter_map(|one| one.tls.as_ref());
    let mut all = frontend.default.iter().chain(of_ports);
    let is_insecure = all.any(|tls| {
        let mode = tls.validation.as_ref().and_then(|one| one.mode.as_ref());
        mode == Some(&ValidationMode::AllowInsecureFallback)
    });
    is_insecure.then(|| {
        Condition::plain(
            ConditionType::InsecureFrontendValidationMode,
            Truth::True,
            Reason::ConfigurationChanged,
        )
    })
}

/// What the Gateway says of clients at a port: the port's own, else the default.
fn validation(spec: &GatewaySpec, port: u16) -> Option<&FrontendValidation> {
    let frontend = spec.tls.as_ref()?.frontend.as_ref()?;
    let of_port = frontend
        .per_port
        .iter()
        .find(|one| one.port.number() == port);
    match of_port {
        Some(of_port) => of_port.tls.as_ref()?.validation.as_ref(),
        None => frontend.default.as_ref()?.validation.as_ref(),
    }
}

fn client_certificates(
    objects: &Objects,
    gateway: &ObjectName,
    validation: &FrontendValidation,
) -> Result<ClientCertificates, Refusal> {
    let field = || ".tls".to_owned();
    let mut ca = String::new();
    for reference in &validation.ca_certificate_refs {
        let namespace = reference.namespace.as_deref().unwrap_or(&gateway.namespace);
        let name = ObjectName::new(namespace, &reference.name);
        let target = (reference.group.as_str(), reference.kind.as_str());
        if !matches!(target, ("", "ConfigMap" | "Secret")) {
            let message = format!("{} of group `{}` holds no authorities", target.1, target.0);
            return Err((Reason::InvalidCACertificateKind, message, field()));
        }
        if !grants::permits(objects, &gateway_of(gateway), target, &name) {
            let message = format!("no ReferenceGrant permits {} {name}", reference.kind);
            return Err((Reason::RefNotPermitted, message, field()));
        }
        let pem = authority(objects, target, &name)
            .map_err(|message| (Reason::InvalidCACertificateRef, message, field()))?;
        ca.push_str(&pem);
        ca.push('\n');
    }
    if ca.is_empty() {
        let message = "client certificates need an authority".to_owned();
        return Err((Reason::InvalidCACertificateRef, message, field()));
    }
    Ok(ClientCertificates {
        ca,
        required: validation.mode != Some(ValidationMode::AllowInsecureFallback),
    })
}

/// What a Gateway shows to servers that ask for a certificate; or why it cannot.
pub(super) fn of_gateway(
    objects: &Objects,
    gateway: &ObjectName,
    spec: &GatewaySpec,
) -> Option<Result<CertificatePem, (Reason, String)>> {
    let reference = spec.tls.as_ref()?.backend.as_ref()?;
    let reference = reference.client_certificate_ref.as_ref()?;
    let read = certificate(objects, gateway, reference);
    Some(read.map_err(|(reason, message)| match reason {
        Reason::InvalidCertificateRef => (Reason::InvalidClientCertificateRef, message),
        other => (other, message),
    }))
}

impl Gateways {
    /// What is shown to a server behind these Gateways: the oldest one's that has something.
    pub(in crate::compile) fn client_certificate(
        &self,
        users: &FxHashSet<usize>,
    ) -> Option<&CertificatePem> {
        let mut users: Vec<usize> = users.iter().copied().collect();
        users.sort_unstable();
        let gateways = users.iter().filter_map(|user| self.list.get(*user));
        let mut shown = gateways.filter_map(|gateway| gateway.client_certificate.as_ref());
        shown.find_map(|shown| shown.as_ref().ok())
    }
}

/// The condition of a Gateway that shows a certificate to servers.
pub(super) fn condition(read: &Result<CertificatePem, (Reason, String)>) -> Condition {
    let fine = Condition::plain(
        ConditionType::ResolvedRefs,
        Truth::True,
        Reason::ResolvedRefs,
    );
    match read {
        Ok(_) => fine,
        Err((reason, message)) => Condition {
            status: Truth::False,
            reason: *reason,
            message: message.clone(),
            path: "spec.tls.backend.clientCertificateRef".to_owned(),
            ..fine
        },
    }
}

/// The PEM of certificate authorities, from a ConfigMap or a Secret under `ca.crt`.
pub(in crate::compile) fn authority(
    objects: &Objects,
    (group, kind): (&str, &str),
    name: &ObjectName,
) -> Result<String, String> {
    let pem = match (group, kind) {
        ("", "ConfigMap") => {
            let map = objects.config_maps.get(name);
            map.map(|entry| entry.object.data.get("ca.crt").cloned().unwrap_or_default())
        }
        ("", "Secret") => {
            let secret = objects.secrets.get(name);
            secret.map(|entry| text(&entry.object, "ca.crt"))
        }
        _ => return Err(format!("{kind} of group `{group}` holds no authorities")),
    };
    let Some(pem) = pem else {
        return Err(format!("{kind} {name} not found"));
    };
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(pem),
        _ => Err(format!(
            "key ca.crt of {kind} {name} holds no certificate in pem"
        )),
    }
}

fn text(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.value(key).unwrap_or_default()).unwrap_or_default()
}

fn gateway_of(gateway: &ObjectName) -> Referrer<'_> {
    Referrer {
        group: GATEWAY_GROUP,
        kind: "Gateway",
        namespace: &gateway.namespace,
    }
}

/// A certificate and its key from a Secret, for a Gateway.
pub(in crate::compile) fn certificate(
    objects: &Objects,
    gateway: &ObjectName,
    reference: &SecretReference,
) -> Result<CertificatePem, (Reason, String)> {
    let invalid = |message: String| Err((Reason::InvalidCertificateRef, message));
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    if (group, kind) != ("", "Secret") {
        return invalid(format!("{kind} of group `{group}` is no Secret"));
    }
    let namespace = reference.namespace.as_deref().unwrap_or(&gateway.namespace);
    let name = ObjectName::new(namespace, &reference.name);
    if !grants::permits(objects, &gateway_of(gateway), ("", "Secret"), &name) {
        return Err((
            Reason::RefNotPermitted,
            format!("no ReferenceGrant permits Secret {name}"),
        ));
    }
    let Some(secret) = objects.secrets.get(&name) else {
        return invalid(format!("Secret {name} not found"));
    };
    let (chain, key) = (
        text(&secret.object, "tls.crt"),
        text(&secret.object, "tls.key"),
    );
    if !matches!(
        CertificateDer::pem_slice_iter(chain.as_bytes()).next(),
        Some(Ok(_))
    ) {
        return invalid(format!(
            "key tls.crt of Secret {name} is no certificate in pem"
        ));
    }
    if PrivateKeyDer::from_pem_slice(key.as_bytes()).is_err() {
        return invalid(format!(
            "key tls.key of Secret {name} is no private key in pem"
        ));
    }
    Ok(CertificatePem {
        chain: Sealed::new(chain),
        key: Sealed::new(key),
    })
}
