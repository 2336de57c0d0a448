//! A data core: everything that one thread does for its sessions and stores.
//!
//! [`Core::turn`] is the whole loop body: it lets the reactor work, hands completions to whom they belong, and flushes
//! what connections have to say. Generic over the reactor, so that the same code runs under the simulated one.

mod at_once;
pub mod chores;
mod comparing;
mod copying;
mod detaching;
pub mod fencing;
mod fetching;
mod finish;
mod flowing;
mod input;
mod lending;
mod link;
mod management;
mod measuring;
mod output;
mod preempting;
mod prompting;
mod receiving;
mod roster;
mod saving;
mod steps;
mod storing;
#[cfg(test)]
mod tests;
mod transfer;
mod unit;
mod work;

pub(crate) use lending::Terms;
pub(crate) use link::Link;
pub(crate) use receiving::Receiving;
pub use unit::Unit;

use crate::mail::{Ended, FromCore, Handover, Post, SessionId, ToControl, ToCore};
use management::Management;
use memory::{Ahead, Key, Slab};
use protocol::{CloseReason, TaskKey, Tasks};
use reactor::{Completion, Descriptor, Reactor, Wait};
use std::{collections::VecDeque, io, sync::Arc, time::Duration};
use tracing::{debug, info, warn};
use work::{Slot, Stage, Work};

/// Bounds of one core, from the config.
#[derive(Clone, Copy, Debug)]
pub struct CoreLimits {
    /// Sessions.
    pub sessions: u32,
    /// Commands that one session may have queued (MaxCmdSN window).
    pub window: u32,
    /// Tasks of all sessions.
    pub tasks: u32,
    /// A silent connection is pinged after this; zero: never.
    pub nop_interval: Duration,
    /// And closed when it does not answer within this.
    pub nop_timeout: Duration,
}

/// What a token of the reactor means: the upper four bits.
const KIND_SHIFT: u32 = 60;
const KIND_RECEIVE: u64 = 1;
const KIND_SEND: u64 = 2;
const KIND_STORE: u64 = 3;
const KIND_SAVE: u64 = 4;
const KIND_CHORE: u64 = 5;

/// A link's or task's token: 24 bits of index, 32 bits of generation.
fn link_token(kind: u64, key: Key) -> u64 {
    kind << KIND_SHIFT | u64::from(key.index & 0xff_ffff) << 32 | u64::from(key.generation)
}

fn link_key(token: u64) -> Key {
    Key { index: (token >> 32) as u32 & 0xff_ffff, generation: token as u32 }
}

/// The token base of a unit's queue: its own part is the lower 24 bits.
pub fn store_token_base(unit: u16) -> u64 {
    KIND_STORE << KIND_SHIFT | u64::from(unit) << 24
}

/// How often links are looked at for silence.
const TICK: Duration = Duration::from_secs(1);

/// Ticks that a closing link has to send what is left.
const LINGER_TICKS: u32 = 15;

/// State of a drain.
enum Drain {
    No,
    /// Initiators were asked to log out; cut off at this time.
    Asked(Duration),
    /// All stores are being flushed.
    Flushing,
    Done,
}

/// One data core.
pub struct Core<R: Reactor> {
    number: u16,
    limits: CoreLimits,
    pub(crate) reactor: R,
    post: Arc<Post<R::Waker>>,
    pub(crate) links: Slab<Link>,
    pub(crate) tasks: Tasks<Slot>,
    pub(crate) units: Vec<Unit<R>>,
    roster: roster::Roster,
    /// Memory of tasks that are gone: as many as there were at a time.
    #[allow(clippy::vec_box)] // the boxes are what is kept: they move into slots by pointer
    spare_work: Vec<Box<Work>>,
    /// Room for the buffers of receives: as often as there were some out at a time.
    spare_buffers: Vec<Vec<memory::Buffer>>,
    completions: Vec<Completion>,
    /// Links with something to send or to do at the end of the turn.
    dirty: Vec<Key>,
    /// Tasks that wait for a buffer, oldest first.
    starving: VecDeque<TaskKey>,
    managements: Vec<Management>,
    next_management: u32,
    fences: Vec<fencing::FenceRecord>,
    /// Tasks that have their fences, and whether somebody goes on with them already.
    granted: VecDeque<TaskKey>,
    resumes_granted: bool,
    /// What units do by themselves, of those whose home this is.
    runners: Vec<chores::Runner>,
    last_fence: u32,
    scratch: Vec<u8>,
    /// A store was written to at once: see `BlockQueue::write_now`.
    streamed: bool,
    /// More than one link had something to do in the last turn.
    shared: bool,
    /// Memory that the end of the turn sends, and that is fetched meanwhile.
    ahead: Ahead,
    ready: Vec<u32>,
    loans: lending::Loans,
    /// Somebody works off `ready` already, or will.
    starting: bool,
    /// Tasks whose next step was put off to the next turn.
    yielded: Vec<TaskKey>,
    next_tick: Duration,
    /// Commands since the last tick.
    commands: u32,
    drain: Drain,
    cut: u32,
    failures: Vec<String>,
}

