//! What became of each object, in the API's own words: condition types, reasons, messages.
//!
//! A condition points into its object by field path; file, line and column are looked up only when
//! printed. `Programmed` is never true before a proxy said that it serves (`status/programmed.rs`).

use std::fmt;

use serde::{Serialize, Serializer};

use crate::name::ObjectName;
use crate::objects::{Kind, Origin};

mod programmed;
pub use programmed::{ListenerReport, SocketState};

/// True, false or not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It is not known.
    Unknown,
}

/// Types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ConditionType {
    /// The object is taken on.
    Accepted,
    /// It is served.
    Programmed,
    /// What it refers to exists and may be used.
    ResolvedRefs,
    /// Some rules are left out.
    PartiallyInvalid,
    /// Another listener or object stands in its way.
    Conflicted,
    /// Clients are let in without a certificate that was checked.
    InsecureFrontendValidationMode,
}

/// Reasons, as the API spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "reasons are documented by the API")]
pub enum Reason {
    Accepted,
    Programmed,
    ResolvedRefs,
    NoConflicts,
    Pending,
    Invalid,
    ListenersNotValid,
    InvalidParameters,
    UnsupportedAddress,
    AddressNotUsable,
    AddressNotAssigned,
    PortUnavailable,
    UnsupportedProtocol,
    UnsupportedValue,
    InvalidRouteKinds,
    InvalidCertificateRef,
    InvalidClientCertificateRef,
    InvalidCACertificateRef,
    InvalidCACertificateKind,
    ConfigurationChanged,
    NoValidCACertificate,
    HostnameConflict,
    ProtocolConflict,
    NoMatchingParent,
    NotAllowedByListeners,
    NoMatchingListenerHostname,
    BackendNotFound,
    InvalidKind,
    RefNotPermitted,
    #[serde(rename = "HTTPRouteNotAccepted")]
    HttpRouteNotAccepted,
    InvalidExtensionRef,
    ModelNameInUse,
    TargetNotFound,
    Conflicted,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub condition_type: ConditionType,
    /// Whether it holds.
    pub status: Truth,
    /// Why.
    pub reason: Reason,
    /// Why, in words; lowercase, without full stop.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Field that it is about, such as `spec.rules[0].backendRefs[1]`; empty for the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl Condition {
    /// A condition that holds or does not know yet; nothing to report.
    pub(crate) fn plain(condition_type: ConditionType, status: Truth, reason: Reason) -> Self {
        Self {
            condition_type,
            status,
            reason,
            message: String::new(),
            path: String::new(),
        }
    }

    /// Whether somebody should look at it.
    pub fn is_problem(&self) -> bool {
        match self.condition_type {
            ConditionType::PartiallyInvalid | ConditionType::Conflicted => {
                self.status == Truth::True
            }
            // Asked for, and worth knowing; nothing is wrong.
            ConditionType::InsecureFrontendValidationMode => false,
            ConditionType::Programmed => self.status == Truth::False,
            ConditionType::Accepted if self.reason == Reason::ListenersNotValid => true,
            _ => self.status != Truth::True,
        }
    }
}

/// Conditions towards one parent: a Gateway of a route or of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParentStatus {
    /// The Gateway.
    pub gateway: ObjectName,
    /// Listener that the reference names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Port that the reference names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Position in the route's `parentRefs`; `None` for pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<u32>,
    /// Whether the Gateway exists and is ours: otherwise no status is written to the object.
    pub ours: bool,
    /// What holds.
    pub conditions: Vec<Condition>,
}

/// Status of one listener of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Routes accepted on it.
    pub attached_routes: u32,
    /// Kinds of routes that may attach, of those asked for.
    pub supported_kinds: Vec<&'static str>,
    /// What holds.
    pub conditions: Vec<Condition>,
}

/// Status of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
    /// Where it was written.
    pub origin: Option<Origin>,
    /// Of the object itself.
    pub conditions: Vec<Condition>,
    /// By parent.
    pub parents: Vec<ParentStatus>,
    /// By listener.
    pub listeners: Vec<ListenerStatus>,
}

