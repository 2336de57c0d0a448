//! The logical unit that all cores share, and what a nexus keeps of it.
//!
//! Changing state is behind a mutex that control commands alone take. Each change moves the generation, after which the
//! next command of every nexus reads the state again; while it stands still, a command costs one atomic load here.

use crate::{
    access::{self, Group},
    attention::{Attention, Log, Pending},
    copy::{operation::Operations, token::Watch},
    counters::{Count, Counters, Ledger, Totals},
    identity::Identity,
    lasting::{Lasting, Undo},
    port::Path,
    profile::{Profile, Provisioning},
    reservations::{Known, Reservations, Verdict},
    spc::{
        information::Information,
        mode_pages::{Modes, Values},
        timestamp::Timestamp,
    },
};
use backstore_api::{Geometry, Protection};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

/// The next unit's.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// MAXIMUM TRANSFER LENGTH, in bytes. Linux never asks for more at once, and windows of Buffers carry it.
const MAX_TRANSFER: u32 = 8 << 20;

/// State bits that a READ or WRITE looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags(u16);

impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const WRITE_CACHE: Flags = Flags(1);
    pub const DESCRIPTOR_SENSE: Flags = Flags(2);
    /// SWP of the control mode page.
    pub const SOFTWARE_PROTECTED: Flags = Flags(4);
    /// The store takes no writes.
    pub const READ_ONLY: Flags = Flags(8);
    pub const STOPPED: Flags = Flags(16);
    /// The medium is not there.
    pub const EJECTED: Flags = Flags(32);
    /// In an idle or standby condition, until the medium is used.
    pub const LOW_POWER: Flags = Flags(64);
    /// It works for itself, or has failed to.
    pub const OCCUPIED: Flags = Flags(128);
    /// Some target port group is in standby or unavailable.
    pub const RESTRICTED: Flags = Flags(256);
    /// What a command that wants more than names and states looks at.
    pub const UNREADY: Flags = Flags(16 | 32 | 64 | 128 | 256);

    #[inline]
    pub fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn set(&mut self, flag: Flags, on: bool) {
        self.0 = if on { self.0 | flag.0 } else { self.0 & !flag.0 };
    }

    /// Takes what mode pages say.
    pub fn take(&mut self, modes: Flags) {
        for flag in [Flags::WRITE_CACHE, Flags::DESCRIPTOR_SENSE, Flags::SOFTWARE_PROTECTED] {
            self.set(flag, modes.has(flag));
        }
    }
}

/// Names a logical unit in the process: no two have the same, ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UnitId(u64);

/// A logical unit of block device type, shared by all cores.
pub struct LogicalUnit {
    id: UnitId,
    profile: Profile,
    geometry: Geometry,
    block_shift: u32,
    blocks: AtomicU64,
    generation: AtomicU64,
    flags: AtomicU16,
    groups: Box<[Group]>,
    /// How far a job of its own has come, in 65,536ths.
    pub(crate) progress: AtomicU16,
    state: Mutex<State>,
    copies: Operations,
    watch: Watch,
}

pub(crate) struct State {
    pub log: Log,
    pub modes: Modes,
    pub information: Information,
    timestamp: Option<Timestamp>,
    /// Data buffer of READ BUFFER and WRITE BUFFER; empty until it is written to.
    buffer: Vec<u8>,
    ledger: Ledger,
    /// Nexuses that prevent medium removal.
    pub prevent: Vec<u64>,
    /// Sense code of [`Flags::LOW_POWER`].
    pub power: u16,
    pub lasting: Lasting,
    /// Moves with every change of what lasts.
    pub lasting_number: u64,
    pub reservations: Reservations,
    /// Takes the change back that led to this number.
    pub undo: Option<(u64, Undo)>,
    /// Live nexuses by session.
    pub nexuses: Known,
    /// Thresholds that have been reached, and said: available, used.
    pub reached: [bool; 2],
    /// The job in it is not recorded yet.
    pub job_is_new: bool,
}

impl State {
    /// Some nexus prevents medium removal.
    pub(crate) fn is_prevented(&self) -> bool {
        !self.prevent.is_empty()
    }

    /// Establishes a unit attention for every nexus but `except`.
    pub(crate) fn attention(&mut self, attention: Attention, except: Option<u64>) {
        self.log.push(attention, except);
    }
}

