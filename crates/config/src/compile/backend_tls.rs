//! TLS towards backends: which BackendTLSPolicy holds for a Service's port or a pool, what it
//! comes to, and its statuses.
//!
//! A policy that names a port wins over one that does not; of equals, the older one. A backend
//! whose policy cannot be used is answered 500: nothing is ever sent to it without TLS.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::Age;
use super::gateways::{Gateways, certificates};
use super::link::Linker;
use crate::name::ObjectName;
use crate::objects::backend_tls_policy::{
    BackendTlsPolicy, BackendTlsTarget, SubjectAltNameType, WellKnownAuthorities,
};
use crate::objects::{Kind, Objects, POOL_GROUP, POOL_GROUP_X};
use crate::snapshot::ServicePort;
use crate::status::{
    Condition, ConditionType, ObjectStatus, ParentStatus, Reason, Statuses, Truth,
};
use crate::tls::{BackendTls, CertificatePem, SubjectName, TrustedCa};

/// What a policy may hold for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Backend<'a> {
    /// A port of a Service and its name.
    Service(&'a ServicePort, &'a str),
    Pool(&'a ObjectName),
}

impl Backend<'_> {
    fn namespace(&self) -> &str {
        match self {
            Self::Service(port, _) => &port.name.namespace,
            Self::Pool(name) => &name.namespace,
        }
    }

    /// Whether `target` means it, and if so, whether by its port.
    fn is_meant(&self, target: &BackendTlsTarget) -> Option<bool> {
        let (group, kind) = (target.group.as_str(), target.kind.as_str());
        let section = target.section_name.as_deref();
        match self {
            Self::Service(port, port_name) => {
                let meant = (group, kind) == ("", Kind::Service.as_str())
                    && *target.name == *port.name.name
                    && section.is_none_or(|section| section == *port_name);
                meant.then_some(section.is_some())
            }
            Self::Pool(name) => {
                let is_pool = [POOL_GROUP, POOL_GROUP_X].contains(&group)
                    && kind == Kind::InferencePool.as_str();
                (is_pool && *target.name == *name.name).then_some(false)
            }
        }
    }
}

