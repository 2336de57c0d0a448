//! SCSI commands, with their immediate and unsolicited data.

use crate::cdb::Cdb;
use crate::connection::{Connection, Handle, Pending, Task};
use crate::data_out::{Burst, DataOut, append_segment};
use crate::frame::append_header;
use crate::output::Output;
use wire::ahs::{self, Segment};
use wire::{BHS_LEN, RESERVED_TAG, ScsiCommand, TaskAttribute};

/// A SCSI command. Start from [`Command::none`], [`Command::read`] or [`Command::write`].
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Logical unit number as SAM has it: LUN 1 of a single level is `1 << 48`, see [`lun`].
    pub lun: u64,
    /// The CDB, or its first 16 bytes.
    pub cdb: Cdb,
    /// What follows of a CDB of more than 16 bytes: at most 244 bytes.
    pub extended_cdb: &'a [u8],
    /// Task attribute.
    pub attribute: TaskAttribute,
    /// For immediate delivery: outside of the CmdSN window.
    pub immediate: bool,
    /// Expected bytes of Data-In.
    pub read_length: u32,
    /// Expected bytes of Data-Out.
    pub write_length: u32,
    /// Most bytes of immediate data; `None`: what the negotiation allows.
    pub immediate_data: Option<u32>,
    /// Most bytes of unsolicited data, immediate data included; `None`: what the negotiation allows. Only that, or the
    /// immediate data alone, is legal (RFC 7143 11.3.4): anything between is for tests.
    pub unsolicited_data: Option<u32>,
}

/// The LUN field for a logical unit number below 16384 (SAM-5 4.7.7): peripheral addressing up to 255, then flat.
pub fn lun(number: u16) -> u64 {
    if number < 256 { u64::from(number) << 48 } else { u64::from(number & 0x3fff | 0x4000) << 48 }
}

impl<'a> Command<'a> {
    /// A command without data for LUN 0, SIMPLE.
    pub fn none(cdb: Cdb) -> Command<'a> {
        Command {
            lun: 0,
            cdb,
            extended_cdb: &[],
            attribute: TaskAttribute::Simple,
            immediate: false,
            read_length: 0,
            write_length: 0,
            immediate_data: None,
            unsolicited_data: None,
        }
    }

    /// A command that expects `length` bytes.
    pub fn read(cdb: Cdb, length: u32) -> Command<'a> {
        Command { read_length: length, ..Command::none(cdb) }
    }

    /// A command that sends `length` bytes.
    pub fn write(cdb: Cdb, length: u32) -> Command<'a> {
        Command { write_length: length, ..Command::none(cdb) }
    }

    /// The same for another logical unit (see [`lun`]).
    #[must_use]
    pub fn to_lun(mut self, lun: u64) -> Command<'a> {
        self.lun = lun;
        self
    }
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The CmdSN window is closed.
    #[error("the command window is closed")]
    Full,
    /// All of [`Limits`](crate::Limits) are in use.
    #[error("no free task tag")]
    NoTag,
    /// The connection is over.
    #[error("the connection is closed")]
    Closed,
    /// Data or a CDB that does not fit into one PDU.
    #[error("too long for one PDU")]
    TooLong,
}

/// A command that was not sent, with the caller's part of it.
pub struct Refused<T> {
    /// Why.
    pub reason: SubmitError,
    /// What was to go with the command.
    pub user: T,
}

impl<T> std::fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> Connection<T> {
    /// Refuses what can't be sent now.
    pub(crate) fn check(&self, immediate: bool) -> Result<(), SubmitError> {
        if self.closed.is_some() {
            Err(SubmitError::Closed)
        } else if !immediate && !self.window.is_open() {
            Err(SubmitError::Full)
        } else if self.tags.is_full() {
            Err(SubmitError::NoTag)
        } else {
            Ok(())
        }
    }
}

