//! Where objects come from and statuses go.
//!
//! Never touches a request: losing a source changes nothing for traffic, since the last good
//! objects stay. Files are in [`files`], a cluster in [`kube`], and [`stream`] carries objects from a
//! controller to its proxies.

pub mod files;
pub mod kube;
pub mod stream;
