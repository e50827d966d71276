//! Who writes: one replica holds a Lease and renews it; the others take it over once it has run out.
//!
//! Whether it has run out is told by this process's own clock since the Lease was last seen to change,
//! never by comparing clocks of two machines. A leader that cannot renew stops writing before another
//! may begin.

use super::KubeError;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const VALID: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(2);
/// A leader that could not renew for this long stops writing.
const DOUBT: Duration = Duration::from_secs(7);
const DEADLINE: Duration = Duration::from_secs(3);

/// Who leads, as this replica knows it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Whether this replica does.
    pub leads: bool,
    /// Identity of who does.
    pub holder: Option<String>,
}

impl Leadership {
    /// Where the object stream of another replica that leads is.
    pub fn elsewhere(&self) -> Option<String> {
        let holder = self.holder.as_ref().filter(|_| !self.leads)?;
        let (_, address) = holder.rsplit_once('_')?;
        Some(address.to_owned())
    }
}

/// Takes part in the election until `stop`; then gives the Lease up.
pub(super) async fn elect(
    client: Client,
    (namespace, name, identity): (String, String, String),
    leadership: watch::Sender<Leadership>,
    stop: CancellationToken,
) {
    let mut candidate = Candidate {
        api: Api::namespaced(client, &namespace),
        name,
        identity,
        seen: None,
        renewed: None,
        holder: None,
    };
    loop {
        let attempt = tokio::time::timeout(DEADLINE, candidate.attempt()).await;
        let leading = match attempt {
            Ok(Ok(leading)) => leading,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease cannot be read or written");
                candidate.still_leads()
            }
            Err(_) => candidate.still_leads(),
        };
        let now = Leadership {
            leads: leading,
            holder: candidate.holder.clone(),
        };
        leadership.send_if_modified(|before| {
            let is_new = *before != now;
            *before = now;
            is_new
        });
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RENEW) => {}
        }
    }
    leadership.send_replace(Leadership::default());
    if candidate.renewed.is_some() {
        let _ = tokio::time::timeout(DEADLINE, candidate.release()).await;
    }
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// Version of the Lease when it last changed, and when that was seen.
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
    holder: Option<String>,
}

impl Candidate {
    fn still_leads(&mut self) -> bool {
        let leads = self
            .renewed
            .is_some_and(|renewed| renewed.elapsed() < DOUBT);
        if !leads {
            self.renewed = None;
        }
        leads
    }

    /// Takes or renews the Lease if that is possible; whether this process holds it then.
    async fn attempt(&mut self) -> Result<bool, KubeError> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = self.filled(Lease::default(), true);
            return self.settled(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref());
        let mine = holder == Some(&self.identity);
        self.holder = holder
            .filter(|holder| !holder.is_empty())
            .map(str::to_owned);
        let free = holder.is_none_or(str::is_empty);
        let run_out = self
            .seen
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() > VALID);
        if !(mine || free || run_out) {
            self.renewed = None;
            return Ok(false);
        }
        let lease = self.filled(lease, !mine);
        self.settled(
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await,
        )
    }

    /// Somebody else was faster: no error.
    fn settled(&mut self, written: Result<Lease, kube::Error>) -> Result<bool, KubeError> {
        match written {
            Ok(_) => {
                self.renewed = Some(Instant::now());
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(self.still_leads()),
            Err(error) => Err(error.into()),
        }
    }

    fn filled(&self, mut lease: Lease, is_new_holder: bool) -> Lease {
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        let mut spec: LeaseSpec = lease.spec.take().unwrap_or_default();
        if is_new_holder {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(-1) + 1);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(VALID.as_secs()).ok();
        spec.renew_time = Some(now);
        lease.metadata = ObjectMeta {
            name: Some(self.name.clone()),
            ..lease.metadata
        };
        lease.spec = Some(spec);
        lease
    }

    async fn release(&self) -> Result<(), KubeError> {
        let mut lease = self.api.get(&self.name).await?;
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(&self.identity)
        {
            spec.holder_identity = Some(String::new());
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }
}
