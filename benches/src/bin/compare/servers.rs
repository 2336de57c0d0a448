//! The servers: each is started when it is first needed, and runs until the end.

use crate::{
    Outcome,
    contenders::{Server, Store},
    processes::{self, Process, administer, go_on, pinned},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::{Builder, TempDir};

/// Bytes of every volume.
pub const SIZE: u64 = 1 << 30;
/// Name of tgt's target.
const TGT_NAME: &str = "iqn.2026-01.io.ringlun:tgt";
/// What ringlun is set up for when it serves very many sessions.
pub const MANY: u32 = 4096;

/// The programs and processors of this run.
pub struct Setup {
    pub ringlun: PathBuf,
    /// The other ringlun of `--against`.
    pub before: Option<PathBuf>,
    pub load: PathBuf,
    pub bare: PathBuf,
    pub server_cpu: usize,
    pub client_cpu: usize,
    /// Folder for files on a disk.
    pub folder: PathBuf,
}

/// A server that runs.
pub struct Running {
    process: Process,
    /// Where the client finds its volume.
    pub url: String,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// All servers, and the files that they serve.
pub struct Servers {
    pub setup: Setup,
    // Servers end before their files go.
    running: BTreeMap<Server, Running>,
    files: BTreeMap<Store, PathBuf>,
    loops: Vec<LoopDevice>,
    shared_memory: TempDir,
    work: TempDir,
}

impl Servers {
    /// None runs yet.
    pub fn new(setup: Setup) -> Outcome<Servers> {
        let work = Builder::new().prefix("ringlun-compare-").tempdir_in(&setup.folder)?;
        let shared_memory = Builder::new().prefix("ringlun-compare-").tempdir_in("/dev/shm")?;
        Ok(Servers { setup, running: BTreeMap::new(), files: BTreeMap::new(), loops: Vec::new(), shared_memory, work })
    }

    /// The server, started if it does not run.
    pub fn get(&mut self, server: Server) -> Outcome<&Running> {
        if !self.running.contains_key(&server) {
            let started = match server {
                Server::Ringlun { before, store, spins, many } => {
                    let settings = Settings { spins, many, ..self.one_core() };
                    self.start_ringlun(before, store, &settings)?
                }
                Server::Tgt => self.start_tgt()?,
            };
            self.running.insert(server, started);
            if matches!(server, Server::Ringlun { store: Store::Ram, .. }) {
                // Memory that was never written to is not there: reading it costs less.
                self.pass(server, "1MiB", "0")?;
            }
            if matches!(server, Server::Ringlun { store: Store::Pinned, .. }) {
                // What has been read is what is locked.
                self.pass(server, "64KiB", "100")?;
                self.pass(server, "64KiB", "100")?;
            }
        }
        Ok(&self.running[&server])
    }

    /// One data core, on the server's processor.
    pub fn one_core(&self) -> Settings {
        Settings { cores: vec![self.setup.server_cpu], spins: true, many: false }
    }

    /// A ringlun that ends when it is dropped.
    pub fn start_ringlun(&mut self, before: bool, store: Store, settings: &Settings) -> Outcome<Running> {
        let volume = match store {
            Store::Ram => format!("{{ kind = \"ram\", size = {SIZE} }}"),
            Store::Null => format!("{{ kind = \"null\", size = {SIZE} }}"),
            Store::Buffered => format!("{{ kind = \"file\", path = {:?} }}", self.file(store)?),
            Store::Pinned => {
                format!("{{ kind = \"file\", path = {:?}, pinned = {SIZE} }}", self.file(store)?)
            }
            Store::Direct => format!("{{ kind = \"file\", path = {:?}, direct = true }}", self.file(store)?),
            Store::Loop => format!("{{ kind = \"block\", path = {:?} }}", self.file(store)?),
        };
        let folder = Builder::new().prefix("ringlun-").tempdir_in(self.work.path())?.keep();
        let (config, log) = (folder.join("ringlun.toml"), folder.join("log"));
        fs::write(&config, settings.config(&volume))?;
        let program =
            if before { self.setup.before.as_ref().ok_or("--against is needed")? } else { &self.setup.ringlun };
        // All of its threads on its processors, the control thread too.
        let mut command = pinned(&settings.cpus(), program);
        command.arg("serve").arg("--config").arg(&config);
        let mut process = Process::start(command, &log)?;
        let address = process.wait_for(&log, || {
            let text = fs::read_to_string(&log).ok()?;
            text.lines().find_map(|line| Some(line.strip_prefix("ringlun ready portals=")?.to_owned()))
        });
        let address = address.map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Running { process, url: format!("iscsi://{address}/iqn.2026-01.io.ringlun:bench/0") })
    }

    fn start_tgt(&mut self) -> Outcome<Running> {
        let image = self.shared_memory.path().join("tgt");
        fill_file(&image)?;
        fs::create_dir_all("/var/run/tgtd")?;
        // It takes no port 0: a free one is looked for. The port of its control is a number of a Unix socket.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let control = (port % 30_000 + 1).to_string();
        let log = self.work.path().join("tgtd.log");
        let mut command = pinned(&self.setup.server_cpu.to_string(), "tgtd");
        command.args(["-f", "-C", &control, "--iscsi", &format!("portal=127.0.0.1:{port}")]);
        let mut process = Process::start(command, &log)?;
        let admin = |arguments: &str| {
            let mut all = vec!["-C", &control, "--lld", "iscsi"];
            all.extend(arguments.split(' '));
            administer("tgtadm", &all)
        };
        process.wait_for(&log, || admin("--mode sys --op show").ok()).map_err(|error| format!("tgtd: {error}"))?;
        admin(&format!("--mode target --op new --tid 1 -T {TGT_NAME}"))?;
        admin(&format!("--mode logicalunit --op new --tid 1 --lun 1 -b {}", image.display()))?;
        // As it comes it refuses digests; those who ask for none still get none.
        for name in ["HeaderDigest", "DataDigest"] {
            admin(&format!("--mode target --op update --tid 1 --name {name} --value CRC32C,None"))?;
        }
        admin("--mode target --op bind --tid 1 -I ALL")?;
        Ok(Running { process, url: format!("iscsi://127.0.0.1:{port}/{TGT_NAME}/1") })
    }

    /// The file or device of a store, made if it is not there.
    pub fn file(&mut self, store: Store) -> Outcome<PathBuf> {
        if let Some(path) = self.files.get(&store) {
            return Ok(path.clone());
        }
        let mut path = self.work.path().join(format!("{store:?}").to_lowercase());
        fill_file(&path)?;
        if store == Store::Loop {
            let device = LoopDevice::attach(&path)?;
            path = device.0.clone();
            self.loops.push(device);
        }
        self.files.insert(store, path.clone());
        Ok(path)
    }

    /// Writes or reads all of a volume.
    fn pass(&mut self, server: Server, block: &str, read_percent: &str) -> Outcome<()> {
        let mut command = self.client();
        command.arg(&self.running[&server].url);
        command.args(["--sessions", "1", "--depth", "8", "--block-size", block, "--pattern", "sequential"]);
        command.args(["--read-percent", read_percent, "--warmup", "0s", "--amount", &SIZE.to_string(), "--quiet"]);
        processes::run(command, Duration::from_secs(60), |_| ())?;
        Ok(())
    }

    /// `ringlun-load` on the client's processor.
    pub fn client(&self) -> std::process::Command {
        let cpu = self.setup.client_cpu.to_string();
        let mut command = pinned(&cpu, &self.setup.load);
        command.args(["--threads", "1", "--cpus", &cpu]);
        command
    }

    /// Ends those that are not needed any more.
    pub fn keep(&mut self, needed: &[Server]) {
        self.running.retain(|server, _| needed.contains(server));
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.running.clear();
        self.loops.clear();
    }
}

/// What differs between one ringlun and another.
pub struct Settings {
    pub cores: Vec<usize>,
    pub spins: bool,
    /// Room for very many sessions.
    pub many: bool,
}

impl Settings {
    fn cpus(&self) -> String {
        self.cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }

    fn config(&self, volume: &str) -> String {
        let mut text = format!("[server]\ncores = {:?}\nstate_dir = \"state\"\n", self.cores);
        if !self.spins {
            text += "spin_us = 0\n";
        }
        if self.many {
            text += &format!("max_connections = {MANY}\nsessions_per_target = {MANY}\nhalf_open_per_address = 256\n");
        }
        text + &format!("[[portal]]\naddress = \"127.0.0.1:0\"\n[[volume]]\nname = \"bench\"\nstore = {volume}\n")
    }
}

/// A loop device over a file, past the page cache if the file allows it.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn attach(file: &Path) -> Outcome<LoopDevice> {
        let file = file.to_str().ok_or("the folder's name is not UTF-8")?;
        let direct = administer("losetup", &["--find", "--show", "--direct-io=on", file]);
        let name = direct.or_else(|_| administer("losetup", &["--find", "--show", file]))?;
        Ok(LoopDevice(PathBuf::from(name)))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = administer("losetup", &["--detach", &self.0.to_string_lossy()]) {
            eprintln!("compare: {error}");
        }
    }
}

/// Bytes that are no zeroes, all of them allocated and on the disk.
fn fill_file(path: &Path) -> Outcome<()> {
    let mut file = File::create(path)?;
    let (mut block, mut random) = (vec![0u8; 1 << 20], 88_172_645_463_325_252_u64);
    for _ in 0..SIZE >> 20 {
        go_on()?;
        for word in block.as_chunks_mut::<8>().0 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *word = random.to_ne_bytes();
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}
