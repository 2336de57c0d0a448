//! The program that people run.
fn main() {}