impl LogicalUnit {
    /// A unit in its default state: started, write cache enabled, fixed format sense.
    pub fn new(profile: Profile, geometry: Geometry) -> Arc<LogicalUnit> {
        let block_shift = if profile.block_size == 4096 { 12 } else { 9 };
        let modes = Modes::new(provisioning(&profile, &geometry) == Provisioning::Thin);
        let flags = default_flags(&profile, &geometry, &modes.current);
        let groups = profile.access.iter().map(|group| Group::new(*group)).collect();
        Arc::new(LogicalUnit {
            groups,
            id: UnitId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            profile,
            blocks: AtomicU64::new(geometry.bytes >> block_shift),
            geometry,
            block_shift,
            generation: AtomicU64::new(1),
            flags: AtomicU16::new(flags.0),
            progress: AtomicU16::new(0),
            state: Mutex::new(State {
                log: Log::default(),
                modes,
                ledger: Ledger::default(),
                prevent: Vec::new(),
                power: 0,
                lasting: Lasting::default(),
                lasting_number: 0,
                information: Information::default(),
                timestamp: None,
                buffer: Vec::new(),
                reservations: Reservations::default(),
                undo: None,
                nexuses: Known::new(),
                reached: [false; 2],
                job_is_new: false,
            }),
            copies: Operations::default(),
            watch: Watch::default(),
        })
    }

    /// Moves with every change of the state; one atomic load.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Which one it is.
    #[inline]
    pub fn id(&self) -> UnitId {
        self.id
    }

    /// Tokens for its data, seen from those who write.
    #[inline]
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Copy operations that it was asked for.
    pub(crate) fn copies(&self) -> &Operations {
        &self.copies
    }

    /// Its names.
    pub fn identity(&self) -> &Identity {
        &self.profile.identity
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Bytes that the medium writes at once; at least a logical block.
    pub(crate) fn physical_block(&self) -> u32 {
        let said = self.profile.physical_block_size;
        if said > 0 { said } else { self.geometry.physical_block }.max(self.block_size())
    }

    /// MEDIUM ROTATION RATE: 1 doesn't rotate.
    pub(crate) fn rotation_rate(&self) -> u16 {
        match self.profile.rotation_rate {
            // A real rate isn't known.
            0 if self.geometry.rotational => 7200,
            0 => 1,
            rate => rate,
        }
    }

    /// Bytes of a logical block.
    #[inline]
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }

    /// Binary logarithm of the block size.
    #[inline]
    pub(crate) fn block_shift(&self) -> u32 {
        self.block_shift
    }

