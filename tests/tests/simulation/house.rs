//! The target in a simulated world: cores on twins, file stores on simulated files, initiators at the other ends.

use crate::{
    client::{Client, Said, WINDOW},
    dice::Dice,
};
use backstore::{Kind, Settings, Store};
use backstore_api::Geometry;
use initiator::{Command, cdb, lun as lun_field};
use memory::{Arena, ArenaConfig, Class};
use negotiation::Parameters;
use reactor::{
    Reactor, Wait,
    twin::{Conduct, Twin, TwinFile, TwinSettings, TwinWaker, World},
};
use scsi::{Identity, InitiatorPort, LogicalUnit, Profile, TargetPort};
use server::{
    core::{Core, CoreLimits, Unit, store_token_base},
    lasting::Keeper,
    mail::{Handover, Installed, Post, ToControl, ToCore},
};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A volume to serve.
#[derive(Clone)]
pub struct Volume {
    pub bytes: u64,
    pub block_size: u32,
    /// Of the file's I/O: 1, 512 or 4096.
    pub alignment: u32,
    /// Requests in flight per core.
    pub depth: u32,
    /// It is a RAM volume; what is said of the file means nothing.
    pub memory: bool,
}

impl Volume {
    pub fn new(bytes: u64) -> Volume {
        Volume { bytes, block_size: 512, alignment: 1, depth: 32, memory: false }
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            alignment: self.alignment,
            discard_granularity: 4096,
            discard_zeroes: true,
            ..Geometry::new(self.bytes)
        }
    }
}

/// Where simulated units keep their lasting state: it outlives a house.
#[derive(Default)]
pub struct Shelf {
    /// Records by NAA.
    records: Mutex<HashMap<u64, Vec<u8>>>,
    /// Nothing can be kept.
    pub broken: AtomicBool,
}

impl Shelf {
    fn load(&self, unit: &LogicalUnit) {
        if let Some(record) = self.records.lock().expect("the shelf").get(&unit.identity().naa) {
            unit.restore(serde_json::from_slice(record).expect("a record")).expect("a state that can be");
        }
    }
}

impl Keeper for Shelf {
    fn keep(&self, unit: &LogicalUnit) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let record = serde_json::to_vec(&unit.lasting().1)?;
        self.records.lock().expect("the shelf").insert(unit.identity().naa, record);
        Ok(())
    }
}

/// What to build.
pub struct Blueprint {
    pub shelf: Arc<Shelf>,
    pub cores: u16,
    pub arena: ArenaConfig,
    pub twin: TwinSettings,
    pub tasks: u32,
    pub volumes: Vec<Volume>,
    pub conduct: Conduct,
    /// Silence after which the target asks whether an initiator is there.
    pub nop_interval: Duration,
}

impl Blueprint {
    pub fn new(volumes: Vec<Volume>) -> Blueprint {
        Blueprint {
            shelf: Arc::default(),
            cores: 1,
            arena: ArenaConfig { small: 64, medium: 48, large: 24 },
            twin: TwinSettings::default(),
            tasks: 1024,
            volumes,
            conduct: Conduct::default(),
            nop_interval: Duration::from_secs(10),
        }
    }
}

/// A disk with random manners.
pub fn random_conduct(dice: &mut Dice) -> Conduct {
    let longest = dice.pick(&[20, 200, 2_000, 20_000]);
    Conduct {
        delay: Duration::from_micros(1)..Duration::from_micros(longest),
        fragment: !dice.once_in(4),
        window: dice.pick(&[4 << 10, 64 << 10, 1 << 20]),
    }
}

/// The target and its initiators.
pub struct House {
    pub world: World,
    pub cores: Vec<Core<Twin>>,
    pub post: Arc<Post<TwinWaker>>,
    pub stores: Vec<Arc<Store>>,
    pub files: Vec<TwinFile>,
    /// The volumes that are not on their files.
    in_memory: Vec<bool>,
    pub clients: Vec<Client>,
    /// Number of each client's session and its core.
    pub sessions: Vec<(u64, u16)>,
    /// Sessions whose end was reported.
    pub ended: Vec<u64>,
    /// Cores that are drained.
    pub drained: u16,
    /// What cores have said of units that come: core, position, and what stands in the way.
    pub added: Vec<(u16, u16, Result<(), String>)>,
    /// Cores that have let go of a unit: core, and its position.
    pub removed: Vec<(u16, u16)>,
    /// What sessions see.
    pub port: Arc<TargetPort>,
    /// Buffers that each twin keeps for receives.
    provided: u32,
    alive: Vec<bool>,
    /// Sleeps for short times only, so that initiators get their turn while cores wait.
    clock: Twin,
    next_session: u64,
    /// Where the next turn of `settle` begins.
    pub dice: Dice,
}

