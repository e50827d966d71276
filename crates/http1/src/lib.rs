//! HTTP/1.1 on the wire: strict, sans I/O.
