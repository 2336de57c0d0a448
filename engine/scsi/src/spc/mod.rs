//! Commands of every device type (SPC-4).

pub(crate) mod buffer;
pub(crate) mod diagnostic;
pub(crate) mod information;
pub(crate) mod inquiry;
pub(crate) mod log_pages;
pub(crate) mod luns;
pub(crate) mod mode_pages;
pub(crate) mod mode_select;
pub(crate) mod mode_sense;
pub(crate) mod opcodes;
pub(crate) mod persistent_reserve_in;
pub(crate) mod persistent_reserve_out;
pub(crate) mod port_groups;
pub(crate) mod reserve;
pub(crate) mod sense;
pub(crate) mod timestamp;
pub(crate) mod vpd;
pub(crate) mod well_known;
