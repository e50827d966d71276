//! Where objects come from and statuses go.
//!
//! Never touches a request: losing a source changes nothing for traffic, since the last good
//! objects stay. Files are in [`files`].

pub mod files;