/// The policy that holds for a backend.
fn holding<'a>(
    objects: &'a Objects,
    backend: Backend<'_>,
) -> Option<(&'a ObjectName, &'a Arc<BackendTlsPolicy>)> {
    let mut found: Vec<_> = objects
        .backend_tls_policies
        .iter()
        .filter(|(name, _)| *name.namespace == *backend.namespace())
        .filter_map(|(name, entry)| {
            let targets = entry.object.spec.target_refs.iter();
            let by_port = targets
                .filter_map(|target| backend.is_meant(target))
                .max()?;
            let rank = (!by_port, Age::of(&entry.object.metadata), name);
            Some((rank, (name, &entry.object)))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.into_iter().next().map(|(_, policy)| policy)
}

/// TLS towards a backend, with what we show it.
///
/// # Errors
/// Its policy cannot be used; why.
pub(super) fn resolve(
    objects: &Objects,
    backend: Backend<'_>,
    shown: Option<&CertificatePem>,
) -> Result<Option<Arc<BackendTls>>, String> {
    let Some((name, policy)) = holding(objects, backend) else {
        return Ok(None);
    };
    match lower(objects, name, policy) {
        Ok(tls) => Ok(Some(Arc::new(BackendTls {
            client_certificate: shown.cloned(),
            ..tls
        }))),
        Err((_, message)) => Err(format!("BackendTLSPolicy {name} cannot be used: {message}")),
    }
}

fn lower(
    objects: &Objects,
    name: &ObjectName,
    policy: &BackendTlsPolicy,
) -> Result<BackendTls, (Reason, String)> {
    let validation = &policy.spec.validation;
    let mut pem = String::new();
    for reference in &validation.ca_certificate_refs {
        let kind = (reference.group.as_str(), reference.kind.as_str());
        let name = ObjectName::new(&name.namespace, &reference.name);
        if !matches!(kind, ("", "ConfigMap" | "Secret")) {
            let message = format!("{} of group `{}` holds no authorities", kind.1, kind.0);
            return Err((Reason::InvalidKind, message));
        }
        let authority = certificates::authority(objects, kind, &name);
        pem.push_str(&authority.map_err(|message| (Reason::InvalidCACertificateRef, message))?);
        pem.push('\n');
    }
    let ca = match &validation.well_known_ca_certificates {
        _ if !pem.is_empty() => TrustedCa::Pem(pem),
        Some(WellKnownAuthorities::System) => TrustedCa::System,
        Some(other) => {
            let message = format!("there are no authorities known as `{}`", other.as_str());
            return Err((Reason::Invalid, message));
        }
        None => {
            let message = "the policy names no authority to trust".to_owned();
            return Err((Reason::Invalid, message));
        }
    };
    let mut subject_names = Vec::new();
    for subject in &validation.subject_alt_names {
        let (host, uri) = (subject.hostname.as_deref(), subject.uri.as_deref());
        subject_names.push(match (&subject.name_type, host, uri) {
            (SubjectAltNameType::Hostname, Some(host), None) => SubjectName::Host(host.into()),
            (SubjectAltNameType::Uri, None, Some(uri)) => SubjectName::Uri(uri.into()),
            _ => {
                let message = "a subject name is a `hostname` or a `uri`, as its type says";
                return Err((Reason::Invalid, message.to_owned()));
            }
        });
    }
    Ok(BackendTls {
        hostname: validation.hostname.as_str().into(),
        subject_names,
        ca,
        client_certificate: None,
    })
}

/// Statuses of the policies: by Gateway whose routes lead to what they hold for.
pub(super) fn report(
    objects: &Objects,
    linker: &Linker<'_>,
    gateways: &Gateways,
    statuses: &mut Statuses,
) {
    for (name, entry) in &objects.backend_tls_policies {
        let mut status = ObjectStatus::new(Kind::BackendTlsPolicy, name, entry.origin.as_ref());
        let mut users: FxHashSet<usize> = FxHashSet::default();
        for (backend, of_backend) in linker.backends() {
            let targets = &entry.object.spec.target_refs;
            let is_meant = *backend.namespace() == *name.namespace
                && targets
                    .iter()
                    .any(|target| backend.is_meant(target).is_some());
            if is_meant {
                users.extend(of_backend);
            }
        }
        let mut users: Vec<usize> = users.into_iter().collect();
        users.sort_unstable();
        let conditions = conditions(
            lower(objects, name, &entry.object).err(),
            stands_back(objects, name, &entry.object),
        );
        for gateway in users.iter().filter_map(|user| gateways.list.get(*user)) {
            status.parents.push(ParentStatus {
                gateway: gateway.name.clone(),
                section_name: None,
                port: None,
                reference: None,
                ours: true,
                conditions: conditions.clone(),
            });
        }
        statuses.objects.push(status);
    }
}

/// Whether an older policy has a target of this one, with the same `sectionName`.
fn stands_back(objects: &Objects, name: &ObjectName, policy: &BackendTlsPolicy) -> bool {
    let rank =
        |name, policy: &BackendTlsPolicy| (Age::of(&policy.metadata), ObjectName::clone(name));
    let own = rank(name, policy);
    objects
        .backend_tls_policies
        .iter()
        .filter(|(other, _)| other.namespace == name.namespace)
        .filter(|(other, entry)| rank(other, &entry.object) < own)
        .any(|(_, entry)| {
            let taken = &entry.object.spec.target_refs;
            let targets = &policy.spec.target_refs;
            targets.iter().any(|target| taken.contains(target))
        })
}

fn conditions(refusal: Option<(Reason, String)>, stands_back: bool) -> Vec<Condition> {
    let mut accepted = Condition::plain(ConditionType::Accepted, Truth::True, Reason::Accepted);
    let mut resolved = Condition::plain(
        ConditionType::ResolvedRefs,
        Truth::True,
        Reason::ResolvedRefs,
    );
    if stands_back {
        accepted.status = Truth::False;
        accepted.reason = Reason::Conflicted;
        accepted.message = "an earlier policy holds for the same backend".to_owned();
        accepted.path = "spec.targetRefs".to_owned();
    }
    if let Some((reason, message)) = refusal {
        accepted.status = Truth::False;
        accepted.path = "spec.validation".to_owned();
        accepted.message.clone_from(&message);
        if reason == Reason::Invalid {
            accepted.reason = Reason::Invalid;
        } else {
            accepted.reason = Reason::NoValidCACertificate;
            resolved.status = Truth::False;
            resolved.reason = reason;
            resolved.message = message;
            resolved.path = "spec.validation.caCertificateRefs".to_owned();
        }
    }
    vec![accepted, resolved]
}