impl ObjectStatus {
    pub(crate) fn new(kind: Kind, name: &ObjectName, origin: Option<&Origin>) -> Self {
        Self {
            kind,
            name: name.clone(),
            origin: origin.cloned(),
            conditions: Vec::new(),
            parents: Vec::new(),
            listeners: Vec::new(),
        }
    }

    /// Every condition, with the parent or listener that it belongs to.
    pub fn all_conditions(&self) -> impl Iterator<Item = (String, &Condition)> {
        let own = self
            .conditions
            .iter()
            .map(|condition| (String::new(), condition));
        let parents = self.parents.iter().flat_map(|parent| {
            parent
                .conditions
                .iter()
                .map(|condition| (format!("for {}", parent.shown()), condition))
        });
        let listeners = self.listeners.iter().flat_map(|listener| {
            let name = format!("listener {}", listener.name);
            listener
                .conditions
                .iter()
                .map(move |condition| (name.clone(), condition))
        });
        own.chain(parents).chain(listeners)
    }
}

impl ParentStatus {
    fn shown(&self) -> String {
        match &self.section_name {
            Some(section) => format!("Gateway {} {section}", self.gateway),
            None => format!("Gateway {}", self.gateway),
        }
    }
}

impl Serialize for ObjectStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", self.kind.as_str())?;
        map.serialize_entry("name", &self.name)?;
        if let Some(origin) = &self.origin {
            map.serialize_entry("origin", &format!("{}:{}", origin.file, origin.line))?;
        }
        if !self.conditions.is_empty() {
            map.serialize_entry("conditions", &self.conditions)?;
        }
        if !self.parents.is_empty() {
            map.serialize_entry("parents", &self.parents)?;
        }
        if !self.listeners.is_empty() {
            map.serialize_entry("listeners", &self.listeners)?;
        }
        map.end()
    }
}

/// What became of every object that has a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Statuses {
    /// Kind by kind, in the order of the store.
    pub objects: Vec<ObjectStatus>,
}

/// A condition that somebody should look at, with its place.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// Kind and name of the object.
    pub object: String,
    /// Parent or listener; empty for the object itself.
    pub subject: String,
    /// The condition.
    pub condition: Condition,
    /// `file:line:column`, as far as known.
    pub place: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.object)?;
        if !self.subject.is_empty() {
            write!(f, " {}", self.subject)?;
        }
        let Condition {
            condition_type,
            status,
            reason,
            message,
            path,
        } = &self.condition;
        write!(f, ": {condition_type:?}={status:?} ({})", reason.as_str())?;
        if !path.is_empty() {
            write!(f, " {path}")?;
        }
        if message.is_empty() {
            Ok(())
        } else {
            write!(f, ": {message}")
        }
    }
}

impl Reason {
    /// The API's spelling.
    pub fn as_str(self) -> String {
        match self {
            Self::HttpRouteNotAccepted => "HTTPRouteNotAccepted".to_owned(),
            other => format!("{other:?}"),
        }
    }
}

impl Statuses {
    /// The status of one object.
    pub fn get(&self, kind: Kind, name: &ObjectName) -> Option<&ObjectStatus> {
        self.objects
            .iter()
            .find(|status| status.kind == kind && status.name == *name)
    }

    /// Everything that somebody should look at.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for status in &self.objects {
            for (subject, condition) in status.all_conditions() {
                if condition.is_problem() {
                    problems.push(Problem {
                        object: format!("{} {}", status.kind, status.name),
                        subject,
                        condition: condition.clone(),
                        place: status
                            .origin
                            .as_ref()
                            .map(|origin| origin.place(&condition.path)),
                    });
                }
            }
        }
        problems
    }
}

/// One line per object, then one per problem.
impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for status in &self.objects {
            let bad = status
                .all_conditions()
                .filter(|(_, condition)| condition.is_problem())
                .count();
            let word = if bad == 0 { "ok" } else { "problem" };
            writeln!(f, "{word:8}{} {}", status.kind, status.name)?;
        }
        self.problems()
            .iter()
            .try_for_each(|problem| writeln!(f, "{problem}"))
    }
}
