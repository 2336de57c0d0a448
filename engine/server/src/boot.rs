//! From a plan to running data cores: stores opened, identities looked up, rings made, threads pinned.

use crate::{
    core::{Core, CoreLimits, Unit, store_token_base},
    lasting::{Keeper, UnitFiles},
    mail::{Post, ToControl},
    state::{State, StateError},
};
use backstore::{BlockSettings, FileSettings, Kind, OpenError, Settings, Store};
use backstore_api::Protection;
use config::Plan;
use memory::{Arena, ArenaConfig};
use reactor::{FeatureMask, Reactor, Ring, RingSettings, RingWaker};
use scsi::{AccessState, CopyManager, GroupAccess, LogicalUnit, PortId, Profile, TargetPort};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};
use tracing::{debug, info, warn};

/// Why the target could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A store can't be opened.
    #[error("volume `{volume}`: {source}")]
    Store {
        /// Its short name.
        volume: String,
        /// Why.
        source: OpenError,
    },
    /// A volume is to be thin, and its store gives nothing back.
    #[error("volume `{volume}`: its store can't give space back; take `provisioning = \"thin\"` away")]
    NotThin {
        /// Its short name.
        volume: String,
    },
    /// A configured NAA identifier is one that another volume was given.
    #[error("volume `{volume}` has the NAA identifier of volume `{other}`; give one of them another `naa`")]
    SameNaa {
        /// Its short name.
        volume: String,
        /// The other's.
        other: String,
    },
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A portal can't be opened.
    #[error("portal {address}: {source}; is another target listening there? choose another `address` in [[portal]]")]
    Portal {
        /// Its address as in the config.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A data core can't start.
    #[error("data core {core}: {doing}: {source}")]
    Core {
        /// The processor.
        core: usize,
        /// What failed.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A kernel feature in `mask_features` that the reactor does not know.
    #[error("`mask_features` in [server]: {0}")]
    Feature(String),
    /// The control thread.
    #[error("control thread: {0}")]
    Control(io::Error),
    /// The drain took too long, or a store could not be flushed.
    #[error("shutdown: {0}")]
    Shutdown(String),
}

/// What all cores and the control thread have of the volumes and targets.
pub(crate) struct House {
    /// By position in every core's list of units. None: free.
    pub seats: Vec<Option<Seat>>,
    /// Positions of the plan's volumes.
    pub slots: Vec<u16>,
    /// Portal groups.
    pub groups: BTreeSet<u16>,
    /// By target name and portal group.
    pub ports: Ports,
    /// Tokens of all units: those of all ports.
    pub copies: Arc<CopyManager>,
    /// Keeps the state directory locked.
    pub state: State,
}

/// Ports by target name and portal group.
pub(crate) type Ports = BTreeMap<(String, u16), Arc<TargetPort>>;

/// A volume that is served.
#[derive(Clone)]
pub(crate) struct Seat {
    pub store: Arc<Store>,
    pub unit: Arc<LogicalUnit>,
    /// Keeps its lasting state.
    pub keeper: Arc<dyn Keeper>,
}

impl House {
    /// Opens every store, and looks up what was recorded. Blocks.
    pub fn open(plan: &Plan) -> Result<House, ServeError> {
        let mut state = State::open(&plan.server.state_dir)?;
        let mut seats = Vec::new();
        for volume in &plan.volumes {
            let store = open_store(volume, plan.limits.store_depth)?;
            info!(volume = volume.name, bytes = store.bytes(), "volume is ready");
            seats.push(Some(make_seat(plan, volume, store, &mut state, &seats)?));
        }
        let groups = plan.portals.iter().map(|p| p.group).collect();
        let slots = (0..seats.len() as u16).collect();
        let copies = CopyManager::new(rand::random());
        let mut house = House { seats, slots, groups, ports: BTreeMap::new(), copies, state };
        for target in &plan.targets {
            let ports = house.ports_of(target, &house.slots.clone())?;
            house.ports.extend(ports);
        }
        house.state.save()?;
        Ok(house)
    }

    /// The ports of a target, one for each portal group; `slots`: the positions of its plan's volumes.
    pub fn ports_of(&mut self, target: &config::Target, slots: &[u16]) -> Result<Ports, StateError> {
        let mut ids = Vec::new();
        for &portal_group in &self.groups {
            ids.push(PortId { relative_port: self.state.relative_port(&target.name, portal_group)?, portal_group });
        }
        let unit = |volume: usize| self.seats.get(slots[volume] as usize)?.as_ref().map(|seat| seat.unit.clone());
        let port = |&PortId { relative_port, portal_group }: &PortId| {
            let port = TargetPort {
                target_name: target.name.clone(),
                portal_group,
                relative_port,
                ports: ids.clone(),
                luns: target.luns.iter().filter_map(|(&lun, &volume)| Some((lun, unit(volume)?))).collect(),
                copies: self.copies.clone(),
            };
            ((target.name.clone(), portal_group), Arc::new(port))
        };
        Ok(ids.iter().map(port).collect())
    }
}

/// What a volume's store is opened and measured with; `depth`: requests in flight per core.
pub(crate) fn store_settings(volume: &config::Volume, depth: u32) -> Settings {
    let protection = volume.protection.and_then(protection);
    Settings { block_size: volume.block_size, depth, protection, ..Settings::new(kind(&volume.store)) }
}

/// Opens the store of a volume. Blocks.
pub(crate) fn open_store(volume: &config::Volume, depth: u32) -> Result<Arc<Store>, ServeError> {
    let store = Store::open(&store_settings(volume, depth))
        .map_err(|source| ServeError::Store { volume: volume.name.clone(), source })?;
    if volume.provisioning == Some(config::Provisioning::Thin) && store.geometry().discard_granularity == 0 {
        return Err(ServeError::NotThin { volume: volume.name.clone() });
    }
    Ok(store)
}

/// The logical unit of a volume, with the identity and the state that are recorded for it; `others`: those that are there.
/// Blocks.
pub(crate) fn make_seat(
    plan: &Plan,
    volume: &config::Volume,
    store: Arc<Store>,
    state: &mut State,
    others: &[Option<Seat>],
) -> Result<Seat, ServeError> {
    let mut identity = state.identity(&place(&volume.store, &volume.full_name), &volume.full_name);
    let wanted = &volume.identity;
    let set = |field: &mut String, value: &Option<String>| {
        if let Some(value) = value {
            field.clone_from(value);
        }
    };
    set(&mut identity.vendor, &wanted.vendor);
    set(&mut identity.product, &wanted.product);
    set(&mut identity.revision, &wanted.revision);
    set(&mut identity.serial, &wanted.serial);
    if let Some(naa) = wanted.naa {
        (identity.naa, identity.naa_extension) = (naa.value, naa.extension);
    }
    let mut identities = others.iter().flatten().map(|seat| seat.unit.identity());
    if let Some(other) = identities.find(|of| (of.naa, of.naa_extension) == (identity.naa, identity.naa_extension)) {
        return Err(ServeError::SameNaa { volume: volume.name.clone(), other: other.name.clone() });
    }
    let profile = Profile {
        clock_zero: clock_zero(),
        access: plan.portal_groups.iter().map(group_access).collect(),
        explicit_access: plan.server.explicit_alua,
        physical_block_size: volume.physical_block_size.unwrap_or(0),
        rotation_rate: volume.rotation_rate.unwrap_or(0),
        provisioning: volume.provisioning.map(provisioning),
        removable: volume.removable,
        write_protected: volume.write_protected,
        protection: volume.protection.and_then(protection),
        background_rate: volume.background_rate.unwrap_or(0),
        ..Profile::new(identity, volume.block_size)
    };
    let unit = LogicalUnit::new(profile, store.geometry().clone());
    let mut files = UnitFiles::new(state.folder());
    files.load(&unit)?;
    Ok(Seat { store, unit, keeper: Arc::new(files) })
}

fn group_access(group: &config::PortalGroup) -> GroupAccess {
    let state = match group.state {
        config::AccessState::Optimized => AccessState::Optimized,
        config::AccessState::NonOptimized => AccessState::NonOptimized,
        config::AccessState::Standby => AccessState::Standby,
        config::AccessState::Unavailable => AccessState::Unavailable,
    };
    GroupAccess { portal_group: group.group, state, preferred: group.preferred }
}

/// Time since 1970 when the monotonic clock, which reactors tell, was zero.
fn clock_zero() -> Duration {
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let monotonic = Duration::from_secs(u64::try_from(monotonic.tv_sec).unwrap_or(0));
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(monotonic)
}

fn kind(store: &config::Store) -> Kind {
    match store.clone() {
        config::Store::Ram { size, preallocate } => Kind::Ram { bytes: size, preallocate },
        config::Store::Null { size } => Kind::Null { bytes: size },
        config::Store::File { path, size, direct, poll, preallocate, pinned, read_only } => {
            Kind::File(FileSettings { direct, poll, preallocate, pinned, read_only, ..FileSettings::new(path, size) })
        }
        config::Store::Block { path, direct, poll, pinned, read_only } => {
            Kind::Block(BlockSettings { path, direct, poll, pinned, read_only })
        }
    }
}

fn provisioning(wanted: config::Provisioning) -> scsi::Provisioning {
    match wanted {
        config::Provisioning::Thin => scsi::Provisioning::Thin,
        config::Provisioning::Full => scsi::Provisioning::Full,
        config::Provisioning::Zeroing => scsi::Provisioning::Resource,
    }
}

fn protection(kind: u8) -> Option<Protection> {
    match kind {
        1 => Some(Protection::Type1),
        2 => Some(Protection::Type2),
        3 => Some(Protection::Type3),
        _ => None,
    }
}

/// What names a volume's data, whatever the volume is called.
fn place(store: &config::Store, full_name: &str) -> String {
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
    match store.path() {
        Some(path) => format!("{}:{}", store.kind(), absolute(path)),
        None => format!("{}:{full_name}", store.kind()),
    }
}

/// A data core's thread.
pub(crate) struct Running {
    pub core: usize,
    pub thread: JoinHandle<io::Result<()>>,
}

type Started = Result<(RingWaker, String), (&'static str, io::Error)>;

/// Starts all data cores; gives their letter boxes and threads.
pub(crate) fn start_cores(
    plan: &Plan,
    house: &House,
    bell: impl Fn() + Send + Sync + 'static,
) -> Result<(Arc<Post<RingWaker>>, Vec<Running>), ServeError> {
    let mask = feature_mask(&plan.server.mask_features)?;
    let mut waiting = Vec::new();
    for (number, &cpu) in plan.server.cores.iter().enumerate() {
        let (started, has_started) = mpsc::channel::<Started>();
        let (go, may_go) = mpsc::channel::<Arc<Post<RingWaker>>>();
        let core = Blueprint {
            number: number as u16,
            cpu,
            settings: ring_settings(plan, mask),
            arena: arena_config(plan),
            limits: core_limits(plan),
            seats: house.seats.iter().flatten().cloned().collect(),
        };
        let thread = thread::Builder::new()
            .name(format!("core-{cpu}"))
            .spawn(move || core.run(&started, &may_go))
            .map_err(|source| ServeError::Core { core: cpu, doing: "start its thread", source })?;
        waiting.push((cpu, thread, has_started, go));
    }
    let mut wakers = Vec::new();
    for (cpu, _, has_started, _) in &waiting {
        let ended = || ("start", io::Error::other("its thread ended"));
        let (waker, features) = has_started
            .recv()
            .unwrap_or_else(|_| Err(ended()))
            .map_err(|(doing, source)| ServeError::Core { core: *cpu, doing, source })?;
        debug!(core = cpu, features, "data core is ready");
        wakers.push(waker);
    }
    let post = Post::new(wakers, bell);
    let mut running = Vec::new();
    for (core, thread, _, go) in waiting {
        // A thread that is gone shows when it is joined.
        let _ = go.send(post.clone());
        running.push(Running { core, thread });
    }
    Ok((post, running))
}

struct Blueprint {
    number: u16,
    cpu: usize,
    settings: RingSettings,
    arena: ArenaConfig,
    limits: CoreLimits,
    seats: Vec<Seat>,
}

impl Blueprint {
    /// The whole life of a core's thread: the ring is made, used and dropped here.
    fn run(self, started: &mpsc::Sender<Started>, may_go: &mpsc::Receiver<Arc<Post<RingWaker>>>) -> io::Result<()> {
        let (ring, units) = match self.build() {
            Ok(built) => built,
            Err(failure) => {
                let _ = started.send(Err(failure));
                return Ok(());
            }
        };
        let _ = started.send(Ok((ring.waker(), ring.features().to_string())));
        let Ok(post) = may_go.recv() else { return Ok(()) };
        let ended = Core::new(self.number, self.limits, ring, post.clone(), units).run();
        if let Err(error) = &ended {
            // Nobody is served here any more: the control thread shuts the rest down.
            let failures = vec![format!("data core {}: {error}", self.cpu)];
            post.report(ToControl::Drained { core: self.number, cut: 0, failures });
        }
        ended
    }

    #[allow(clippy::type_complexity)]
    fn build(&self) -> Result<(Ring, Vec<Unit<Ring>>), (&'static str, io::Error)> {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: self.cpu }) {
            warn!(core = self.cpu, "the thread could not be pinned to its processor");
        }
        let arena = Arena::new(self.arena).map_err(|e| ("map its buffers", e))?;
        let mut ring = Ring::new(&self.settings, &arena).map_err(|e| ("make its ring", e))?;
        let mut units = Vec::new();
        let total = self.arena.small + self.arena.medium + self.arena.large;
        for (index, Seat { store, unit, keeper }) in self.seats.iter().enumerate() {
            let queue =
                store.queue(&mut ring, store_token_base(index as u16)).map_err(|e| ("open a store's queue", e))?;
            units.push(Unit::new(unit.clone(), queue, total / 2).kept_by(keeper.clone()));
        }
        Ok((ring, units))
    }
}

// `config` adds up memory without seeing the pools: both must mean the same buffers.
const _: () = {
    assert!(config::buffer_cost(1, 0, 0) == memory::Class::Small.stride() as u64);
    assert!(config::buffer_cost(0, 1, 0) == memory::Class::Medium.stride() as u64);
    assert!(config::buffer_cost(0, 0, 1) == memory::Class::Large.stride() as u64);
};

fn feature_mask(names: &[String]) -> Result<FeatureMask, ServeError> {
    names.join(",").parse::<FeatureMask>().map_err(|error| ServeError::Feature(error.to_string()))
}

fn arena_config(plan: &Plan) -> ArenaConfig {
    let pools = plan.pools();
    ArenaConfig { small: pools.small, medium: pools.medium, large: pools.large }
}

fn core_limits(plan: &Plan) -> CoreLimits {
    let pools = plan.pools();
    CoreLimits {
        sessions: pools.connections,
        window: plan.limits.queue_depth,
        tasks: pools.commands,
        nop_interval: plan.limits.nop_interval,
        nop_timeout: plan.limits.nop_timeout,
    }
}

fn ring_settings(plan: &Plan, features: FeatureMask) -> RingSettings {
    let pools = plan.pools();
    RingSettings {
        entries: pools.ring_entries,
        slots: pools.operations,
        files: pools.files,
        receive_buffers: pools.receive_buffers.min(32_768) as u16,
        iowq_bounded: pools.kernel_workers,
        spin: plan.server.spin,
        busy_poll: plan.server.busy_poll,
        zero_copy: plan.server.zero_copy,
        splice: plan.server.splice,
        worker_cpus: plan.server.cores.iter().map(|&c| c as u32).collect(),
        features,
        ..RingSettings::default()
    }
}
