//! SNACK Request (RFC 7143 11.16).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError};
use core::fmt;

code_enum! {
    /// What a SNACK asks for (RFC 7143 11.16.1).
    pub enum SnackType: u8 {
        /// Data-In or R2T again.
        DataOrR2t = 0 => "Data/R2T",
        /// Status again.
        Status = 1 => "Status",
        /// Acknowledges Data-In.
        DataAck = 2 => "DataACK",
        /// Data-In again, cut anew.
        RData = 3 => "R-Data",
    }
}

/// SNACK Request (RFC 7143 11.16). Error recovery level 1 and 2 only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snack {
    /// Type, 0..=15.
    pub snack_type: SnackType,
    /// 0 by the RFC.
    pub data_segment_length: u32,
    /// Logical unit, for DataACK.
    pub lun: u64,
    /// The command's tag, or [`crate::RESERVED_TAG`] for Status and DataACK.
    pub initiator_task_tag: u32,
    /// Target Transfer Tag for DataACK, SNACK Tag for R-Data, else [`crate::RESERVED_TAG`].
    pub target_transfer_tag: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// First DataSN, R2TSN or StatSN that is missing; for DataACK the next that is expected.
    pub beg_run: u32,
    /// How many are missing; 0 means all from `beg_run` on.
    pub run_length: u32,
}

impl Snack {
    /// Parses the header.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<Snack, ParseError> {
        expect(header, Opcode::Snack)?;
        Ok(Snack {
            snack_type: SnackType::from_code(header[1] & 0x0f),
            data_segment_length: u24_at(header, 5),
            lun: u64_at(header, 8),
            initiator_task_tag: u32_at(header, 16),
            target_transfer_tag: u32_at(header, 20),
            exp_stat_sn: u32_at(header, 28),
            beg_run: u32_at(header, 40),
            run_length: u32_at(header, 44),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::Snack.code();
        header[1] = FINAL | (self.snack_type.code() & 0x0f);
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.target_transfer_tag);
        put_u32(header, 28, self.exp_stat_sn);
        put_u32(header, 40, self.beg_run);
        put_u32(header, 44, self.run_length);
    }
}

impl fmt::Display for Snack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SNACK Request {} lun={} itt={} ttt={} beg_run={} run_length={} exp_stat_sn={}",
            self.snack_type,
            Lun(self.lun),
            Tag(self.initiator_task_tag),
            Tag(self.target_transfer_tag),
            self.beg_run,
            self.run_length,
            self.exp_stat_sn
        )
    }
}