impl House {
    pub fn new(seed: u64, blueprint: &Blueprint) -> House {
        let world = World::with(seed, blueprint.conduct.clone());
        let files = blueprint.volumes.iter().map(|volume| world.file(volume.bytes)).collect();
        House::on(world, files, seed, blueprint)
    }

    /// Two volumes of so many bytes on one or two cores, with sessions of all kinds that have nothing to be told.
    pub fn pair(seed: u64, dice: &mut Dice, bytes: u64, clients: u64) -> House {
        let mut volume =
            || Volume { alignment: dice.pick(&[1, 512, 4096]), depth: dice.pick(&[1, 4, 32]), ..Volume::new(bytes) };
        let volumes = vec![volume(), volume()];
        House::inhabited(seed, dice, volumes, &[1, 2, 2], clients)
    }

    /// On one of these numbers of cores, with so many sessions of all kinds that have nothing to be told.
    pub fn inhabited(seed: u64, dice: &mut Dice, volumes: Vec<Volume>, cores: &[u16], clients: u64) -> House {
        let mut blueprint = Blueprint::new(volumes);
        blueprint.cores = dice.pick(cores);
        blueprint.conduct = random_conduct(dice);
        let mut house = House::new(seed, &blueprint);
        for client in 0..clients {
            house.connect((client % u64::from(blueprint.cores)) as u16, random_parameters(dice));
        }
        house.clear_attentions();
        house
    }

    /// On files that are there already.
    pub fn on(world: World, files: Vec<TwinFile>, seed: u64, blueprint: &Blueprint) -> House {
        let mut stores = Vec::new();
        let mut logicals = Vec::new();
        for (number, (volume, file)) in blueprint.volumes.iter().zip(&files).enumerate() {
            file.require_alignment(volume.alignment);
            let store = if volume.memory {
                let kind = Kind::Ram { bytes: volume.bytes, preallocate: false };
                let settings = Settings { block_size: volume.block_size, ..Settings::new(kind) };
                Store::open(&settings).expect("memory")
            } else {
                let descriptor = world.open(file).expect("a descriptor");
                Store::adopt(descriptor, volume.geometry(), volume.depth, &[]).expect("a legal alignment")
            };
            let identity = Identity::from_name(&format!("iqn.2026-01.io.ringlun:v{number}"));
            let unit = LogicalUnit::new(Profile::new(identity, volume.block_size), store.geometry().clone());
            blueprint.shelf.load(&unit);
            logicals.push(unit);
            stores.push(store);
        }
        let port = Arc::new(TargetPort {
            target_name: "iqn.2026-01.io.ringlun:simulation".into(),
            portal_group: 1,
            relative_port: 1,
            ports: vec![scsi::PortId { relative_port: 1, portal_group: 1 }],
            luns: logicals.iter().enumerate().map(|(lun, unit)| (lun as u16, unit.clone())).collect(),
            copies: scsi::CopyManager::new([7; 32]),
        });
        let mut twins = Vec::new();
        for _ in 0..blueprint.cores {
            let arena = Arena::new(blueprint.arena).expect("memory");
            twins.push(Twin::new(&world, &arena, blueprint.twin.clone()));
        }
        let least = Arena::new(ArenaConfig { small: 1, medium: 0, large: 0 }).expect("memory");
        let clock = Twin::new(&world, &least, TwinSettings { receive_buffers: 0, ..TwinSettings::default() });
        let post = Post::new(twins.iter().map(Reactor::waker).collect(), || ());
        // As the program does: half of all buffers for each unit.
        let share = (blueprint.arena.small + blueprint.arena.medium + blueprint.arena.large) / 2;
        let limits = CoreLimits {
            sessions: 128,
            window: WINDOW,
            tasks: blueprint.tasks,
            nop_interval: blueprint.nop_interval,
            nop_timeout: Duration::from_secs(20),
        };
        let mut cores = Vec::new();
        for (number, mut twin) in twins.into_iter().enumerate() {
            let mut units = Vec::new();
            for (index, (store, logical)) in stores.iter().zip(&logicals).enumerate() {
                let queue = store.queue(&mut twin, store_token_base(index as u16)).expect("a queue");
                units.push(Unit::new(logical.clone(), queue, share).kept_by(blueprint.shelf.clone()));
            }
            cores.push(Core::new(number as u16, limits, twin, post.clone(), units));
        }
        House {
            world,
            alive: vec![true; cores.len()],
            cores,
            post,
            stores,
            files,
            in_memory: blueprint.volumes.iter().map(|volume| volume.memory).collect(),
            clients: Vec::new(),
            sessions: Vec::new(),
            ended: Vec::new(),
            drained: 0,
            added: Vec::new(),
            removed: Vec::new(),
            port,
            clock,
            provided: u32::from(blueprint.twin.receive_buffers),
            next_session: 1,
            dice: Dice::new(seed ^ 0x5eed),
        }
    }

