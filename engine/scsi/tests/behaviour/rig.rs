//! A target port with one unit over a `Vec`, and the server's part of carrying out a command.

use backstore_api::{Extent, Geometry, Space, StoreError};
use scsi::{
    Background, Chore, Command, Context, CopyManager, Event, Identity, InitiatorPort, LogicalUnit, Nexus, Outcome,
    Path, PortId, Profile, Sense, SenseKey, Status, Step, TargetPort, Transfer, UnitId,
};
use std::{sync::Arc, time::Duration};

pub const BLOCK: usize = 512;
pub const BLOCKS: u64 = 4096;

/// A thin volume of 2 MiB.
pub fn geometry() -> Geometry {
    Geometry {
        bytes: BLOCKS * BLOCK as u64,
        alignment: 1,
        physical_block: 4096,
        optimal_io: 1 << 20,
        discard_granularity: 4096,
        discard_zeroes: true,
        persistent: true,
        read_only: false,
        rotational: false,
        cached: true,
        atomic_write: 1 << 20,
    }
}

/// The I_T nexus of a session.
pub fn path(session: u64) -> Path {
    let name = format!("iqn.2026-01.io.ringlun:i{session}");
    Path { initiator: Arc::new(InitiatorPort { name: name.into(), isid: [0x80, 0, 0, 0, 0, 1] }), relative_port: 7 }
}

/// The unit of a volume with default settings.
pub fn profile(block_size: u32) -> Profile {
    Profile::new(Identity::from_name("iqn.2026-01.io.ringlun:db1"), block_size)
}

pub struct Rig {
    pub port: TargetPort,
    pub unit: Arc<LogicalUnit>,
    pub nexus: Nexus,
    pub scratch: Vec<u8>,
    pub medium: Vec<u8>,
    pub mapped: Vec<bool>,
    /// Other units of this host, with their media.
    pub others: Vec<(Arc<LogicalUnit>, Vec<u8>)>,
    pub flushes: u32,
    /// Steps of the last command but its end.
    pub steps: Vec<Step>,
    /// The time of the next command.
    pub now: Duration,
    /// The next store request fails.
    pub fault: Option<StoreError>,
    /// Whose tasks were to be aborted.
    pub aborted: Vec<Path>,
    /// Jobs of the unit are begun, and left to the test.
    pub idle: bool,
    /// Bytes that are free beside the medium.
    pub free: Option<u64>,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: Status,
    pub sense: Option<Sense>,
    pub data: Vec<u8>,
}

impl Answer {
    /// Its data; panics unless the status is GOOD.
    #[track_caller]
    pub fn good(self) -> Vec<u8> {
        assert_eq!(self.status, Status::Good, "{:?}", self.sense);
        assert_eq!(self.sense, None);
        self.data
    }

    /// Key and code of its sense; panics unless it is a CHECK CONDITION.
    #[track_caller]
    pub fn refused(self) -> (SenseKey, u16) {
        let sense = self.sense();
        (sense.key, sense.asc)
    }

    /// Panics unless the status is CONDITION MET.
    #[track_caller]
    pub fn condition_met(self) {
        assert_eq!((self.status, self.sense, self.data), (Status::ConditionMet, None, Vec::new()));
    }

    #[track_caller]
    pub fn sense(self) -> Sense {
        assert_eq!(self.status, Status::CheckCondition);
        self.sense.expect("CHECK CONDITION without sense")
    }
}

impl Rig {
    /// A rig whose power-on attention has been reported.
    pub fn new() -> Rig {
        Rig::with(geometry(), 512)
    }

    pub fn with(geometry: Geometry, block_size: u32) -> Rig {
        Rig::of(profile(block_size), geometry)
    }