    /// Number of logical blocks. It may change between two calls: what is checked against it is calculated from the same
    /// answer.
    #[inline]
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Acquire)
    }

    /// Its store has another size: CAPACITY DATA HAS CHANGED for every nexus (SBC-4 4.10). Visible at once on all cores.
    /// A store that grows has the room before this is called; of one that shrinks it is taken away afterwards, and
    /// commands that were checked before then end by [`backstore_api::StoreError::OutOfRange`].
    pub fn resize(&self, bytes: u64) {
        let mut state = self.lock();
        let blocks = bytes >> self.block_shift;
        if self.blocks.swap(blocks, Ordering::AcqRel) != blocks {
            self.watch.written(&(blocks << self.block_shift..u64::MAX));
            state.log.push(Attention::CapacityChanged, None);
            self.changed();
        }
    }

    /// What its store can do; its size is as of now.
    pub fn geometry(&self) -> Geometry {
        Geometry { bytes: self.blocks() << self.block_shift, ..self.geometry.clone() }
    }

    /// The same, borrowed; but its size is as of the beginning.
    pub(crate) fn store(&self) -> &Geometry {
        &self.geometry
    }

    /// MAXIMUM TRANSFER LENGTH in bytes, as VPD B0h says.
    #[inline]
    pub fn max_transfer(&self) -> u32 {
        MAX_TRANSFER
    }

    /// What becomes of blocks that are unmapped.
    pub fn provisioning(&self) -> Provisioning {
        provisioning(&self.profile, &self.geometry)
    }

    /// Thin provisioned.
    pub(crate) fn thin(&self) -> bool {
        self.provisioning() == Provisioning::Thin
    }

    /// Logical block provisioning management is enabled (LBPME): there is UNMAP.
    pub(crate) fn unmaps(&self) -> bool {
        self.provisioning() != Provisioning::Full
    }

    /// Unmapped blocks read as zeroes (LBPRZ).
    pub(crate) fn unmaps_to_zeroes(&self) -> bool {
        match self.provisioning() {
            Provisioning::Full => false,
            Provisioning::Resource => true,
            Provisioning::Thin => self.geometry.discard_zeroes,
        }
    }

    /// RMB: the medium can be ejected.
    pub fn removable(&self) -> bool {
        self.profile.removable
    }

    /// Protection information that its medium is formatted with.
    #[inline]
    pub fn protection(&self) -> Option<Protection> {
        self.profile.protection
    }

    /// Write cache enabled (WCE of mode page 08h).
    pub fn write_cache(&self) -> bool {
        self.flags().has(Flags::WRITE_CACHE)
    }

    /// Whether a write has to be on stable storage before its end.
    pub(crate) fn durable(&self, force_unit_access: bool) -> bool {
        force_unit_access || !self.write_cache()
    }

    /// Sense data has descriptor format (D_SENSE of mode page 0Ah): what [`crate::Sense::emit`] is told.
    #[inline]
    pub fn descriptor_sense(&self) -> bool {
        self.flags().has(Flags::DESCRIPTOR_SENSE)
    }

    #[inline]
    pub(crate) fn flags(&self) -> Flags {
        Flags(self.flags.load(Ordering::Acquire))
    }

    /// Establishes a unit attention for every nexus but `except` (nexus identifier). Visible at once on all cores.
    pub fn attention(&self, attention: Attention, except: Option<u64>) {
        let mut state = self.lock();
        state.log.push(attention, except);
        self.changed();
    }

    /// LOGICAL UNIT RESET (SAM-5 6.3.3): mode pages as saved, started, removal allowed (an ejected medium stays out),
    /// and a BUS DEVICE RESET attention for all, also for who asked.
    pub fn reset(&self) {
        self.copies.reset();
        let mut state = self.lock();
        state.prevent.clear();
        // SPC-2 5.5.1; persistent ones stay (SPC-4 5.12.1).
        state.reservations.reserved = None;
        state.modes.reset();
        state.log.push(Attention::BusDeviceReset, None);
        let mut flags = default_flags(&self.profile, &self.geometry, &state.modes.current);
        for stays in [Flags::EJECTED, Flags::OCCUPIED, Flags::RESTRICTED] {
            flags.set(stays, self.flags().has(stays));
        }
        self.flags.store(flags.0, Ordering::Release);
        self.changed();
    }

    /// What all nexuses have counted.
    pub(crate) fn totals(&self) -> Totals {
        self.lock().ledger.totals()
    }

    /// These count from zero again; the other nexuses hear of it.
    pub(crate) fn reset_counters(&self, counts: &[Count], except: Option<u64>) {
        self.lock().ledger.reset(counts);
        self.attention(Attention::LogParametersChanged, except);
    }

    /// Looks at the identifying information.
    pub(crate) fn information<T>(&self, call: impl FnOnce(&mut Information) -> T) -> T {
        call(&mut self.lock().information)
    }

    /// Looks at what the clock was set to, or sets it.
    pub(crate) fn timestamp<T>(&self, call: impl FnOnce(&mut Option<Timestamp>) -> T) -> T {
        call(&mut self.lock().timestamp)
    }

    /// The data buffer of READ BUFFER and WRITE BUFFER.
    pub(crate) fn buffer<T>(&self, call: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        call(&mut self.lock().buffer)
    }

    /// Target port groups that are configured.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// SET TARGET PORT GROUPS is there.
    pub(crate) fn explicit_access(&self) -> bool {
        self.profile.explicit_access && !self.groups.is_empty()
    }

    /// TPGS of INQUIRY: implicit, and perhaps explicit; none without configured groups.
    pub(crate) fn target_port_groups(&self) -> u8 {
        if self.groups.is_empty() { 0b00 } else { 0b01 | u8::from(self.explicit_access()) << 1 }
    }

    /// Time since 1970 when the clock of commands was zero; zero: not known.
    pub(crate) fn clock_zero(&self) -> Duration {
        self.profile.clock_zero
    }

    /// Changes state bits; the other nexuses hear of it by `attention`.
    pub(crate) fn change(&self, attention: Option<Attention>, except: Option<u64>, change: impl FnOnce(&mut Flags)) {
        let mut state = self.lock();
        self.set_flags(change);
        if let Some(attention) = attention {
            state.log.push(attention, except);
        }
        self.changed();
    }

    /// Changes state bits and what goes with them, or nothing when that is refused.
    pub(crate) fn try_change<E>(&self, change: impl FnOnce(&mut State, &mut Flags) -> Result<(), E>) -> Result<(), E> {
        let mut state = self.lock();
        let mut flags = self.flags();
        change(&mut state, &mut flags)?;
        self.flags.store(flags.0, Ordering::Release);
        self.changed();
        Ok(())
    }

    /// Changes state bits, while the caller has the unit's mutex.
    pub(crate) fn set_flags(&self, change: impl FnOnce(&mut Flags)) {
        let mut flags = self.flags();
        change(&mut flags);
        self.flags.store(flags.0, Ordering::Release);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}

