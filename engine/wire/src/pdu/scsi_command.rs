//! SCSI Command (RFC 7143 11.3, RFC 7144).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

code_enum! {
    /// Task attribute, the ATTR field (RFC 7143 11.3.1).
    pub enum TaskAttribute: u8 {
        /// Untagged.
        Untagged = 0 => "untagged",
        /// Simple.
        Simple = 1 => "simple",
        /// Ordered.
        Ordered = 2 => "ordered",
        /// Head of queue.
        HeadOfQueue = 3 => "head of queue",
        /// ACA.
        Aca = 4 => "ACA",
    }
}

const READ: u8 = 0x40;
const WRITE: u8 = 0x20;
const ATTRIBUTE: u8 = 0x07;

/// SCSI Command (RFC 7143 11.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScsiCommand {
    /// I: for immediate delivery.
    pub immediate: bool,
    /// F: no unsolicited Data-Out follows. Always set without `write`.
    pub final_bit: bool,
    /// R: data goes to the initiator.
    pub read: bool,
    /// W: data comes from the initiator.
    pub write: bool,
    /// ATTR.
    pub attribute: TaskAttribute,
    /// PRI, the command priority of RFC 7144: 0..=15, 0 is "none".
    pub priority: u8,
    /// In words of four bytes, as on the wire.
    pub total_ahs_length: u8,
    /// Bytes of immediate data.
    pub data_segment_length: u32,
    /// Logical unit.
    pub lun: u64,
    /// Never the reserved tag.
    pub initiator_task_tag: u32,
    /// Bytes; of the write when both R and W are set.
    pub expected_data_transfer_length: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// The CDB, or the first 16 bytes of it when there is an extended CDB segment.
    pub cdb: [u8; 16],
}

impl ScsiCommand {
    /// A SIMPLE command to LUN 0 that moves no data. ExpStatSN is left at 0: it is the sender's to fill in.
    #[inline]
    pub fn simple(initiator_task_tag: u32, cmd_sn: u32, cdb: [u8; 16]) -> ScsiCommand {
        ScsiCommand {
            immediate: false,
            final_bit: true,
            read: false,
            write: false,
            attribute: TaskAttribute::Simple,
            priority: 0,
            total_ahs_length: 0,
            data_segment_length: 0,
            lun: 0,
            initiator_task_tag,
            expected_data_transfer_length: 0,
            cmd_sn,
            exp_stat_sn: 0,
            cdb,
        }
    }

    /// Parses the header. Refuses F and W both 0 (11.3.1) and the reserved Initiator Task Tag.
    #[inline]
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<ScsiCommand, ParseError> {
        expect(header, Opcode::ScsiCommand)?;
        let flags = header[1];
        let initiator_task_tag = u32_at(header, 16);
        forbid(flags & (FINAL | WRITE) == 0, Opcode::ScsiCommand, "W and F are both 0")?;
        forbid(initiator_task_tag == RESERVED_TAG, Opcode::ScsiCommand, "the Initiator Task Tag is the reserved one")?;
        let mut cdb = [0; 16];
        cdb.copy_from_slice(&header[32..48]);
        Ok(ScsiCommand {
            immediate: header[0] & IMMEDIATE != 0,
            final_bit: flags & FINAL != 0,
            read: flags & READ != 0,
            write: flags & WRITE != 0,
            attribute: TaskAttribute::from_code(flags & ATTRIBUTE),
            priority: header[2] >> 4,
            total_ahs_length: header[4],
            data_segment_length: u24_at(header, 5),
            lun: u64_at(header, 8),
            initiator_task_tag,
            expected_data_transfer_length: u32_at(header, 20),
            cmd_sn: u32_at(header, 24),
            exp_stat_sn: u32_at(header, 28),
            cdb,
        })
    }

    /// Writes all 48 bytes.
    #[inline]
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        header[0] = Opcode::ScsiCommand.code() | bit(self.immediate, IMMEDIATE);
        header[1] = bit(self.final_bit, FINAL)
            | bit(self.read, READ)
            | bit(self.write, WRITE)
            | (self.attribute.code() & ATTRIBUTE);
        header[2] = self.priority << 4;
        header[3] = 0;
        header[4] = self.total_ahs_length;
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.expected_data_transfer_length);
        put_u32(header, 24, self.cmd_sn);
        put_u32(header, 28, self.exp_stat_sn);
        header[32..48].copy_from_slice(&self.cdb);
    }
}

impl fmt::Display for ScsiCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SCSI Command{} {} lun={} itt={} edtl={} cmd_sn={} exp_stat_sn={} cdb={}",
            Flags([("I", self.immediate), ("F", self.final_bit), ("R", self.read), ("W", self.write)]),
            self.attribute,
            Lun(self.lun),
            Tag(self.initiator_task_tag),
            self.expected_data_transfer_length,
            self.cmd_sn,
            self.exp_stat_sn,
            Hex(&self.cdb),
        )?;
        if self.priority != 0 {
            write!(f, " priority={}", self.priority)?;
        }
        if self.total_ahs_length != 0 {
            write!(f, " ahs={}", usize::from(self.total_ahs_length) * 4)?;
        }
        write!(f, " data={}", self.data_segment_length)
    }
}
