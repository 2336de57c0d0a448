//! Criterion benches are in `benches/`, the comparison with another target in `compare`: see `README.md`.
