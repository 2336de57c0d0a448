//! Simulations of the whole data path: initiators, data cores, file stores, on simulated sockets, files and time. Every
//! run is decided by its seed, which a failure names; `RINGLUN_SEED=n` runs it alone.

mod background;
mod client;
mod copy_ends;
mod copying;
mod dice;
mod exhaustion;
mod house;
mod management;
mod model;
mod multicore;
mod orwrite;
mod power_cut;
mod random;
mod reservations;
mod roster;
mod saved;
mod sequences;
mod tokens;