    /// One with a profile of its own.
    pub fn of(profile: Profile, geometry: Geometry) -> Rig {
        let mut rig = Rig::untouched(profile, geometry);
        assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2900));
        rig
    }

    /// One with the power-on attention pending.
    pub fn fresh(geometry: Geometry, block_size: u32) -> Rig {
        Rig::untouched(profile(block_size), geometry)
    }

    fn untouched(profile: Profile, geometry: Geometry) -> Rig {
        let bytes = geometry.bytes.min(64 << 20) as usize;
        let unit = LogicalUnit::new(profile, geometry);
        Rig {
            port: TargetPort {
                target_name: "iqn.2026-01.io.ringlun:db1".into(),
                portal_group: 1,
                relative_port: 7,
                ports: vec![
                    PortId { relative_port: 7, portal_group: 1 },
                    PortId { relative_port: 300, portal_group: 2 },
                ],
                luns: [(0, unit.clone())].into(),
                copies: CopyManager::new([7; 32]),
            },
            nexus: Nexus::new(&unit, 1, path(1)),
            unit,
            scratch: Vec::new(),
            medium: vec![0x5A; bytes],
            mapped: vec![true; bytes / BLOCK],
            others: Vec::new(),
            flushes: 0,
            steps: Vec::new(),
            now: Duration::ZERO,
            fault: None,
            aborted: Vec::new(),
            idle: false,
            free: Some(5 << 30),
        }
    }

    /// For a command to the unit that the test itself steps through.
    pub fn context(&mut self) -> Context<'_> {
        Context {
            port: &self.port,
            unit: Some(&self.unit),
            nexus: Some(&mut self.nexus),
            scratch: &mut self.scratch,
            now: self.now,
        }
    }

    /// Carries out a command to the unit.
    pub fn run(&mut self, cdb: &[u8], data_out: &[u8]) -> Answer {
        self.carry_out(cdb, data_out, true)
    }

    /// What a CDB would move on the short way.
    pub fn short(&self, cdb: &[u8]) -> Option<Transfer> {
        let mut padded = [0; 16];
        padded[..cdb.len()].copy_from_slice(cdb);
        Transfer::find(&padded, &self.unit, &self.nexus, &self.port)
    }

    /// Carries out a command to a LUN that is not there.
    pub fn run_absent(&mut self, cdb: &[u8]) -> Answer {
        self.carry_out(cdb, &[], false)
    }

    /// Carries out a command to the REPORT LUNS well-known logical unit.
    pub fn run_well_known(&mut self, cdb: &[u8]) -> Answer {
        let mut scratch = std::mem::take(&mut self.scratch);
        let (port, now) = (&self.port, Duration::ZERO);
        let mut context = Context { port, unit: None, nexus: None, scratch: &mut scratch, now };
        let (_, step) = Command::start_well_known(cdb, &mut context);
        let Step::Done(outcome) = step else { panic!("{step:?}") };
        let data = scratch[..outcome.data as usize].to_vec();
        self.scratch = scratch;
        Answer { status: outcome.status, sense: outcome.sense, data }
    }

    /// Does a job's next chore.
    pub fn chore(&mut self, background: &mut Background) -> Chore {
        let (.., mut store) = self.parts(&[]);
        store.chore(background)
    }

    /// The two sides of a command: who it comes from and to, and the server's part.
    fn parts<'a>(&'a mut self, data_out: &'a [u8]) -> (&'a TargetPort, &'a mut Nexus, Store<'a>) {
        let store = Store {
            medium: &mut self.medium,
            mapped: &mut self.mapped,
            others: &mut self.others,
            flushes: &mut self.flushes,
            fault: &mut self.fault,
            unit: &self.unit,
            idle: self.idle,
            free: self.free,
            data_out,
            data_in: Vec::new(),
            pattern: Vec::new(),
            extents: Vec::new(),
            longer: false,
        };
        (&self.port, &mut self.nexus, store)
    }

    fn carry_out(&mut self, cdb: &[u8], data_out: &[u8], present: bool) -> Answer {
        let unit = self.unit.clone();
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut padded = [0u8; 32];
        padded[..cdb.len()].copy_from_slice(cdb);
        let (now, mut steps, mut aborted) = (self.now, Vec::new(), Vec::new());
        let (port, nexus, mut store) = self.parts(data_out);
        let (unit, nexus) = (present.then_some(&unit), present.then_some(nexus));
        let both = unit.zip(nexus.as_deref());
        let short = both.and_then(|(unit, nexus)| Transfer::find(padded.first_chunk()?, unit, nexus, port));
        let mut context = Context { port, unit, nexus, scratch: &mut scratch, now };
        let (mut command, mut step) = Command::start(&padded[..cdb.len().max(16)], &mut context);
        if let Some(short) = short {
            // Whatever the unit's state: the short way does what the long one would.
            match step {
                Step::Read { span } => assert_eq!((span, false), (short.span, short.writes())),
                Step::Write { span, verify, .. } => assert_eq!((span, !verify), (short.span, short.writes())),
                step => panic!("{cdb:02x?} would be {short:?}, and is {step:?}"),
            }
        }
        if let (true, Some(nexus)) = (command.has_reported_luns(&step), &mut context.nexus) {
            nexus.luns_reported();
        }
        let outcome: Outcome = loop {
            if let Step::Done(outcome) = step {
                break outcome;
            }
            steps.push(step);
            assert!(steps.len() < 10_000, "a command without end");
            if step == Step::Abort {
                aborted.extend(command.preempted().expect("somebody").iter().cloned());
            }
            step = command.step(store.event(step), &mut context);
        };
        let mut data = store.data_in;
        if outcome.status == Status::Good && outcome.data > 0 {
            data = scratch[..outcome.data as usize].to_vec();
        }
        self.scratch = scratch;
        self.steps = steps;
        self.aborted.extend(aborted);
        Answer { status: outcome.status, sense: outcome.sense, data }
    }
}