fn provisioning(profile: &Profile, geometry: &Geometry) -> Provisioning {
    let gives_back = geometry.discard_granularity > 0;
    match profile.provisioning {
        None | Some(Provisioning::Thin) if gives_back => Provisioning::Thin,
        None | Some(Provisioning::Thin) => Provisioning::Full,
        Some(other) => other,
    }
}

fn default_flags(profile: &Profile, geometry: &Geometry, modes: &Values) -> Flags {
    let mut flags = modes.flags();
    flags.set(Flags::READ_ONLY, geometry.read_only || profile.write_protected);
    flags.set(Flags::RESTRICTED, access::any_restricted(&profile.access));
    flags
}

impl std::fmt::Debug for LogicalUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogicalUnit")
            .field("name", &self.profile.identity.name)
            .field("block_size", &self.block_size())
            .field("blocks", &self.blocks())
            .finish_non_exhaustive()
    }
}

/// What one session (I_T nexus) knows of one logical unit. Lives with the session, on its core.
#[derive(Debug)]
pub struct Nexus {
    id: u64,
    path: Path,
    generation: u64,
    cursor: u64,
    flags: Flags,
    verdict: Verdict,
    pending: Pending,
    counters: Arc<Counters>,
    /// Echo buffer (WRITE BUFFER mode 0Ah); empty until it is written to.
    pub(crate) echo: Box<[u8]>,
}

impl Nexus {
    /// A new nexus has [`Attention::PowerOn`] pending. `id`: unique per session in the process.
    pub fn new(unit: &LogicalUnit, id: u64, path: Path) -> Nexus {
        let mut pending = Pending::default();
        pending.add(Attention::PowerOn);
        let mut state = unit.lock();
        state.nexuses.insert(id, path.clone());
        let verdict = state.reservations.verdict(id, &path);
        let (generation, cursor, flags) = (unit.generation(), state.log.end(), unit.flags());
        let counters = state.ledger.open();
        Nexus { id, path, generation, cursor, flags, verdict, pending, counters, echo: Box::default() }
    }

    /// Asks the processor to fetch what a command needs beside this value.
    #[inline]
    pub fn fetch(&self) {
        memory::fetch(&*self.counters);
    }

    /// The session ended: it no longer prevents medium removal, nor has the unit by RESERVE. Its registration stays.
    pub fn end(self, unit: &LogicalUnit) {
        unit.copies.forget(self.id);
        unit.prevent(self.id, false);
        let mut state = unit.lock();
        state.ledger.close(&self.counters);
        state.nexuses.remove(&self.id);
        if state.reservations.reserved == Some(self.id) {
            state.reservations.reserved = None;
            unit.changed();
        }
    }

    /// Counts what it does.
    #[inline]
    pub(crate) fn count(&self, count: Count, number: u64) {
        self.counters.add(count, number);
    }

    /// Its identifier.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The I_T nexus that it stands for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Establishes a unit attention for this nexus alone.
    pub fn attention(&mut self, attention: Attention) {
        self.pending.add(attention);
    }

    /// The initiator has read the list of LUNs.
    pub fn luns_reported(&mut self) {
        self.pending.remove(Attention::ReportedLunsChanged);
    }

    /// Catches up with the unit; gives the state bits and whether an attention is pending.
    #[inline]
    pub(crate) fn refresh(&mut self, unit: &LogicalUnit) -> (Flags, bool) {
        let generation = unit.generation();
        if generation != self.generation {
            self.catch_up(unit);
        }
        (self.flags, !self.pending.is_empty())
    }

    /// The unit's state bits, if it knows all that has happened to the unit and has nothing to report, and no reservation stands
    /// in its way.
    #[inline]
    pub(crate) fn undisturbed(&self, unit: &LogicalUnit) -> Option<Flags> {
        let free = self.pending.is_empty() && self.verdict == Verdict::All;
        (free && unit.generation() == self.generation).then_some(self.flags)
    }

    #[cold]
    fn catch_up(&mut self, unit: &LogicalUnit) {
        let state = unit.lock();
        self.generation = unit.generation();
        self.flags = unit.flags();
        self.verdict = state.reservations.verdict(self.id, &self.path);
        state.log.read(&mut self.cursor, self.id, &self.path, &mut self.pending);
    }

    /// What the reservations of others leave to it, as of the last refresh.
    #[inline]
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }
}
