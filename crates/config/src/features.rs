//! The features of the Gateway API that Penstock claims, as a GatewayClass lists them.
//!
//! A feature stands here once its conformance tests pass; claiming it makes them run.

/// Names in ascending order, as the API asks.
pub const SUPPORTED_FEATURES: &[&str] = &["Gateway", "HTTPRoute", "ReferenceGrant"];

#[cfg(test)]
mod tests {
    #[test]
    fn features_are_sorted_and_named_once() {
        assert!(super::SUPPORTED_FEATURES.is_sorted_by(|a, b| a < b));
    }
}
