//! Messages between the control thread and the data cores, and between the cores.

use crate::lasting::Keeper;
use crossbeam::queue::SegQueue;
use negotiation::Parameters;
use protocol::CloseReason;
use reactor::Wake;
use scsi::{InitiatorPort, LogicalUnit, TargetPort};
use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
};

/// A session's number in the process: never used twice.
pub type SessionId = u64;

/// Who a session is, as the control thread and the logs know it.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Number of the session.
    pub id: SessionId,
    /// InitiatorName and ISID.
    pub initiator: Arc<InitiatorPort>,
    /// TargetName.
    pub target: Arc<str>,
    /// The peer.
    pub address: SocketAddr,
}

/// A logged-in session on its way to a core: plain values, without the socket.
pub struct Handover {
    /// Who it is.
    pub identity: Installed,
    /// CID of the connection.
    pub cid: u16,
    /// What login agreed on.
    pub parameters: Parameters,
    /// CmdSN of the first command.
    pub exp_cmd_sn: u32,
    /// StatSN of the first response after the login.
    pub stat_sn: u32,
    /// Where it logged in to.
    pub port: Arc<TargetPort>,
    /// The final Login Response: sent by the core once the session is installed.
    pub response: Vec<u8>,
    /// Answer to SendTargets in this session: its target with its addresses.
    pub addresses: Arc<[u8]>,
    /// Bytes that came behind the last login request.
    pub leftover: Vec<u8>,
}

/// What a session left behind when it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which.
    pub id: SessionId,
    /// Why.
    pub reason: CloseReason,
    /// Aborted writes of it are still in a store: its nexus has to come back to this core, which waits for them.
    pub late: bool,
}

/// To a data core.
pub enum ToCore {
    /// A new session.
    Install(OwnedFd, Box<Handover>),
    /// End a session (reinstatement, removal): its end is reported as ever.
    Close(SessionId, CloseReason),
    /// Ask all initiators to log out, then finish: [`ToControl::Drained`] is sent when no session is left, every
    /// store is flushed and the core has ended.
    Drain {
        /// Seconds that initiators are given.
        seconds: u16,
    },
    /// Abandon what is left of a drain.
    Stop,
    /// A unit comes: its queue is to be made. Answered by [`ToControl::Added`]; no LUN map shows it before all cores
    /// have.
    Add {
        /// Its position in every core's list, free or behind the last.
        slot: u16,
        /// Open.
        store: Arc<backstore::Store>,
        /// The unit.
        unit: Arc<LogicalUnit>,
        /// Keeps its lasting state.
        keeper: Option<Arc<dyn Keeper>>,
    },
    /// Sessions of this target and portal group see these LUNs from now on.
    Remap(Arc<TargetPort>),
    /// A unit goes that no LUN map shows any more: when its commands have ended it is flushed, and its queue closed.
    /// Answered by [`ToControl::Removed`].
    Remove {
        /// Its position.
        slot: u16,
    },
    /// From another core.
    Core(FromCore),
}

/// From a core to another.
pub enum FromCore {
    /// Abort all tasks of a logical unit; answer with `ResetDone`.
    Reset {
        /// The asking core.
        core: u16,
        /// Its record of the task management function.
        management: u32,
        /// Units, by position.
        units: Arc<[u16]>,
        /// TARGET COLD RESET: their sessions are closed too.
        close: Option<Arc<str>>,
    },
    /// Abort the tasks that some nexuses have on a unit (PREEMPT AND ABORT); answer with `ResetDone`.
    Abort {
        /// The asking core.
        core: u16,
        /// Its record of the abort.
        management: u32,
        /// The unit, by position.
        unit: u16,
        /// Whose tasks.
        nexuses: Arc<[scsi::Path]>,
    },
    /// All of them have ended here.
    ResetDone {
        /// The asker's record.
        management: u32,
    },
    /// The fence of a unit (ARCHITECTURE.md).
    Fence(crate::core::fencing::FenceMail),
    /// What a unit does by itself.
    Chore(crate::core::chores::ChoreMail),
    /// Somebody waits to write to a unit of which the other core may have lent blocks to its readers; answer with `Returned`
    /// when it has not.
    Recall {
        /// The unit, by position.
        unit: u16,
        /// The asking core.
        core: u16,
    },
    /// Nothing of the unit is lent there any more.
    Returned {
        /// The unit, by position.
        unit: u16,
    },
}

