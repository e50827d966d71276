//! Which endpoint should serve a request, and when.
#![warn(missing_docs)]

pub mod endpoint;
pub mod models;
pub mod prefix;