    /// What a volume's medium holds.
    pub fn contents(&mut self, unit: usize, range: Range<u64>) -> Vec<u8> {
        if !self.in_memory[unit] {
            return self.files[unit].contents(range);
        }
        let mut queue = self.stores[unit].queue(&mut self.clock, store_token_base(unit as u16)).expect("a queue");
        let mut bytes = vec![0; (range.end - range.start) as usize];
        queue.read_now(range.start, &mut bytes).expect("memory").expect("in range");
        bytes
    }

    /// A logged-in session on a core; `parameters` are the target's view. Gives the client's number.
    pub fn connect(&mut self, core: u16, parameters: Parameters) -> usize {
        let (socket, peer) = self.world.connect().expect("a descriptor");
        let id = self.next_session;
        self.next_session += 1;
        let handover = Handover {
            identity: Installed {
                id,
                initiator: Arc::new(InitiatorPort {
                    name: format!("iqn.2026-01.io.ringlun:i{id}").into(),
                    isid: [0x80, 0, 0, 0, 0, 1],
                }),
                target: self.port.target_name.as_str().into(),
                address: SocketAddr::from(([127, 0, 0, 1], 1)),
            },
            cid: 0,
            parameters,
            exp_cmd_sn: 1,
            stat_sn: 1,
            port: self.port.clone(),
            response: Vec::new(),
            addresses: Arc::new([]),
            leftover: Vec::new(),
        };
        self.post.send(core, ToCore::Install(socket, Box::new(handover)));
        let mirrored = Parameters {
            max_recv_data_segment_length: parameters.peer_max_recv_data_segment_length,
            peer_max_recv_data_segment_length: parameters.max_recv_data_segment_length,
            ..parameters
        };
        self.clients.push(Client::new(peer, mirrored));
        self.sessions.push((id, core));
        self.clients.len() - 1
    }

    /// Turns one core, chosen by chance, then lets a client, or all, read. Gives what was said, with the client.
    pub fn step(&mut self) -> Vec<(usize, Said)> {
        let soon = self.world.now() + Duration::from_micros(self.dice.between(10, 3000));
        self.clock.turn(Wait::Until(soon), &mut Vec::new()).expect("a turn");
        let core = self.dice.below(self.cores.len() as u64) as usize;
        if self.alive[core] {
            self.alive[core] = self.cores[core].turn().expect("a turn");
        } else {
            self.cores[core].reactor().turn(Wait::Forever, &mut Vec::new()).expect("a turn");
        }
        while let Some(report) = self.post.reported() {
            match report {
                ToControl::Ended { ended, .. } => self.ended.push(ended.id),
                ToControl::Added { core, slot, result } => self.added.push((core, slot, result)),
                ToControl::Removed { core, slot, failure } => {
                    assert_eq!(failure, None, "unit {slot} on core {core}");
                    self.removed.push((core, slot));
                }
                ToControl::Drained { failures, .. } => {
                    assert!(failures.is_empty(), "{failures:?}");
                    self.drained += 1;
                }
            }
        }
        let mut said = Vec::new();
        for (number, client) in self.clients.iter_mut().enumerate() {
            // Some read late.
            if self.dice.once_in(8) {
                continue;
            }
            said.extend(client.serve(&mut self.dice).into_iter().map(|what| (number, what)));
        }
        said
    }

    /// Steps until `done`, and panics when it takes longer than a minute of simulated time.
    pub fn until(
        &mut self,
        what: &str,
        mut each: impl FnMut(&mut House, usize, Said),
        mut done: impl FnMut(&House) -> bool,
    ) {
        let mut patience = Patience::new(self);
        while !done(self) {
            assert!(patience.lasts(self), "{what}: nothing comes of it");
            for (client, said) in self.step() {
                each(self, client, said);
            }
        }
    }

