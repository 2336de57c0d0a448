//! A SCSI task as iSCSI sees it: what was announced, what has moved, and what is still expected.

use memory::{Key, Slab};

/// A task's key in [`Tasks`].
pub type TaskKey = Key;

/// Tasks of all sessions of a core; the server keeps its own state in `T`. At most [`MAX_TASKS`] of its slots are
/// used. Tasks leave it through [`Connection::retire`](crate::Connection::retire) or
/// [`Session::retire`](crate::Session::retire) alone: the session's index of tags is kept there.
pub type Tasks<T> = Slab<Task<T>>;

/// Slots of a [`Tasks`] that can hold a task: a Target Transfer Tag has 20 bits for the slot.
pub const MAX_TASKS: u32 = TAG_SLOTS - 1;

/// R2Ts that one task may have outstanding, whatever was negotiated.
pub const MAX_OUTSTANDING_R2T: usize = 4;

const TAG_BITS: u32 = 20;
const TAG_SLOTS: u32 = 1 << TAG_BITS;

/// "No task": the end of a chain.
pub(crate) const NONE: u32 = u32::MAX;

/// A SCSI task: the protocol's part, and the server's part of it (`work`).
#[derive(Debug)]
pub struct Task<T> {
    /// The server's index of the session, as given to [`Session::new`](crate::Session::new).
    pub session: u32,
    /// Initiator Task Tag.
    pub initiator_task_tag: u32,
    /// Logical Unit Number, the 8 bytes of the header.
    pub lun: u64,
    /// Task attribute (RFC 7143 11.3.1.1): 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA.
    pub attribute: u8,
    /// Bytes that the initiator expects to read.
    pub read_length: u32,
    /// Bytes that the initiator expects to write.
    pub write_length: u32,
    pub(crate) cmd_sn: u32,
    /// Next task with the same hash of its tag.
    pub(crate) chain: u32,
    /// I bit: no place in the CmdSN order.
    pub(crate) immediate: bool,
    /// CmdSN ahead: not released yet.
    pub(crate) held: bool,
    /// Counted in the session's queue (delivered, no status sent).
    pub(crate) queued: bool,
    /// Status was sent.
    pub(crate) finished: bool,
    /// Unsolicited Data-Out PDUs are to come (no F bit yet).
    pub(crate) unsolicited_open: bool,
    /// `failure` was given to the server.
    pub(crate) failure_reported: bool,
    /// Outstanding R2Ts: `bursts[..outstanding]`, oldest first.
    pub(crate) outstanding: u8,
    /// ASC and ASCQ when its data is beyond repair.
    pub(crate) failure: Option<(u8, u8)>,
    /// Buffer offset of the next Data-In.
    pub(crate) read_offset: u32,
    /// Bytes of the current Data-In sequence.
    pub(crate) sequence: u32,
    /// DataSN of the next Data-In.
    pub(crate) data_sn: u32,
    /// R2TSN of the next R2T.
    pub(crate) r2t_sn: u32,
    /// Bytes of immediate and unsolicited data so far: offset of the next.
    pub(crate) unsolicited: u32,
    /// DataSN of the next unsolicited Data-Out.
    pub(crate) unsolicited_data_sn: u32,
    pub(crate) bursts: [Burst; MAX_OUTSTANDING_R2T],
    /// The server's.
    pub work: T,
}

/// An outstanding R2T.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Burst {
    pub tag: u32,
    /// Offset of the next byte.
    pub next: u32,
    /// Offset behind the last byte.
    pub end: u32,
    /// DataSN of the next Data-Out.
    pub data_sn: u32,
}

impl<T> Task<T> {
    /// CmdSN of the command.
    pub fn cmd_sn(&self) -> u32 {
        self.cmd_sn
    }

    /// The command was sent for immediate delivery.
    pub fn is_immediate(&self) -> bool {
        self.immediate
    }

    /// Its CmdSN is ahead: it must not be started before [`Event::Released`](crate::Event::Released).
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Status was sent; only [`retire`](crate::Connection::retire) is left.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Buffer offset of the next Data-In PDU: the bytes that were sent so far.
    pub fn data_in_offset(&self) -> u32 {
        self.read_offset
    }

    /// Bytes of immediate and unsolicited data that arrived or were announced: the first offset to solicit, once
    /// [`unsolicited_open`](Self::unsolicited_open) is false.
    pub fn unsolicited_bytes(&self) -> u32 {
        self.unsolicited
    }

    /// Unsolicited Data-Out PDUs are still to come.
    pub fn unsolicited_open(&self) -> bool {
        self.unsolicited_open
    }

    /// R2Ts that are not answered in full.
    pub fn outstanding_r2ts(&self) -> u32 {
        u32::from(self.outstanding)
    }

    /// The initiator still owes data: an unsolicited sequence is open or an R2T is outstanding. Until then the
    /// response to a failed command has to wait (RFC 7143 11.4, 11.17.1).
    pub fn expects_data(&self) -> bool {
        self.unsolicited_open || self.outstanding != 0
    }

    /// Position of an outstanding R2T in `bursts`.
    pub(crate) fn burst(&self, tag: u32) -> Option<usize> {
        self.bursts[..usize::from(self.outstanding)].iter().position(|burst| burst.tag == tag)
    }

    /// Takes an R2T off the list, in order.
    pub(crate) fn close_burst(&mut self, position: usize) {
        let outstanding = usize::from(self.outstanding);
        if position < outstanding {
            self.bursts.copy_within(position + 1..outstanding, position);
            self.outstanding -= 1;
        }
    }

    /// Notes the first failure of its data.
    pub(crate) fn fail(&mut self, failure: (u8, u8)) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
    }
}

/// Target Transfer Tag of a task's R2T number `r2t_sn`: the slot in the low 20 bits, above it what tells the task's
/// R2Ts, and the slot's tasks, apart. Never FFFFFFFFh, as slot FFFFFh is not used.
pub(crate) fn transfer_tag(task: TaskKey, r2t_sn: u32) -> u32 {
    let tag = task.generation.wrapping_mul(0x9E5).wrapping_add(r2t_sn);
    (tag << TAG_BITS) | (task.index & (TAG_SLOTS - 1))
}

/// Slot of a Target Transfer Tag.
pub(crate) fn transfer_slot(tag: u32) -> u32 {
    tag & (TAG_SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_tag_names_the_slot_and_is_never_reserved() {
        for (index, generation, r2t_sn) in [(0, 0, 0), (MAX_TASKS - 1, u32::MAX, u32::MAX), (77, 9, 4095)] {
            let tag = transfer_tag(Key { index, generation }, r2t_sn);
            assert_eq!(transfer_slot(tag), index);
            assert_ne!(tag, u32::MAX);
        }
    }

    #[test]
    fn transfer_tags_of_a_task_differ_for_as_long_as_several_are_outstanding() {
        let key = Key { index: 5, generation: 3 };
        let tags: std::collections::HashSet<u32> = (0..4096).map(|sn| transfer_tag(key, sn)).collect();
        assert_eq!(tags.len(), 4096);
        assert_ne!(transfer_tag(key, 0), transfer_tag(Key { index: 5, generation: 4 }, 0));
    }
}
