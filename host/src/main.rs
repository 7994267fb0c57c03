//! The `tidewaiter` program: only wires.

fn main() {}
