//! The simulator's engine in real time behind HTTP, with faults on demand.
