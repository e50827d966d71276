//! Kubernetes and Gateway API objects to one immutable snapshot and statuses.