    /// No command of any client that reads is without an answer.
    pub fn is_answered(&self) -> bool {
        self.clients.iter().all(|client| client.deaf || client.closed.is_some() || client.connection.in_flight() == 0)
    }

    /// Clears the unit attention that each new session has for each unit, so that commands run.
    pub fn clear_attentions(&mut self) {
        let units = self.stores.len() as u16;
        for client in &mut self.clients {
            if client.closed.is_none() && !client.deaf {
                for lun in 0..units {
                    let command = Command::none(cdb::test_unit_ready()).to_lun(lun_field(lun));
                    client.submit(&command, Vec::new());
                }
            }
        }
        self.until("TEST UNIT READY", |_, _, _| (), House::is_answered);
    }

    /// Ends all sessions and drains the cores: everything must come home.
    pub fn close(mut self) {
        for client in &mut self.clients {
            if client.closed.is_none() {
                client.peer.close();
            }
        }
        let mut patience = Patience::new(&self);
        while self.cores.iter().any(|core| core.sessions() > 0) {
            assert!(patience.lasts(&self), "sessions do not end");
            self.step();
        }
        for core in 0..self.cores.len() {
            self.post.send(core as u16, ToCore::Drain { seconds: 5 });
        }
        while self.drained < self.cores.len() as u16 {
            assert!(patience.lasts(&self), "the cores do not drain");
            self.step();
        }
        let mut ended = self.ended.clone();
        ended.sort_unstable();
        let all: Vec<u64> = self.sessions.iter().map(|(id, _)| *id).collect();
        assert_eq!(ended, all, "each session's end is reported once");
        self.check_home();
    }

    /// All buffers are in their pools, but for those that the twins and the queues keep.
    pub fn check_home(&mut self) {
        for core in 0..self.cores.len() {
            let away = self.away(core);
            assert_eq!(away, [0, 0, 0], "buffers of core {core} that did not come home: small, medium, large");
        }
    }

    /// Buffers of a core that are in use: small, medium, large.
    pub fn away(&mut self, core: usize) -> [u32; 3] {
        let mut kept = [0, self.provided, 0];
        for store in &self.stores {
            for (kept, count) in kept.iter_mut().zip(store.buffers_per_queue()) {
                *kept += count;
            }
        }
        let pool = self.cores[core].reactor().pool();
        let mut away = [0; 3];
        for (i, class) in Class::ALL.into_iter().enumerate() {
            away[i] = (pool.capacity(class) - pool.available(class)).saturating_sub(kept[i]);
        }
        away
    }
}

/// How long to wait for something: a minute of simulated time, and a number of steps for a target that spins.
pub struct Patience {
    time: Duration,
    steps: u32,
}

impl Patience {
    pub fn new(house: &House) -> Patience {
        Patience { time: house.world.now() + Duration::from_secs(60), steps: 300_000 }
    }

    /// So many times longer: for who waits for data in bursts of one sector.
    pub fn times(house: &House, factor: u32) -> Patience {
        let Patience { time, steps } = Patience::new(house);
        Patience { time: time + factor * Duration::from_secs(60), steps: steps * factor }
    }

    pub fn lasts(&mut self, house: &House) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps > 0 && house.world.now() < self.time
    }
}

/// Parameters as two random parties might agree on them, in the target's view.
pub fn random_parameters(dice: &mut Dice) -> Parameters {
    let length = |dice: &mut Dice| match dice.below(4) {
        0 => dice.pick(&[512, 1024, 4096, 8192]),
        1 => dice.between(512, 9000) as u32,
        _ => dice.pick(&[8192, 65_536, 262_144]),
    };
    let max_burst_length = length(dice).max(dice.pick(&[512, 4096, 65_536]));
    Parameters {
        header_digest: dice.once_in(3),
        data_digest: dice.once_in(3),
        initial_r2t: dice.once_in(2),
        immediate_data: !dice.once_in(3),
        max_recv_data_segment_length: length(dice),
        peer_max_recv_data_segment_length: length(dice),
        max_burst_length,
        first_burst_length: length(dice).min(max_burst_length),
        max_outstanding_r2t: dice.pick(&[1, 1, 2, 4, 8]),
        ..Parameters::default()
    }
}
