//! Checks of logical block ranges (SBC-3 4.5).

use crate::{
    cdb::Cdb,
    command::Span,
    sense::{Sense, asc},
    unit::LogicalUnit,
};

/// LBA and number of blocks as a CDB gives them, and where.
#[derive(Clone, Copy)]
pub(crate) struct Blocks {
    pub lba: u64,
    pub count: u64,
    /// Byte of the CDB where the number begins.
    count_at: u8,
}

impl Blocks {
    /// Of a CDB of 6 bytes: 0 means 256 blocks (SBC-3 5.9).
    #[inline]
    pub fn of_6(cdb: &Cdb) -> Blocks {
        let count = match cdb.byte(4) {
            0 => 256,
            count => u64::from(count),
        };
        Blocks { lba: u64::from(cdb.u24(1) & 0x1F_FFFF), count, count_at: 4 }
    }

    /// Of a CDB of 10 bytes.
    #[inline]
    pub fn of_10(cdb: &Cdb) -> Blocks {
        Blocks { lba: u64::from(cdb.u32(2)), count: u64::from(cdb.u16(7)), count_at: 7 }
    }

    /// Of a CDB of 12 bytes.
    #[inline]
    pub fn of_12(cdb: &Cdb) -> Blocks {
        Blocks { lba: u64::from(cdb.u32(2)), count: u64::from(cdb.u32(6)), count_at: 6 }
    }

    /// Of a CDB of 16 bytes.
    #[inline]
    pub fn of_16(cdb: &Cdb) -> Blocks {
        Blocks { lba: cdb.u64(2), count: u64::from(cdb.u32(10)), count_at: 10 }
    }

    /// Of a CDB of 32 bytes.
    pub fn of_32(cdb: &Cdb) -> Blocks {
        Blocks { lba: cdb.u64(12), count: u64::from(cdb.u32(28)), count_at: 28 }
    }

    /// Of a CDB of 16 bytes with a count of one byte.
    pub fn of_one_byte(cdb: &Cdb, count_at: u8) -> Blocks {
        Blocks { lba: cdb.u64(2), count: u64::from(cdb.byte(usize::from(count_at))), count_at }
    }

    /// Of a CDB of 16 bytes with a count of two bytes.
    pub fn of_two_bytes(cdb: &Cdb, count_at: u8) -> Blocks {
        Blocks { lba: cdb.u64(2), count: u64::from(cdb.u16(usize::from(count_at))), count_at }
    }

    /// Every block exists; the first one has to exist even when there are none (SBC-3 4.5, and what libiscsi tests).
    #[inline]
    pub fn check(&self, unit: &LogicalUnit) -> Result<(), Sense> {
        let blocks = unit.blocks();
        if self.lba >= blocks || self.count > blocks - self.lba {
            return Err(out_of_range(self.lba.max(blocks)));
        }
        Ok(())
    }

    /// INVALID FIELD IN CDB at the number of blocks.
    #[cold]
    pub fn count_refused(&self) -> Sense {
        Sense::field_in_cdb(u16::from(self.count_at), None)
    }

    /// The range for a transfer; None when there is nothing to transfer. Refuses more than MAXIMUM TRANSFER LENGTH.
    #[inline]
    pub fn transfer(&self, unit: &LogicalUnit) -> Result<Option<Span>, Sense> {
        self.check(unit)?;
        if self.count > u64::from(unit.max_transfer() >> unit.block_shift()) {
            return Err(self.count_refused());
        }
        if self.count == 0 {
            return Ok(None);
        }
        let offset = self.lba << unit.block_shift();
        Ok(Some(Span { offset, length: (self.count as u32) << unit.block_shift() }))
    }

    /// The range in bytes: offset and length. Only after [`Blocks::check`].
    pub fn bytes(&self, unit: &LogicalUnit) -> (u64, u64) {
        (self.lba << unit.block_shift(), self.count << unit.block_shift())
    }
}

/// LOGICAL BLOCK ADDRESS OUT OF RANGE, with the first LBA that doesn't exist.
#[cold]
pub(crate) fn out_of_range(lba: u64) -> Sense {
    Sense::illegal(asc::LBA_OUT_OF_RANGE).with_information(lba)
}
