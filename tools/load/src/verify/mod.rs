//! `--verify`: every block that is written says where it belongs and which write it is from, and every block that is
//! read is held against that.
//!
//! What a block must hold is known in two ways. Blocks that this run has written (or one before, with
//! `--verify-file`) must hold exactly their last write. Of others only those are looked at that carry a stamp: they
//! must be whole, and where they belong.
//!
//! Memory: five bytes for each logical block of the range.

mod check;
mod file;
mod ledger;
mod stamp;
mod units;

pub use check::{Checker, Checks};
pub use ledger::Ledger;
pub use stamp::Stamping;
pub use units::Units;