struct Store<'a> {
    medium: &'a mut Vec<u8>,
    mapped: &'a mut Vec<bool>,
    others: &'a mut Vec<(Arc<LogicalUnit>, Vec<u8>)>,
    flushes: &'a mut u32,
    fault: &'a mut Option<StoreError>,
    unit: &'a LogicalUnit,
    idle: bool,
    free: Option<u64>,
    data_out: &'a [u8],
    data_in: Vec<u8>,
    pattern: Vec<u8>,
    extents: Vec<Extent>,
    /// `Event::Long` was given.
    longer: bool,
}

impl Store<'_> {
    fn event(&mut self, step: Step) -> Event<'_> {
        if !matches!(step, Step::Receive { .. } | Step::Work { .. })
            && let Some(error) = self.fault.take()
        {
            return match step {
                Step::Copy { .. } => Event::CopyFailed { error, reading: false, moved: BLOCK as u32 },
                _ => Event::Failed(error),
            };
        }
        match step {
            Step::Read { span } => {
                self.data_in = self.medium[range(span.offset, span.length.into())].to_vec();
                Event::Moved
            }
            Step::Check { span } => {
                assert!(span.length > 0);
                let _ = &self.medium[range(span.offset, span.length.into())];
                Event::Moved
            }
            Step::Write { span, .. } => {
                if self.data_out.len() < span.length as usize {
                    return Event::Short;
                }
                let target = range(span.offset, span.length.into());
                self.map(target.clone(), true);
                self.medium[target].copy_from_slice(&self.data_out[..span.length as usize]);
                Event::Moved
            }
            Step::Compare { span, repeat } => {
                let medium = &self.medium[range(span.offset, span.length.into())];
                let expected = self.data_out.iter().cycle();
                let limit = if repeat { usize::MAX } else { self.data_out.len() };
                let differs = medium.iter().zip(expected.take(limit)).position(|(a, b)| a != b);
                match differs {
                    Some(place) => Event::Miscompare { offset: span.offset + place as u64 },
                    None => Event::Moved,
                }
            }
            // The tuples are the store's: see its tests.
            Step::Swap { checks: Some(_), .. } | Step::Fill { tuple: Some(_), .. } => match step {
                Step::Swap { .. } => Event::Moved,
                _ => Event::Stored,
            },
            Step::Swap { span, .. } => {
                let target = range(span.offset, span.length.into());
                let (expected, new) = self.pattern.split_at(span.length as usize);
                let differs = self.medium[target.clone()].iter().zip(expected).position(|(a, b)| a != b);
                match differs {
                    Some(place) => Event::Miscompare { offset: span.offset + place as u64 },
                    None => {
                        self.medium[target].copy_from_slice(new);
                        Event::Moved
                    }
                }
            }
            Step::Merge { span, .. } => {
                if self.data_out.len() < span.length as usize {
                    return Event::Short;
                }
                let target = range(span.offset, span.length.into());
                self.map(target.clone(), true);
                self.medium[target].iter_mut().zip(self.data_out).for_each(|(medium, set)| *medium |= set);
                Event::Moved
            }
            Step::Put { span, .. } => {
                let target = range(span.offset, span.length.into());
                self.map(target.clone(), true);
                self.medium[target].copy_from_slice(&self.pattern);
                Event::Moved
            }
            Step::Prefetch { offset, length } => {
                let _ = &self.medium[range(offset, length)];
                Event::Stored
            }
            Step::Receive { length } => {
                if self.data_out.len() < length as usize {
                    return Event::Short;
                }
                // Only what has exactly one length minds.
                if self.data_out.len() > length as usize && !std::mem::replace(&mut self.longer, true) {
                    return Event::Long;
                }
                self.pattern = self.data_out[..length as usize].to_vec();
                Event::Received(&self.pattern)
            }
            // The tuples are the store's: see its tests.
            Step::MoveTuples { .. } => Event::Moved,
            Step::Save => Event::Stored,
            Step::Abort => Event::Aborted,
            Step::Work { .. } => {
                if !self.idle {
                    let mut background = Background::take_up(self.unit).expect("a job has begun");
                    while self.chore(&mut background) != Chore::End {}
                }
                Event::Stored
            }
            Step::Flush => {
                *self.flushes += 1;
                Event::Stored
            }
            Step::Discard { offset, length } => {
                self.zero(offset, length, true);
                Event::Stored
            }
            Step::Zero { offset, length, unmap, .. } => {
                self.zero(offset, length, unmap);
                Event::Stored
            }
            Step::Fill { offset, length, .. } => {
                let target = range(offset, length);
                self.map(target.clone(), true);
                for block in self.medium[target].chunks_mut(self.pattern.len()) {
                    block.copy_from_slice(&self.pattern);
                }
                Event::Stored
            }
            Step::Copy { source, from, target, to, length, .. } => {
                let data = self.medium_of(source)[from as usize..][..length as usize].to_vec();
                self.medium_of(target)[to as usize..][..length as usize].copy_from_slice(&data);
                Event::Moved
            }
            Step::Survey { unit, offset, length, limit } => {
                match unit == self.unit.id() {
                    true => self.status(offset, length, limit),
                    false => self.extents = vec![Extent { offset, length, mapped: true }],
                }
                Event::Extents(&self.extents)
            }
            Step::Blank { unit, offset, length, .. } => {
                self.medium_of(unit)[offset as usize..][..length as usize].fill(0);
                Event::Stored
            }
            Step::Space => {
                let used = (self.mapped.iter().filter(|mapped| **mapped).count() * BLOCK) as u64;
                Event::Space(Space { used: Some(used), available: self.free })
            }
            Step::Status { offset, length, limit } => {
                self.status(offset, length, limit);
                Event::Extents(&self.extents)
            }
            Step::Barrier { .. } | Step::Detach => Event::Stored,
            Step::Done(_) => unreachable!(),
        }
    }

    fn medium_of(&mut self, unit: UnitId) -> &mut Vec<u8> {
        if unit == self.unit.id() {
            return self.medium;
        }
        &mut self.others.iter_mut().find(|(other, _)| other.id() == unit).expect("a unit of this host").1
    }

    /// Does the next chore.
    fn chore(&mut self, background: &mut Background) -> Chore {
        let chore = background.next();
        let stored = matches!(chore, Chore::Fill { .. } | Chore::Zero { .. });
        let result = self.fault.take_if(|_| stored).map_or(Ok(()), Err);
        match chore {
            _ if result.is_err() => (),
            Chore::Fill { offset, length } => {
                let target = range(offset, length);
                self.map(target.clone(), true);
                background.pattern(self.unit.block_size(), &mut self.medium[target]);
            }
            Chore::Zero { offset, length, unmap } => self.zero(offset, length, unmap),
            Chore::Flush => *self.flushes += 1,
            Chore::Save | Chore::Began(_) | Chore::Claim | Chore::End => (),
        }
        background.done(self.unit, result);
        chore
    }

    fn zero(&mut self, offset: u64, length: u64, unmap: bool) {
        let target = range(offset, length);
        self.map(target.clone(), !unmap);
        self.medium[target].fill(0);
    }

    fn map(&mut self, target: std::ops::Range<usize>, mapped: bool) {
        self.mapped[target.start / BLOCK..target.end / BLOCK].fill(mapped);
    }

    fn status(&mut self, offset: u64, length: u64, limit: u32) {
        let bytes = range(offset, length);
        let blocks = bytes.start / BLOCK..bytes.end / BLOCK;
        self.extents.clear();
        for block in blocks {
            let mapped = self.mapped[block];
            let offset = (block * BLOCK) as u64;
            let full = self.extents.len() == limit as usize;
            match self.extents.last_mut() {
                Some(last) if last.mapped == mapped => last.length += BLOCK as u64,
                _ if full => return,
                _ => self.extents.push(Extent { offset, length: BLOCK as u64, mapped }),
            }
        }
    }
}

fn range(offset: u64, length: u64) -> std::ops::Range<usize> {
    assert_eq!(length % BLOCK as u64, 0);
    assert!(length > 0, "an empty range reaches the store");
    offset as usize..(offset + length) as usize
}

/// A CDB of 10 bytes with LBA and number of blocks.
pub fn cdb_10(opcode: u8, byte_1: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let ([a, b, c, d], [e, f]) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [opcode, byte_1, a, b, c, d, 0, e, f, 0]
}

/// A CDB of 12 bytes with LBA and number of blocks.
pub fn cdb_12(opcode: u8, byte_1: u8, lba: u32, blocks: u32) -> [u8; 12] {
    let mut cdb = [0; 12];
    cdb[0] = opcode;
    cdb[1] = byte_1;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[6..10].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// A CDB of 16 bytes with LBA and number of blocks.
pub fn cdb_16(opcode: u8, byte_1: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = byte_1;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

pub const ILLEGAL: SenseKey = SenseKey::IllegalRequest;
