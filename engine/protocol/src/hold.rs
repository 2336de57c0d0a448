//! What arrived ahead of its turn, by CmdSN. It exists only while something is held.

use crate::task::TaskKey;

/// Bytes of data segments that a session keeps with PDUs that are ahead.
pub(crate) const MAX_HELD_BYTES: usize = 16384;

/// Something that arrived ahead of its turn.
#[derive(Debug)]
pub(crate) enum Held {
    /// A SCSI command; its task is in the slab.
    Task(TaskKey),
    /// Another request with its data segment.
    Pdu(Box<([u8; 48], Vec<u8>)>),
    /// To be skipped: answered already, aborted, or taken as received.
    Gone,
}

/// Ring of what is held: CmdSN modulo its size, which is a power of two not below the window.
#[derive(Debug)]
pub(crate) struct Hold {
    slots: Box<[Option<Held>]>,
    used: u32,
    bytes: usize,
}

impl Hold {
    pub(crate) fn new(window: u32) -> Hold {
        Hold { slots: (0..window.next_power_of_two()).map(|_| None).collect(), used: 0, bytes: 0 }
    }

    fn slot(&self, cmd_sn: u32) -> usize {
        cmd_sn as usize & (self.slots.len() - 1)
    }

    /// Only CmdSNs of the window may be asked for.
    pub(crate) fn holds(&self, cmd_sn: u32) -> bool {
        self.slots[self.slot(cmd_sn)].is_some()
    }

    pub(crate) fn keep(&mut self, cmd_sn: u32, held: Held) {
        let slot = self.slot(cmd_sn);
        if let Held::Pdu(pdu) = &held {
            self.bytes += pdu.1.len();
        }
        if self.slots[slot].replace(held).is_none() {
            self.used += 1;
        }
    }

    pub(crate) fn take(&mut self, cmd_sn: u32) -> Option<Held> {
        let slot = self.slot(cmd_sn);
        let held = self.slots[slot].take()?;
        self.used -= 1;
        if let Held::Pdu(pdu) = &held {
            self.bytes -= pdu.1.len();
        }
        Some(held)
    }

    /// A held task was retired: its turn is skipped.
    pub(crate) fn abandon(&mut self, cmd_sn: u32) {
        let slot = self.slot(cmd_sn);
        if matches!(self.slots[slot], Some(Held::Task(_))) {
            self.slots[slot] = Some(Held::Gone);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(crate) fn room(&self) -> usize {
        MAX_HELD_BYTES.saturating_sub(self.bytes)
    }
}
