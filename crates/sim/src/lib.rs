//! Discrete-event model of continuous-batching model servers.
