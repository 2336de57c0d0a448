//! The plan: what a configuration says after it has been checked. Plain data.
use crate::{Access, AccessRule, HashAlgorithm, Pools, Size, access};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// What `mask_features` may name: features of the kernel, by the names that the reactor reports, and `all` of them. A
/// kernel release (`5.19`) is possible too: it leaves unused what that release lacks.
pub const FEATURES: &[&str] = &[
    "all",
    "single_issuer",
    "defer_taskrun",
    "coop_taskrun",
    "no_sqarray",
    "registered_files",
    "prompt_release",
    "registered_buffers",
    "provided_buffers",
    "multishot",
    "msg_ring",
    "worker_limits",
    "worker_affinity",
    "busy_poll",
    "zero_copy",
    "splice",
    "polled_disks",
];

/// A whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What is not of one volume or target.
    pub server: Server,
    /// Bounds and times.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Where to listen; never empty.
    pub portals: Vec<Portal>,
    /// Every group of a portal, by tag.
    pub portal_groups: Vec<PortalGroup>,
    /// Every volume, in the order of the file. [`Target::luns`] holds indices into this.
    pub volumes: Vec<Volume>,
    /// Every target: the volumes' own ones first, in the order of the file, then the `[[target]]` ones.
    pub targets: Vec<Target>,
    /// Made by [`Plan::demo`]: no file says so.
    pub demo: bool,
}

/// `[server]`, but for its limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Server {
    /// Data cores, each allowed to this process and named once; never empty.
    pub cores: Vec<usize>,
    /// Folder for reservations and generated identities. May not exist yet; its parent does.
    pub state_dir: PathBuf,
    /// What every target's name begins with, up to and without the colon before the volume's name.
    pub iqn_prefix: String,
    /// Initiators may change access states of portal groups (SET TARGET PORT GROUPS).
    pub explicit_alua: bool,
    /// Names out of [`FEATURES`], or kernel releases: what `FeatureMask` of the reactor reads.
    pub mask_features: Vec<String>,
    /// The longest time that a data core looks for work before it sleeps; zero: never.
    pub spin: Duration,
    /// The longest time that the kernel polls network cards before it lets a data core sleep; zero: never.
    pub busy_poll: Duration,
    /// Answers with a piece of at least so many bytes are sent without a copy; 0: none.
    pub zero_copy: u32,
    /// Reads of at least so many bytes of RAM volumes go to the socket by the page; 0: none.
    pub splice: u32,
}

