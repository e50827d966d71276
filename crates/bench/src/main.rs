//! The benchmark tools of Penstock.

fn main() {}