impl<T: DataOut> Connection<T> {
    /// Sends a command with its immediate and unsolicited data, appended to `out`. Its end is an
    /// [`Event::Response`](crate::Event::Response), which gives `user` back.
    pub fn submit(&mut self, command: &Command<'_>, user: T, out: &mut impl Output) -> Result<Handle, Refused<T>> {
        if let Err(reason) = self.check(command.immediate) {
            return Err(Refused { reason, user });
        }
        if self.commands >= self.limits.tasks {
            return Err(Refused { reason: SubmitError::NoTag, user });
        }
        let Ok(ahs) = additional_segments(command) else {
            return Err(Refused { reason: SubmitError::TooLong, user });
        };
        let (immediate_data, unsolicited) = self.unsolicited(command);
        let cmd_sn = self.window.cmd_sn;
        let task = Task {
            user,
            lun: command.lun,
            cmd_sn,
            read_length: command.read_length,
            write_length: command.write_length,
            received: 0,
            sequence: 0,
            data_sn: 0,
            r2t_open: 0,
            solicited: unsolicited,
        };
        let Some(tag) = self.tags.insert(Pending::Command(task)) else {
            // Unreachable: `check` has seen a free tag, and the user's part is gone with the entry.
            unreachable!("a free tag was seen");
        };
        self.commands += 1;
        self.window.take(command.immediate);

        let write = command.write_length != 0;
        let mut header = [0; BHS_LEN];
        ScsiCommand {
            immediate: command.immediate,
            final_bit: unsolicited == immediate_data,
            read: command.read_length != 0,
            write,
            attribute: command.attribute,
            priority: 0,
            total_ahs_length: ahs.as_ref().map_or(0, ahs::Builder::total_ahs_length),
            data_segment_length: immediate_data,
            lun: command.lun,
            initiator_task_tag: tag,
            expected_data_transfer_length: if write { command.write_length } else { command.read_length },
            cmd_sn,
            exp_stat_sn: self.window.exp_stat_sn,
            cdb: command.cdb,
        }
        .emit(&mut header);
        append_header(out, &header, ahs.as_ref().map_or(&[], ahs::Builder::bytes), self.parameters.header_digest);
        if write {
            self.send_unsolicited(tag, immediate_data, unsolicited, out);
        }
        Ok(Handle(tag))
    }

    /// Bytes of immediate data, and of all unsolicited data (RFC 7143 13.10, 13.11, 13.14).
    fn unsolicited(&self, command: &Command<'_>) -> (u32, u32) {
        let parameters = &self.parameters;
        let first =
            command.write_length.min(parameters.first_burst_length).min(command.unsolicited_data.unwrap_or(u32::MAX));
        let immediate = if parameters.immediate_data {
            first.min(parameters.peer_max_recv_data_segment_length).min(command.immediate_data.unwrap_or(u32::MAX))
        } else {
            0
        };
        (immediate, if parameters.initial_r2t { immediate } else { first })
    }

    fn send_unsolicited(&mut self, tag: u32, immediate_data: u32, unsolicited: u32, out: &mut impl Output) {
        if immediate_data != 0
            && let Some(Pending::Command(task)) = self.tags.get(tag)
        {
            append_segment(&task.user, 0, immediate_data, self.parameters.data_digest, out);
        }
        if unsolicited > immediate_data {
            self.bursts.push_back(Burst {
                tag,
                target_transfer_tag: RESERVED_TAG,
                offset: immediate_data,
                end: unsolicited,
                data_sn: 0,
            });
            self.pump(out);
        }
    }
}

/// Extended CDB and bidirectional read length (RFC 7143 11.2.2); most commands have none.
fn additional_segments(command: &Command<'_>) -> Result<Option<ahs::Builder>, ahs::AhsError> {
    let bidirectional = command.read_length != 0 && command.write_length != 0;
    if !bidirectional && command.extended_cdb.is_empty() {
        return Ok(None);
    }
    let mut builder = ahs::Builder::new();
    if !command.extended_cdb.is_empty() {
        builder.push(Segment::ExtendedCdb(command.extended_cdb))?;
    }
    if bidirectional {
        builder.push(Segment::BidirectionalReadLength(command.read_length))?;
    }
    Ok(Some(builder))
}
