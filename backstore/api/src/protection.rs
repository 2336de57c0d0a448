//! Protection information (SBC-3 4.22): eight bytes beside each logical block, and what of them is checked.

/// Bytes of a tuple: LOGICAL BLOCK GUARD (2), APPLICATION TAG (2), REFERENCE TAG (4), big-endian.
pub const TUPLE: u32 = 8;

/// Type of protection that a medium is formatted with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// The reference tag is the lower half of the LBA.
    Type1,
    /// The reference tag is what the command says.
    Type2,
    /// The reference tag means nothing here.
    Type3,
}

impl Protection {
    /// As it is called: 1 to 3.
    pub const fn number(self) -> u8 {
        match self {
            Protection::Type1 => 1,
            Protection::Type2 => 2,
            Protection::Type3 => 3,
        }
    }
}

/// What is checked of the tuples that a request moves. All tuples are stored as they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checks {
    /// Bytes of a logical block, without its tuple.
    pub block_size: u32,
    /// The guard is the CRC of the block.
    pub guard: bool,
    /// The application tag, in the bits of the mask: tag, mask.
    pub application: Option<(u16, u16)>,
    /// The reference tag of the first block; each further one has one more.
    pub reference: Option<u32>,
}

impl Checks {
    /// Nothing is checked.
    pub const fn none(block_size: u32) -> Checks {
        Checks { block_size, guard: false, application: None, reference: None }
    }

    /// Bytes of a block with its tuple.
    pub const fn block_with_tuple(&self) -> u32 {
        self.block_size + TUPLE
    }

    /// Bytes of the medium behind so many bytes of blocks with their tuples.
    pub const fn on_medium(&self, with_tuples: u32) -> u32 {
        with_tuples / self.block_with_tuple() * self.block_size
    }

    /// The same checks for a later block.
    pub fn skip(mut self, blocks: u32) -> Checks {
        self.reference = self.reference.map(|tag| tag.wrapping_add(blocks));
        self
    }
}

/// A field of a tuple that is not what it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tag {
    /// LOGICAL BLOCK GUARD.
    Guard,
    /// LOGICAL BLOCK APPLICATION TAG.
    Application,
    /// LOGICAL BLOCK REFERENCE TAG.
    Reference,
}