/// Bounds of what is held, and times. All are of the whole process unless they say something else.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Connections in full feature phase.
    pub max_connections: u32,
    /// Connections that have not finished their login.
    pub max_half_open_logins: u32,
    /// The same from one address; a full bound evicts that address's oldest.
    pub half_open_per_address: u32,
    /// From accept to the final login response.
    pub login_timeout: Duration,
    /// Sessions of one target, unless the target says something else ([`Target::max_sessions`]).
    pub sessions_per_target: u32,
    /// Commands that one session may have queued (MaxCmdSN window).
    pub queue_depth: u32,
    /// Memory for the buffers of one core, bytes; never below what [`Pools`] needs.
    pub buffer_memory: u64,
    /// Requests that one volume may have at its store from one core. Each of them may block a kernel worker.
    pub store_depth: u32,
    /// Volumes that may be there at a time: a reload that adds some finds the room that was kept for them.
    pub max_volumes: u32,
    /// How long a shutdown waits for commands before it closes connections.
    pub drain_timeout: Duration,
    /// A silent connection is asked with a NOP-In after this; zero: never.
    pub nop_interval: Duration,
    /// And is closed when no answer comes within this.
    pub nop_timeout: Duration,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `log` and `log_format` of `[server]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogSettings {
    /// A level (`warn`) or a tracing filter (`warn,ringlun=debug`). None: what the program finds right.
    pub level: Option<String>,
    /// None: text.
    pub format: Option<LogFormat>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Portal {
    /// Port 0: the system chooses one. An IPv6 portal takes IPv6 only (IPV6_V6ONLY): `[::]` and `0.0.0.0` stand
    /// side by side.
    pub address: SocketAddr,
    /// Target portal group tag, 1 to 65535.
    pub group: u16,
    /// False for the portals that are there because the file names none: on a host without IPv6, `[::]` may fail.
    pub required: bool,
}

/// Target portals of one group, which are a target port group of asymmetric access (ALUA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PortalGroup {
    /// Target portal group tag.
    pub group: u16,
    /// How units are reached through it at start.
    pub state: AccessState,
    /// Initiators are told that it is preferred.
    pub preferred: bool,
}

/// Asymmetric access state of a portal group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessState {
    /// `active/optimized`
    Optimized,
    /// `active/non-optimized`
    NonOptimized,
    /// `standby`
    Standby,
    /// `unavailable`
    Unavailable,
}

impl AccessState {
    /// As the file names it.
    pub const fn name(self) -> &'static str {
        match self {
            AccessState::Optimized => "active/optimized",
            AccessState::NonOptimized => "active/non-optimized",
            AccessState::Standby => "standby",
            AccessState::Unavailable => "unavailable",
        }
    }
}

/// A volume: what holds the blocks, and how it looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Volume {
    /// Short name, unique.
    pub name: String,
    /// `iqn_prefix:name`: what its identity is made of, and the name of its own target if it has one.
    pub full_name: String,
    /// What holds the blocks.
    pub store: Store,
    /// 512 or 4096.
    pub block_size: u32,
    /// Bytes of a physical block, a multiple of the block size; None: what the store says.
    pub physical_block_size: Option<u32>,
    /// MEDIUM ROTATION RATE: revolutions a minute, or 1 for a medium that doesn't rotate; None: what the store says.
    pub rotation_rate: Option<u16>,
    /// How its space is managed; None: as its store can.
    pub provisioning: Option<Provisioning>,
    /// Its medium can be ejected and loaded.
    pub removable: bool,
    /// Initiators can't write to it.
    pub write_protected: bool,
    /// Type of protection information (T10 DIF), 1 to 3, that the medium is formatted with; None: none.
    pub protection: Option<u8>,
    /// Bytes a second that SANITIZE and FORMAT UNIT work off at most; None: as many as they can.
    pub background_rate: Option<u64>,
    /// What INQUIRY says, where the file says something else than the default.
    pub identity: IdentityOverride,
    /// It has a target of its own.
    pub exported: bool,
}

/// Logical block provisioning (SBC-4 4.7), as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// UNMAP gives space back.
    Thin,
    /// There is no UNMAP.
    Full,
    /// UNMAP makes zeroes, and all space stays allocated.
    Zeroing,
}

impl Provisioning {
    /// Every kind.
    pub const ALL: [Provisioning; 3] = [Provisioning::Thin, Provisioning::Full, Provisioning::Zeroing];

    /// As the file names it.
    pub const fn name(self) -> &'static str {
        match self {
            Provisioning::Thin => "thin",
            Provisioning::Full => "full",
            Provisioning::Zeroing => "zeroing",
        }
    }
}

/// What holds a volume's blocks. `size` is a multiple of the block size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Store {
    /// A regular file.
    File {
        /// Absolute, or relative to the working directory.
        path: PathBuf,
        /// None: the file exists, and its size is taken.
        size: Option<u64>,
        /// O_DIRECT.
        direct: bool,
        /// Completions are looked for, if the device has queues for that; with `direct` only.
        poll: bool,
        /// All blocks are allocated when it is opened; else the file is sparse.
        preallocate: bool,
        /// Without `direct`: bytes that may be locked in memory and sent from there; 0: none.
        pinned: u64,
        /// No writes.
        read_only: bool,
    },
    /// A block device.
    Block {
        /// Absolute, or relative to the working directory.
        path: PathBuf,
        /// O_DIRECT; on unless switched off.
        direct: bool,
        /// Completions are looked for, if the device has queues for that; with `direct` only.
        poll: bool,
        /// Without `direct`: bytes that may be locked in memory and sent from there; 0: none.
        pinned: u64,
        /// No writes.
        read_only: bool,
    },
    /// Memory; gone when the process ends.
    Ram {
        /// Bytes.
        size: u64,
        /// All of it is allocated at start.
        preallocate: bool,
    },
    /// Reads zeroes, forgets writes.
    Null {
        /// Bytes.
        size: u64,
    },
}

impl Store {
    /// Bytes of it that may be locked in memory.
    pub const fn pinned(&self) -> u64 {
        match self {
            Store::File { pinned, .. } | Store::Block { pinned, .. } => *pinned,
            Store::Ram { .. } | Store::Null { .. } => 0,
        }
    }

    /// As the file names it: `file`, `block`, `ram`, `null`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Store::File { .. } => "file",
            Store::Block { .. } => "block",
            Store::Ram { .. } => "ram",
            Store::Null { .. } => "null",
        }
    }

    /// The size that the file gives, bytes; None when it is the store's own.
    pub const fn size(&self) -> Option<u64> {
        match self {
            Store::File { size, .. } => *size,
            Store::Block { .. } => None,
            Store::Ram { size, .. } | Store::Null { size } => Some(*size),
        }
    }

    /// File or device, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Store::File { path, .. } | Store::Block { path, .. } => Some(path),
            Store::Ram { .. } | Store::Null { .. } => None,
        }
    }
}

/// What a volume says of itself in INQUIRY; None: the default, which `scsi` makes from the full name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdentityOverride {
    /// T10 VENDOR IDENTIFICATION, at most 8 ASCII characters.
    pub vendor: Option<String>,
    /// PRODUCT IDENTIFICATION, at most 16.
    pub product: Option<String>,
    /// PRODUCT REVISION LEVEL, at most 4.
    pub revision: Option<String>,
    /// PRODUCT SERIAL NUMBER (VPD 80h), at most 32.
    pub serial: Option<String>,
    /// NAA designator (VPD 83h).
    pub naa: Option<Naa>,
}

/// An NAA designator (SPC-4 7.8.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Naa {
    /// Its first eight bytes; the upper four bits are 2, 3, 5 or 6.
    pub value: u64,
    /// The eight bytes that type 6 has more.
    pub extension: Option<u64>,
}

impl std::fmt::Display for Naa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.value)?;
        self.extension.map_or(Ok(()), |extension| write!(f, "{extension:016x}"))
    }
}

/// A target as initiators see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// Full iSCSI name.
    pub name: String,
    /// LUN (0 to 16383) to index into [`Plan::volumes`].
    pub luns: BTreeMap<u16, usize>,
    /// Who may log in; empty: anyone.
    pub access: Vec<AccessRule>,
    /// Sessions at a time.
    pub max_sessions: u32,
}

impl Target {
    /// Who `initiator` at `address` is to this target. See [`Plan::access_for`].
    pub fn access_for(&self, initiator: &str, address: IpAddr) -> Access<'_> {
        access::decide(&self.access, initiator, address)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 1024,
            max_half_open_logins: 256,
            half_open_per_address: 64,
            login_timeout: Duration::from_secs(15),
            sessions_per_target: 256,
            queue_depth: 128,
            buffer_memory: 128 << 20,
            store_depth: 128,
            max_volumes: SPARE_VOLUMES,
            drain_timeout: Duration::from_secs(30),
            nop_interval: Duration::from_secs(15),
            nop_timeout: Duration::from_secs(30),
        }
    }
}

/// Room that is kept for volumes to come, unless the file says something else.
const SPARE_VOLUMES: u32 = 8;

/// From so many bytes on references to pages cost less than copies; figures are in `benches/README.md`.
pub(crate) const DEFAULT_SPLICE: u32 = 4 << 10;
/// About what waking the peer takes, if that is a virtual machine, and less than what waking both takes.
pub(crate) const DEFAULT_SPIN: Duration = Duration::from_micros(100);

/// Most volumes of a process: a LUN map has as many.
pub(crate) const MAX_VOLUMES: u32 = 16_384;

/// The prefix of the demo, and of a file that names none.
pub(crate) const DEFAULT_PREFIX: &str = "iqn.2026-01.io.ringlun";

impl Plan {
    /// What `ringlun serve` does without a file: a RAM disk of 1 GiB as `iqn.2026-01.io.ringlun:demo` on
    /// 127.0.0.1:3260, for anyone on this machine, with its state in `./ringlun-state`. `allowed` are the cores that
    /// this process may use ([`crate::Host::allowed_cores`]).
    pub fn demo(allowed: &[usize]) -> Plan {
        // It has no file that could add volumes.
        let limits = Limits { max_connections: 256, max_volumes: 1, ..Limits::default() };
        let full_name = format!("{DEFAULT_PREFIX}:demo");
        Plan {
            server: Server {
                cores: default_cores(allowed),
                state_dir: PathBuf::from("./ringlun-state"),
                iqn_prefix: DEFAULT_PREFIX.to_owned(),
                explicit_alua: true,
                mask_features: Vec::new(),
                spin: DEFAULT_SPIN,
                busy_poll: Duration::ZERO,
                zero_copy: 0,
                splice: DEFAULT_SPLICE,
            },
            log: LogSettings { level: None, format: None },
            portals: vec![Portal {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, crate::DEFAULT_PORT)),
                group: 1,
                required: true,
            }],
            portal_groups: vec![PortalGroup { group: 1, state: AccessState::Optimized, preferred: false }],
            volumes: vec![Volume {
                name: "demo".to_owned(),
                full_name: full_name.clone(),
                store: Store::Ram { size: 1 << 30, preallocate: false },
                block_size: 512,
                physical_block_size: None,
                rotation_rate: None,
                provisioning: None,
                removable: false,
                write_protected: false,
                protection: None,
                background_rate: None,
                identity: IdentityOverride::default(),
                exported: true,
            }],
            targets: vec![Target {
                name: full_name,
                luns: BTreeMap::from([(0, 0)]),
                access: Vec::new(),
                max_sessions: limits.sessions_per_target,
            }],
            limits,
            demo: true,
        }
    }

    /// The target of this full name. Names are compared without regard to ASCII case (RFC 7143 4.2.7.1: names are
    /// lower-case once prepared).
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name.eq_ignore_ascii_case(name))
    }

    /// Who `initiator` at `address` is to the target of this name: open, under a rule, or denied and why. A target that
    /// doesn't exist is denied as well.
    ///
    /// An exact name beats every pattern, a pattern with more literal characters beats one with fewer, and the rules
    /// that are left are tried in the order of the file; the first whose addresses hold `address` is the answer.
    pub fn access_for(&self, target: &str, initiator: &str, address: IpAddr) -> Access<'_> {
        match self.target(target) {
            Some(target) => target.access_for(initiator, address),
            None => Access::Denied(crate::Denial::NoSuchTarget),
        }
    }

    /// `max_volumes` of a file that doesn't name it.
    pub fn default_max_volumes(&self) -> u32 {
        u32::try_from(self.volumes.len()).unwrap_or(u32::MAX).saturating_add(SPARE_VOLUMES).min(MAX_VOLUMES)
    }

    /// `buffer_memory` of a file that doesn't name it, bytes: it grows with what is needed at least.
    pub fn default_buffer_memory(&self) -> u64 {
        let least = Pools::least_memory(self);
        Limits::default().buffer_memory.max(least + least / 2)
    }

    /// How many of everything a core holds.
    pub fn pools(&self) -> Pools {
        Pools::of(self)
    }

    /// Every algorithm that some rule allows: what the login code has to know at all.
    pub fn chap_algorithms(&self) -> Vec<HashAlgorithm> {
        let used = |a: &HashAlgorithm| {
            self.targets
                .iter()
                .flat_map(|t| &t.access)
                .any(|rule| rule.chap.as_ref().is_some_and(|chap| chap.algorithms.contains(a)))
        };
        HashAlgorithm::ALL.into_iter().filter(used).collect()
    }

    /// Whether every portal is reachable from this machine only.
    pub fn loopback_only(&self) -> bool {
        self.portals.iter().all(|portal| portal.address.ip().to_canonical().is_loopback())
    }

    /// Memory of all RAM volumes.
    pub fn ram_volumes(&self) -> Size {
        let sum = self.volumes.iter().fold(0u64, |sum, volume| match volume.store {
            Store::Ram { size, .. } => sum.saturating_add(size),
            _ => sum,
        });
        Size(sum)
    }
}

/// Every allowed core but the first, when there are two or more: the first is left to the control thread.
pub(crate) fn default_cores(allowed: &[usize]) -> Vec<usize> {
    match allowed {
        [] => vec![0],
        [only] => vec![*only],
        [_, rest @ ..] => rest.to_vec(),
    }
}
