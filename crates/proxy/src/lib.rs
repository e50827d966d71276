//! Moves bytes and owns sockets.
