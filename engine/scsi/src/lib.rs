//! Sans-IO SCSI: CDBs, sense, LUN maps, unit attentions, task sets; SPC and SBC command families.
//!
//! A command is a state machine: [`Command::start`] looks at the CDB before any buffer is taken, [`Command::step`] takes
//! what happened; both answer with a [`Step`]. Bulk data never passes through here: the server moves it between store and
//! network for [`Step::Read`], [`Step::Write`] and [`Step::Compare`].
//!
//! Contract:
//! - A READ or WRITE costs no lock and no allocation here. Control commands may take the unit's mutex, for a moment.
//! - A change of a unit's state is visible on all cores before the command that made it answers [`Step::Done`].
//! - Whatever the CDB, the parameter data and the order of events: no panic. An event that doesn't fit ends the command
//!   with HARDWARE ERROR, INTERNAL TARGET FAILURE.
//! - The opcode table that dispatches is the one that REPORT SUPPORTED OPERATION CODES shows.
#![forbid(unsafe_code)]

mod access;
mod attention;
mod background;
mod cdb;
mod command;
mod copy;
mod counters;
pub mod fence;
mod identity;
mod lasting;
mod port;
mod profile;
mod readiness;
mod reservations;
mod sbc;
mod sense;
mod space;
mod spc;
mod status;
mod step;
mod table;
mod task_set;
mod unit;

pub use access::{AccessState, GroupAccess};
pub use attention::Attention;
pub use background::{Background, Chore};
pub use command::{Command, Context, Event, Moving, Outcome, Span, Step};
pub use copy::token::CopyManager;
pub use identity::Identity;
pub use lasting::{Lasting, Layout};
pub use port::{InitiatorPort, Path, PortId, TargetPort, WELL_KNOWN_REPORT_LUNS, lun_field, lun_number};
pub use profile::{Profile, Provisioning};
pub use reservations::Kept as KeptReservations;
pub use sbc::transfer::Transfer;
pub use sense::{Sense, SenseKey, Specific, asc};
pub use spc::mode_pages::Thresholds;
pub use status::Status;
pub use task_set::{Admit, Attribute, TaskSet};
pub use unit::{LogicalUnit, Nexus, UnitId};