impl<R: Reactor> Core<R> {
    /// A core with its units; `units` are in the same order on every core.
    pub fn new(
        number: u16,
        limits: CoreLimits,
        reactor: R,
        post: Arc<Post<R::Waker>>,
        mut units: Vec<Unit<R>>,
    ) -> Self {
        let roster = roster::Roster::new(reactor.pool());
        for unit in &mut units {
            roster.admit(unit, post.cores());
        }
        let mut core = Self {
            number,
            limits,
            reactor,
            post,
            links: Slab::with_capacity(limits.sessions),
            tasks: Slab::with_capacity(limits.tasks),
            units,
            roster,
            spare_work: Vec::with_capacity(limits.window as usize),
            spare_buffers: Vec::new(),
            completions: Vec::with_capacity(1024),
            dirty: Vec::with_capacity(limits.sessions.min(1024) as usize),
            starving: VecDeque::new(),
            managements: Vec::new(),
            next_management: 1,
            fences: Vec::new(),
            granted: VecDeque::new(),
            resumes_granted: false,
            runners: Vec::new(),
            last_fence: 0,
            scratch: Vec::with_capacity(64 << 10),
            streamed: false,
            shared: false,
            ahead: Ahead::default(),
            ready: Vec::new(),
            loans: Default::default(),
            starting: false,
            yielded: Vec::new(),
            next_tick: Duration::ZERO,
            commands: 0,
            drain: Drain::No,
            cut: 0,
            failures: Vec::new(),
        };
        // What a unit had begun in an earlier life goes on.
        for unit in 0..core.units.len() {
            core.take_up(unit as u16);
        }
        core
    }

