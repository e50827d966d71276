//! Whether the certificates that a listener names exist, may be used and look like PEM.

use crate::compile::grants::{self, Referrer};
use crate::name::ObjectName;
use crate::objects::gateway::{ListenerTls, SecretReference, TlsMode};
use crate::objects::{GATEWAY_GROUP, Objects};
use crate::status::Reason;

/// Reason, message and field below the listener.
type Refusal = (Reason, String, String);

pub(super) fn check(
    objects: &Objects,
    gateway: &ObjectName,
    tls: Option<&ListenerTls>,
) -> Result<(), Refusal> {
    let invalid = |message: &str, field: &str| {
        Err((
            Reason::InvalidCertificateRef,
            message.to_owned(),
            field.to_owned(),
        ))
    };
    let Some(tls) = tls else {
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
    for (index, reference) in tls.certificate_refs.iter().enumerate() {
        one(objects, gateway, reference).map_err(|(reason, message)| {
            (reason, message, format!(".tls.certificateRefs[{index}]"))
        })?;
    }
    Ok(())
}

fn one(
    objects: &Objects,
    gateway: &ObjectName,
    reference: &SecretReference,
) -> Result<(), (Reason, String)> {
    let invalid = |message: String| Err((Reason::InvalidCertificateRef, message));
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    if (group, kind) != ("", "Secret") {
        return invalid(format!("{kind} of group `{group}` is no Secret"));
    }
    let namespace = reference.namespace.as_deref().unwrap_or(&gateway.namespace);
    let name = ObjectName::new(namespace, &reference.name);
    let from = Referrer {
        group: GATEWAY_GROUP,
        kind: "Gateway",
        namespace: &gateway.namespace,
    };
    if !grants::permits(objects, &from, ("", "Secret"), &name) {
        return Err((
            Reason::RefNotPermitted,
            format!("no ReferenceGrant permits Secret {name}"),
        ));
    }
    let Some(secret) = objects.secrets.get(&name) else {
        return invalid(format!("Secret {name} not found"));
    };
    for key in ["tls.crt", "tls.key"] {
        let value = secret.object.value(key).unwrap_or_default();
        if !value.starts_with(b"-----BEGIN ") {
            return invalid(format!("key {key} of Secret {name} is no pem"));
        }
    }
    Ok(())
}
