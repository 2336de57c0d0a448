//! READ and WRITE of 4 KiB without a socket, 32 at a time: what the target spends on one command.
//!
//! `bare` is `protocol` and `scsi` over the memory of a RAM volume, with as little as possible between them. `core` is
//! the server's own data core with a RAM store, on the simulated reactor: its streams and its lottery of events are in
//! the number, the kernel is not. The initiator's part is not timed.

use backstore::{Kind, Settings, Store};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use initiator::{Command as Request, Limits, LoggedIn, Transfer, cdb};
use memory::{Arena, ArenaConfig, Region, Slab};
use negotiation::Parameters;
use protocol::{Advance, Connection, Event, Finish, Session, Sink, TaskKey, Tasks};
use reactor::{
    Reactor,
    twin::{Conduct, Peer, Twin, TwinSettings, World},
};
use scsi::{Command, Context, Identity, InitiatorPort, LogicalUnit, Nexus, Path, Profile, Span, Step, TargetPort};
use server::{
    core::{Core, CoreLimits, Unit, store_token_base},
    mail::{Handover, Installed, Post},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

const BLOCK: u32 = 512;
const LENGTH: u32 = 4096;
const BYTES: u64 = 64 << 20;
/// Commands that are sent together.
const DEPTH: u32 = 32;
/// MaxCmdSN window.
const WINDOW: u32 = 128;
const FIRST_CMD_SN: u32 = 1;
const FIRST_STAT_SN: u32 = 1;

/// What open-iscsi ends up with.
fn parameters() -> Parameters {
    Parameters {
        initial_r2t: false,
        immediate_data: true,
        max_recv_data_segment_length: 256 << 10,
        peer_max_recv_data_segment_length: 256 << 10,
        max_burst_length: 1 << 20,
        first_burst_length: 256 << 10,
        ..Parameters::default()
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// The other side: makes the PDUs of a batch, and checks the answers.
struct Client {
    connection: initiator::Connection<Transfer>,
    next: u32,
    out: Vec<u8>,
}

impl Client {
    fn new() -> Client {
        let login = LoggedIn::assumed(parameters(), FIRST_CMD_SN, WINDOW, FIRST_STAT_SN);
        let limits = Limits { tasks: WINDOW as usize, ..Limits::default() };
        Client { connection: initiator::Connection::new(&login, limits), next: 0, out: Vec::new() }
    }

    /// The bytes of one batch, at addresses far from each other.
    fn batch(&mut self, kind: Direction) -> &[u8] {
        self.out.clear();
        for _ in 0..DEPTH {
            self.next = self.next.wrapping_add(4_099);
            let lba = self.next % (BYTES / u64::from(LENGTH)) as u32 * (LENGTH / BLOCK);
            let blocks = (LENGTH / BLOCK) as u16;
            let (request, data) = match kind {
                Direction::Read => (Request::read(cdb::read_10(lba, blocks), LENGTH), Vec::new()),
                Direction::Write => (Request::write(cdb::write_10(lba, blocks), LENGTH), vec![0x5a; LENGTH as usize]),
            };
            self.connection.submit(&request, Transfer::sending(data), &mut self.out).expect("the window is open");
        }
        &self.out
    }

    /// Takes the answers; gives how many there were. All must be GOOD.
    fn take(&mut self, mut input: &[u8]) -> u32 {
        let mut answers = 0;
        while let Some(event) = self.connection.receive(&mut input, &mut self.out).expect("the target keeps the rules")
        {
            match event {
                initiator::Event::Response(response) => {
                    assert_eq!(response.status, 0, "{:02x?}", response.sense);
                    answers += 1;
                }
                other => panic!("not asked for: {other:?}"),
            }
        }
        answers
    }
}

fn initiator() -> Arc<InitiatorPort> {
    Arc::new(InitiatorPort { name: "iqn.2026-01.io.ringlun:client".into(), isid: [0x80, 0, 0, 0, 0, 1] })
}

fn unit(store: &Store) -> Arc<LogicalUnit> {
    let identity = Identity::from_name("iqn.2026-01.io.ringlun:bench");
    LogicalUnit::new(Profile::new(identity, BLOCK), store.geometry().clone())
}

fn ram() -> Arc<Store> {
    Store::open(&Settings::new(Kind::Ram { bytes: BYTES, preallocate: false })).expect("memory for a RAM volume")
}

fn port(unit: &Arc<LogicalUnit>) -> TargetPort {
    TargetPort {
        target_name: "iqn.2026-01.io.ringlun:bench".to_owned(),
        portal_group: 1,
        relative_port: 1,
        ports: Vec::new(),
        luns: BTreeMap::from([(0, unit.clone())]),
        copies: scsi::CopyManager::new([0; 32]),
    }
}

/// A target that takes a batch and answers it.
trait Target {
    /// Puts the answers into `out`.
    fn serve(&mut self, input: &[u8], out: &mut Vec<u8>);
}

#[derive(Default)]
struct Running {
    command: Option<Command>,
    offset: u64,
}

/// `protocol` and `scsi` with nothing around them.
struct Bare {
    session: Session,
    connection: Connection,
    tasks: Tasks<Running>,
    unit: Arc<LogicalUnit>,
    port: TargetPort,
    nexus: Nexus,
    scratch: Vec<u8>,
    region: Arc<Region>,
}

impl Bare {
    fn new() -> Bare {
        let unit = unit(&ram());
        let mut bare = Bare {
            session: Session::new(0, &parameters(), FIRST_CMD_SN, WINDOW),
            connection: Connection::new(parameters(), FIRST_STAT_SN, Duration::ZERO),
            tasks: Slab::with_capacity(WINDOW + 8),
            port: port(&unit),
            nexus: Nexus::new(&unit, 1, Path { initiator: initiator(), relative_port: 1 }),
            unit,
            scratch: Vec::new(),
            region: Region::new(BYTES).expect("memory for a region"),
        };
        // A new nexus gets a unit attention first: one command takes it.
        bare.step(None, &cdb::test_unit_ready());
        bare
    }

    fn step(&mut self, command: Option<&mut Command>, cdb: &[u8; 16]) -> (Option<Command>, Step) {
        let mut context = Context {
            port: &self.port,
            unit: Some(&self.unit),
            nexus: Some(&mut self.nexus),
            scratch: &mut self.scratch,
            now: Duration::ZERO,
        };
        match command {
            Some(command) => (None, command.step(scsi::Event::Moved, &mut context)),
            None => {
                let (command, step) = Command::start(cdb, &mut context);
                (Some(command), step)
            }
        }
    }

    fn begin(&mut self, key: TaskKey, cdb: [u8; 16], out: &mut Vec<u8>) {
        let (mut command, step) = self.step(None, &cdb);
        match step {
            Step::Read { span: Span { offset, length } } => {
                let (_, end) = self.step(command.as_mut(), &cdb);
                assert!(matches!(end, Step::Done(_)));
                let task = self.tasks.get_mut(key).expect("the task is there");
                let bytes = Sink::reserve(out, 48 + length as usize);
                let (head, payload) = bytes.split_at_mut(48);
                self.region.read(offset, payload);
                let mut header = [0; 52];
                let finish = Some(Finish { status: 0, transfer: length });
                let cut = self.connection.data_in(&mut self.session, task, length, finish, &mut header);
                assert!(cut.finished && cut.header == 48);
                head.copy_from_slice(&header[..48]);
                self.connection.retire(&mut self.session, &mut self.tasks, key);
            }
            Step::Write { span, .. } => {
                let task = self.tasks.get_mut(key).expect("the task is there");
                task.work = Running { command, offset: span.offset };
            }
            other => panic!("neither read nor write: {other:?}"),
        }
    }

    fn written(&mut self, key: TaskKey, out: &mut Vec<u8>) {
        let mut command = self.tasks.get_mut(key).and_then(|task| task.work.command.take());
        let (_, end) = self.step(command.as_mut(), &[0; 16]);
        assert!(matches!(end, Step::Done(_)));
        let task = self.tasks.get_mut(key).expect("the task is there");
        let finish = Finish { status: 0, transfer: LENGTH };
        self.connection.response(&mut self.session, task, finish, &[], out);
        self.connection.retire(&mut self.session, &mut self.tasks, key);
    }
}

impl Target for Bare {
    fn serve(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        loop {
            let advance = self.connection.advance(&mut self.session, &mut self.tasks, &mut input, out, Duration::ZERO);
            match advance {
                Advance::Idle => return,
                Advance::Event(Event::Command { task, cdb, .. }) => self.begin(task, cdb, out),
                Advance::Event(Event::Data { task, .. }) => self.written(task, out),
                Advance::Payload { task, offset, length } => {
                    let (bytes, rest) = input.split_at(length as usize);
                    let base = task.and_then(|key| self.tasks.get(key)).expect("the task is there").work.offset;
                    self.region.write(base + u64::from(offset), bytes);
                    self.connection.payload(bytes);
                    input = rest;
                }
                other => panic!("not expected: {other:?}"),
            }
        }
    }
}

/// The server's data core in a simulated world without delays.
struct Simulated {
    core: Core<Twin>,
    peer: Peer,
}

impl Simulated {
    fn new() -> Simulated {
        let delay = Duration::ZERO..Duration::from_nanos(1);
        let world = World::with(1, Conduct { delay, fragment: false, window: 4 << 20 });
        let arena = Arena::new(ArenaConfig { small: 256, medium: 64, large: 8 }).expect("memory for buffers");
        let settings = TwinSettings { receive_buffers: 16, ..TwinSettings::default() };
        let mut twin = Twin::new(&world, &arena, settings);
        let store = ram();
        let logical = unit(&store);
        let queue = store.queue(&mut twin, store_token_base(0)).expect("a RAM volume has queues");
        let post = Post::new(vec![twin.waker()], || {});
        let limits = CoreLimits {
            sessions: 4,
            window: WINDOW,
            tasks: 4 * (WINDOW + 8),
            nop_interval: Duration::ZERO,
            nop_timeout: Duration::from_secs(30),
        };
        let port = Arc::new(port(&logical));
        let mut core = Core::new(0, limits, twin, post, vec![Unit::new(logical, queue, 128)]);
        let (socket, peer) = world.connect().expect("a descriptor");
        let descriptor = core.reactor().register(socket).expect("room for a socket");
        core.install(descriptor, handover(port));
        Simulated { core, peer }
    }
}

fn handover(port: Arc<TargetPort>) -> Handover {
    Handover {
        identity: Installed {
            id: 1,
            initiator: initiator(),
            target: port.target_name.as_str().into(),
            address: ([127, 0, 0, 1], 1).into(),
        },
        cid: 0,
        parameters: parameters(),
        exp_cmd_sn: FIRST_CMD_SN,
        stat_sn: FIRST_STAT_SN,
        port,
        response: Vec::new(),
        addresses: Arc::new([]),
        leftover: Vec::new(),
    }
}

impl Target for Simulated {
    fn serve(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.peer.write(input);
        let mut quiet = 0;
        // It has answered when a few turns bring nothing more.
        while quiet < 3 {
            self.core.turn().expect("the simulated reactor turns");
            match self.peer.unread() {
                0 => quiet += 1,
                count => {
                    quiet = 0;
                    out.extend_from_slice(&self.peer.read(count));
                }
            }
        }
    }
}

/// Time of `rounds` commands (rounded up to batches, and back in proportion).
fn measure(target: &mut impl Target, client: &mut Client, kind: Direction, rounds: u64) -> Duration {
    let batches = rounds.div_ceil(u64::from(DEPTH));
    let mut spent = Duration::ZERO;
    let mut out = Vec::new();
    for _ in 0..batches {
        let input = client.batch(kind);
        out.clear();
        let start = Instant::now();
        target.serve(input, &mut out);
        spent += start.elapsed();
        assert_eq!(client.take(&out), DEPTH, "every command is answered");
    }
    spent.mul_f64(rounds as f64 / (batches * u64::from(DEPTH)) as f64)
}

/// The same for a whole target.
fn clear_attention(target: &mut impl Target, client: &mut Client) {
    let request = Request::none(cdb::test_unit_ready());
    let mut input = Vec::new();
    client.connection.submit(&request, Transfer::default(), &mut input).expect("the window is open");
    let mut out = Vec::new();
    target.serve(&input, &mut out);
    let mut answer = out.as_slice();
    let event = client.connection.receive(&mut answer, &mut input).expect("the target keeps the rules");
    assert!(matches!(event, Some(initiator::Event::Response(_))), "{event:?}");
}

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("command");
    group.throughput(Throughput::Bytes(u64::from(LENGTH)));
    for (name, kind) in [("READ 4 KiB", Direction::Read), ("WRITE 4 KiB", Direction::Write)] {
        let (mut bare, mut client) = (Bare::new(), Client::new());
        group.bench_function(format!("bare/{name}"), |b| {
            b.iter_custom(|rounds| measure(&mut bare, &mut client, kind, rounds));
        });
        let (mut core, mut client) = (Simulated::new(), Client::new());
        clear_attention(&mut core, &mut client);
        group.bench_function(format!("core/{name}"), |b| {
            b.iter_custom(|rounds| measure(&mut core, &mut client, kind, rounds));
        });
    }
    group.finish();
}

criterion_group!(benches, commands);
criterion_main!(benches);