/// To the control thread.
pub enum ToControl {
    /// A session has ended on this core, with its socket closed.
    Ended {
        /// The core.
        core: u16,
        /// Which and why.
        ended: Ended,
    },
    /// The core has a queue for a new unit, or why not.
    Added {
        /// The core.
        core: u16,
        /// Position of the unit.
        slot: u16,
        /// What stands in the way.
        result: Result<(), String>,
    },
    /// The core has nothing of a unit any more.
    Removed {
        /// The core.
        core: u16,
        /// Position of the unit.
        slot: u16,
        /// What could not be made durable.
        failure: Option<String>,
    },
    /// The core is empty and flushed, and its thread ends with the last core's. An error: a store could not be
    /// flushed, or the core itself has failed.
    Drained {
        /// The core.
        core: u16,
        /// Sessions that had to be cut off.
        cut: u32,
        /// What could not be made durable.
        failures: Vec<String>,
    },
}

/// Letter boxes of all cores. A message to a core is put in its box, then its reactor is woken.
///
/// The boxes need no bound of their own: a session has at most one handover and one close under way, a task at most
/// one fence, a session a bounded number of task management functions, a unit one recall to each other core.
pub struct Post<W> {
    boxes: Vec<(SegQueue<ToCore>, W)>,
    control: SegQueue<ToControl>,
    bell: Box<dyn Fn() + Send + Sync>,
    /// Commands of each core in its last second: for placing sessions, nothing hangs on them.
    rates: Box<[AtomicU32]>,
    /// Cores that have nothing left to do for themselves.
    drained: AtomicU16,
}

impl<W: Wake> Post<W> {
    /// Boxes for the cores with these wakers; `bell` wakes the control thread.
    pub fn new(wakers: Vec<W>, bell: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            rates: wakers.iter().map(|_| AtomicU32::new(0)).collect(),
            boxes: wakers.into_iter().map(|w| (SegQueue::new(), w)).collect(),
            control: SegQueue::new(),
            bell: Box::new(bell),
            drained: AtomicU16::new(0),
        })
    }

    /// A core says how many commands it had in a second. Once a second, so that the line is hardly ever contended.
    pub fn say_rate(&self, core: u16, commands: u32) {
        self.rates[core as usize].store(commands, Ordering::Relaxed);
    }

    /// What each core has said last.
    pub fn rates(&self) -> impl Iterator<Item = u32> {
        self.rates.iter().map(|rate| rate.load(Ordering::Relaxed))
    }

    /// Number of cores.
    pub fn cores(&self) -> u16 {
        self.boxes.len() as u16
    }

    /// Puts a message into a core's box and wakes it.
    pub fn send(&self, core: u16, message: ToCore) {
        // Whoever reads this may look at what this core has written.
        memory::settle();
        let (queue, waker) = &self.boxes[core as usize];
        queue.push(message);
        waker.wake();
    }

    /// The next message for a core.
    pub fn receive(&self, core: u16) -> Option<ToCore> {
        self.boxes[core as usize].0.pop()
    }

    /// Tells the control thread.
    pub fn report(&self, message: ToControl) {
        let drained = matches!(message, ToControl::Drained { .. });
        self.control.push(message);
        (self.bell)();
        if drained {
            self.drained.fetch_add(1, Ordering::AcqRel);
            for (_, waker) in &self.boxes {
                waker.wake();
            }
        }
    }

    /// Whether every core is drained: until then each still answers the others (fences, resets).
    pub fn all_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire) >= self.cores()
    }

    /// The next message for the control thread.
    pub fn reported(&self) -> Option<ToControl> {
        self.control.pop()
    }
}