    /// Runs until it is drained.
    pub fn run(mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// The reactor, for tests that hold its other side.
    pub fn reactor(&mut self) -> &mut R {
        &mut self.reactor
    }

    /// Sessions on this core.
    pub fn sessions(&self) -> u32 {
        self.links.len()
    }

    /// One turn: false when the core is drained.
    pub fn turn(&mut self) -> io::Result<bool> {
        let idle = self.links.is_empty() && self.tasks.is_empty() && self.runners.is_empty();
        let at_once = !self.dirty.is_empty() || !self.yielded.is_empty() || self.loans.came_back;
        let wait = if at_once || self.has_chores() {
            Wait::Poll
        } else if idle && matches!(self.drain, Drain::No) && self.roster.is_settled() {
            // When the last session ended, something may still have been on its way at a store.
            self.let_go();
            Wait::Forever
        } else {
            let deadlines =
                [self.store_deadline(), self.chores_deadline(), self.loans_deadline()].into_iter().flatten();
            Wait::Until(deadlines.fold(self.next_tick, std::cmp::min))
        };
        let mut completions = std::mem::take(&mut self.completions);
        self.reactor.turn(wait, &mut completions)?;
        self.work_off(&mut completions);
        self.completions = completions;
        while let Some(message) = self.post.receive(self.number) {
            self.mail(message);
        }
        self.write_loans_off();
        self.poll_stores();
        let now = self.reactor.now();
        if now >= self.next_tick {
            let since = (now + TICK).saturating_sub(self.next_tick).as_millis().max(1) as u64;
            let rate = u64::from(std::mem::take(&mut self.commands)) * 1000 / since;
            self.post.say_rate(self.number, u32::try_from(rate).unwrap_or(u32::MAX));
            self.next_tick = now + TICK;
            self.tick(now);
            self.cut_deaf(now);
            self.measure_units();
            self.sweep_tokens(now);
        }
        self.feed_starving();
        self.resume_yielded();
        self.run_chores();
        self.flush_links();
        self.continue_roster();
        self.continue_drain();
        Ok(!(matches!(self.drain, Drain::Done) && self.post.all_drained()))
    }

    fn completed(&mut self, completion: Completion) {
        match completion.token >> KIND_SHIFT {
            KIND_RECEIVE => self.received(link_key(completion.token), completion),
            KIND_SEND => self.sent(link_key(completion.token), completion),
            KIND_CHORE => self.chore_saved(completion),
            KIND_SAVE => self.saved(link_key(completion.token), completion),
            _ => self.store_completed((completion.token >> 24) as u16, completion),
        }
    }

    fn mail(&mut self, message: ToCore) {
        match message {
            // It was admitted just before the drain; nothing that it wrote now would be flushed.
            ToCore::Install(_, handover) if matches!(self.drain, Drain::Flushing | Drain::Done) => {
                let reason = CloseReason::Protocol("the target is shutting down");
                self.report_ended(handover.identity.id, reason);
            }
            ToCore::Install(socket, handover) => match self.reactor.register(socket) {
                Ok(descriptor) => self.install(descriptor, *handover),
                Err(error) => {
                    let id = handover.identity.id;
                    warn!(session = id, %error, "no room for the session's socket on core {}", self.number);
                    self.report_ended(id, CloseReason::Protocol("no room on the core"));
                }
            },
            ToCore::Close(id, reason) => {
                let found = self.links.iter().find(|(_, l)| l.identity.id == id).map(|(k, _)| k);
                if let Some(key) = found {
                    self.cut(key, reason);
                }
            }
            ToCore::Drain { seconds } => self.begin_drain(seconds),
            ToCore::Stop => {
                if let Drain::Asked(at) = &mut self.drain {
                    *at = Duration::ZERO;
                }
            }
            ToCore::Add { slot, store, unit, keeper } => self.add_unit(slot, store, unit, keeper),
            ToCore::Remap(port) => self.remap(&port),
            ToCore::Remove { slot } => self.remove_unit(slot),
            ToCore::Core(FromCore::Reset { core, management, units, close }) => {
                self.remote_reset(core, management, units, close);
            }
            ToCore::Core(FromCore::Abort { core, management, unit, nexuses }) => {
                self.remote_abort(core, management, unit, nexuses);
            }
            ToCore::Core(FromCore::ResetDone { management }) => self.remote_reset_done(management),
            ToCore::Core(FromCore::Fence(mail)) => self.fence_mail(mail),
            ToCore::Core(FromCore::Chore(mail)) => self.chore_mail(mail),
            ToCore::Core(FromCore::Recall { unit, core }) => self.recall(unit, core),
            ToCore::Core(FromCore::Returned { unit }) => self.returned(unit),
        }
    }

    /// Installs a session on a connected descriptor and sends its final Login Response.
    pub fn install(&mut self, descriptor: Descriptor, handover: Handover) {
        let Handover { identity, cid, parameters, exp_cmd_sn, stat_sn, port, response, leftover, addresses } = handover;
        let now = self.reactor.now();
        let id = identity.id;
        let places = self.places(&port, id, &link::path(&identity, &port));
        // The slab gives the index only when the value is there: the session learns it right after.
        let link = Link {
            descriptor,
            session: protocol::Session::new(0, &parameters, exp_cmd_sn, self.limits.window),
            connection: protocol::Connection::new(parameters, stat_sn, now),
            port,
            places,
            receiving: Receiving::Idle,
            calm: 0,
            filled: false,
            heads: false,
            alike: false,
            prompting: Default::default(),
            outgoing: Default::default(),
            spare: Default::default(),
            held: 0,
            held_bytes: 0,
            spares: Vec::new(),
            rests: false,
            sending: false,
            last_bytes: 0,
            lent: 0,
            acknowledged: stat_sn,
            gets_copies: self.loans.was_late(&identity.initiator),
            dirty: false,
            closing: None,
            closed: false,
            lingered: 0,
            operations: 0,
            stalled: Vec::new(),
            close_after_management: false,
            addresses,
            identity,
        };
        let key = match self.links.insert(link) {
            Ok(key) => key,
            Err(link) => {
                warn!(session = id, "core {} is full: {} sessions", self.number, self.limits.sessions);
                self.reactor.close(descriptor);
                for place in link.places {
                    place.nexus.end(self.units[place.unit as usize].logical());
                }
                self.report_ended(id, CloseReason::Protocol("no room on the core"));
                return;
            }
        };
        let link = self.links.get_mut(key).expect("just inserted");
        link.session.set_index(key.index);
        link.connection.set_cid(cid);
        link.connection.set_liveness(self.limits.nop_interval, self.limits.nop_timeout);
        debug!(session = id, core = self.number, initiator = %link.identity.initiator.name, "session installed");
        protocol::Sink::put(&mut link.outgoing, &response);
        self.mark_dirty(key);
        if !leftover.is_empty() {
            self.feed(key, &leftover);
        }
        self.arm(key);
        if matches!(self.drain, Drain::Asked(_)) {
            self.ask_to_log_out(key);
        }
    }

    /// Puts a link on the list of those to flush.
    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key)
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(key);
        }
    }

    fn flush_links(&mut self) {
        self.ahead.fetch();
        let mut dirty = std::mem::take(&mut self.dirty);
        self.shared = dirty.len() > 1;
        for key in dirty.drain(..) {
            if let Some(link) = self.links.get_mut(key) {
                link.dirty = false;
                // The answer goes before the next receive: it carries the acknowledgement that the receive would send.
                self.flush(key);
                self.arm(key);
            }
        }
        // What has become dirty meanwhile is on the new list.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Closes sessions that were asked for data and don't send any, though they answer pings: buffers wait for it.
    fn cut_deaf(&mut self, now: Duration) {
        if self.limits.nop_interval.is_zero() {
            return;
        }
        let patience = self.limits.nop_interval + self.limits.nop_timeout;
        let deaf = |work: &Work| work.stage == Stage::Running && now > work.asked_at + patience;
        let owing = self.tasks.iter().filter(|(_, task)| task.expects_data() && deaf(&task.work));
        let keys: Vec<Key> = owing.map(|(_, task)| task.work.link).collect();
        for key in keys {
            if self.links.get(key).is_some_and(|l| l.closing.is_none()) {
                info!(
                    session = link_identity(&self.links, key),
                    "the session does not send the data that it was asked for"
                );
                self.cut(key, CloseReason::Silent);
            }
        }
    }

    fn tick(&mut self, now: Duration) {
        self.let_go();
        self.want_old_blocks(now);
        let keys: Vec<Key> = self.links.iter().map(|(k, _)| k).collect();
        for key in keys {
            let Some(link) = self.links.get_mut(key) else { continue };
            if link.closing.is_some() {
                // A peer that doesn't read its last answers keeps its session no longer than this.
                link.lingered += 1;
                if !link.closed && link.lingered > LINGER_TICKS {
                    self.cut(key, CloseReason::Silent);
                }
                continue;
            }
            let leaves_places = link.places.last().is_some_and(|place| place.lun == link::NO_LUN);
            // An idle session keeps little memory.
            if std::mem::replace(&mut link.rests, true) && !link.sending && link.outgoing.is_empty() {
                link.spare = Default::default();
                link.spares = Vec::new();
                link.outgoing = Default::default();
            }
            let before = link.outgoing.len();
            let verdict = link.connection.tick(&mut link.session, now, &mut link.outgoing);
            if link.outgoing.len() != before {
                self.mark_dirty(key);
            }
            if let Err(reason) = verdict {
                info!(session = link_identity(&self.links, key), ?reason, "session is silent");
                self.cut(key, reason);
            }
            if leaves_places {
                self.forget_places(key);
            }
        }
    }

    /// Tells the control thread that a session is no more here.
    pub(crate) fn report_ended(&self, id: SessionId, reason: CloseReason) {
        // Whose the aborted tasks in a store are isn't asked: this session may be the second of its nexus, and have waited
        // for the first one's.
        let is_late = |work: &Work| work.detached.is_none() && self.links.get(work.link).is_none();
        let late = self.tasks.iter().any(|(_, task)| is_late(&task.work));
        self.post.report(ToControl::Ended { core: self.number, ended: Ended { id, reason, late } });
    }
}

fn link_identity(links: &Slab<Link>, key: Key) -> u64 {
    links.get(key).map_or(0, |l| l.identity.id)
}
