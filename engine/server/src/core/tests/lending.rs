//! Answers under a digest refer to blocks where they lie: nobody writes to these before the initiator has them.

mod ways;

mod recalls;

use super::*;
use backstore_api::{Request, Submitted};
use memory::Class;
use reactor::Wake;
use wire::{LogoutReason, LogoutRequest, NopIn, NopOut, RESERVED_TAG};

/// Bytes of a read that is sent from where it lies.
const LENT: u32 = 64 << 10;

/// So small that no write waits for memory.
fn ram() -> Settings {
    Settings::new(Kind::Ram { bytes: (2 << 20) - u64::from(BLOCK), preallocate: false })
}

/// What the target sent, with its data; digests are checked.
struct Pdu {
    header: [u8; BHS_LEN],
    data: Vec<u8>,
}

impl Pdu {
    fn is_ping(&self) -> Option<NopIn> {
        NopIn::parse(&self.header).ok().filter(|nop| nop.initiator_task_tag == RESERVED_TAG)
    }

    fn stat_sn(&self) -> u32 {
        u32::from_be_bytes(self.header[24..28].try_into().unwrap())
    }

    /// The block that all of a read's are like.
    fn byte(&self) -> u8 {
        assert_eq!(self.data.len(), LENT as usize);
        assert!(self.data.iter().all(|byte| *byte == self.data[0]));
        self.data[0]
    }
}

struct Reader {
    rig: Rig,
    bytes: Vec<u8>,
}

impl Reader {
    fn new() -> Reader {
        Reader::beside(0)
    }

    /// It has read what lies first, and hasn't said so.
    fn that_reads() -> Reader {
        let mut reader = Reader::new();
        reader.read(0);
        assert_eq!((reader.pdus().len(), reader.lends()), (1, 1));
        reader
    }

    /// Beside other cores.
    fn beside(others: usize) -> Reader {
        Reader::of(others, vec![ram()])
    }

    fn of(others: usize, units: Vec<Settings>) -> Reader {
        let delay = Duration::ZERO..Duration::from_nanos(1);
        let world = World::with(1, Conduct { delay, fragment: false, window: 4 << 20 });
        let rig = Rig::beside(others, world, units, |parameters| parameters.data_digest = true);
        Reader { rig, bytes: Vec::new() }
    }

    /// Few turns, none of which waits for time to pass.
    fn turns(&mut self) {
        for _ in 0..12 {
            self.rig.core.reactor().waker().wake();
            self.rig.core.turn().unwrap();
        }
    }

    /// WRITE (10) of so many bytes that are all like this one.
    fn write(&mut self, at: u32, length: u32, byte: u8) {
        let data = vec![byte; length as usize];
        let most = data.len().min(64 << 10);
        self.rig.command(TaskAttribute::Simple, &access_at(0x2a, at, length), length, &data[..most]);
        self.rig.peer.write(&wire::digest::to_wire(wire::crc32c(&data[..most])));
    }

    /// COMPARE AND WRITE of the first block.
    fn compare_and_write(&mut self, from: u8, to: u8) {
        let mut cdb = [0; 16];
        (cdb[0], cdb[13]) = (0x89, 1);
        let data = [[from; BLOCK as usize], [to; BLOCK as usize]].concat();
        self.rig.command(TaskAttribute::Simple, &cdb, 2 * BLOCK, &data);
        self.rig.peer.write(&wire::digest::to_wire(wire::crc32c(&data)));
    }

    fn read(&mut self, at: u32) {
        self.rig.read(&access_at(0x28, at, LENT), LENT);
    }

    /// What lies there now.
    fn medium(&mut self, at: u32) -> u8 {
        self.medium_of(0, at)
    }

    fn medium_of(&mut self, unit: usize, at: u32) -> u8 {
        let mut bytes = [0; BLOCK as usize];
        self.rig.core.units[unit].queue.read_now(u64::from(at), &mut bytes).expect("memory").unwrap();
        bytes[0]
    }

    /// The PDUs that have come.
    fn pdus(&mut self) -> Vec<Pdu> {
        self.turns();
        let mut pdus = Vec::new();
        self.bytes.extend(self.rig.peer.read(8 << 20));
        while let Some(header) = self.bytes.first_chunk::<BHS_LEN>().copied() {
            let length = Bhs::new(&header).data_segment_length() as usize;
            let all = BHS_LEN + length.next_multiple_of(4) + if length > 0 { 4 } else { 0 };
            if self.bytes.len() < all {
                break;
            }
            let pdu: Vec<u8> = self.bytes.drain(..all).collect();
            let data = pdu[BHS_LEN..BHS_LEN + length].to_vec();
            if length > 0 {
                assert_eq!(pdu[all - 4..], wire::digest::to_wire(wire::crc32c(&pdu[BHS_LEN..all - 4])), "the digest");
            }
            pdus.push(Pdu { header, data });
        }
        pdus
    }

    fn answer(&mut self, ping: NopIn) {
        let mut header = [0; BHS_LEN];
        NopOut {
            immediate: true,
            data_segment_length: 0,
            lun: ping.lun,
            initiator_task_tag: RESERVED_TAG,
            target_transfer_tag: ping.target_transfer_tag,
            cmd_sn: self.rig.cmd_sn,
            exp_stat_sn: self.rig.has,
        }
        .emit(&mut header);
        self.rig.peer.write(&header);
        self.turns();
    }

    /// Two reads of which the first is lent and on its way; the second waits behind it, since the peer takes no more.
    fn reads_one_behind_another(&mut self) {
        self.rig.peer.set_window(100);
        self.read(0);
        self.turns();
        self.read(LENT);
        self.turns();
        assert_eq!(self.lends(), 1, "one message at a time");
    }

    fn lends(&self) -> usize {
        self.lends_of(0)
    }

    fn lends_of(&self, unit: u16) -> usize {
        self.rig.core.loans.ranges(unit).count()
    }

    /// The memory behind a unit.
    fn region(&self, unit: usize) -> Arc<memory::Region> {
        self.rig.core.units[unit].queue.region(0, 0).unwrap().0.clone()
    }
}

/// Another session with the same unit.
struct Another {
    peer: Peer,
    bytes: Vec<u8>,
    cmd_sn: u32,
    has: u32,
}

impl Reader {
    /// One more session logs in, of which the first status has this StatSN.
    fn another(&mut self, stat_sn: u32) -> Another {
        self.another_with(stat_sn, true)
    }

    fn another_with(&mut self, stat_sn: u32, digest: bool) -> Another {
        let (socket, peer) = self.rig.world.connect().unwrap();
        let link = self.rig.link().1;
        let name = "iqn.2026-01.io.ringlun:j".into();
        let identity = Installed {
            id: 2,
            initiator: Arc::new(InitiatorPort { name, isid: [0x80, 0, 0, 0, 0, 2] }),
            target: link.identity.target.clone(),
            address: link.identity.address,
        };
        let handover = Handover {
            identity,
            cid: 0,
            parameters: Parameters { data_digest: digest, ..*link.connection.parameters() },
            exp_cmd_sn: 1,
            stat_sn,
            port: link.port.clone(),
            response: Vec::new(),
            addresses: Arc::new([]),
            leftover: Vec::new(),
        };
        self.rig.post.send(0, ToCore::Install(socket, Box::new(handover)));
        let mut another = Another { peer, bytes: Vec::new(), cmd_sn: 1, has: stat_sn };
        self.swap(&mut another);
        self.rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
        let attention = if digest { self.pdus().len() } else { self.rig.statuses(1).len() };
        assert_eq!(attention, 1, "the unit attention of a new nexus");
        self.swap(&mut another);
        another
    }

    /// What this one does from now on, the other one does.
    fn swap(&mut self, another: &mut Another) {
        std::mem::swap(&mut self.rig.peer, &mut another.peer);
        std::mem::swap(&mut self.bytes, &mut another.bytes);
        std::mem::swap(&mut self.rig.cmd_sn, &mut another.cmd_sn);
        std::mem::swap(&mut self.rig.has, &mut another.has);
    }

    fn log_out(&mut self) {
        let mut header = [0; BHS_LEN];
        LogoutRequest {
            immediate: true,
            reason: LogoutReason::CloseSession,
            data_segment_length: 0,
            initiator_task_tag: 0x1000,
            cid: 0,
            cmd_sn: self.rig.cmd_sn,
            exp_stat_sn: self.rig.has,
        }
        .emit(&mut header);
        self.rig.peer.write(&header);
    }
}

/// READ (10) or WRITE (10) of so many bytes from there on.
fn access_at(opcode: u8, at: u32, length: u32) -> [u8; 10] {
    let mut cdb = access(opcode, length);
    cdb[2..6].copy_from_slice(&(at / BLOCK).to_be_bytes());
    cdb
}

#[test]
fn nothing_is_lent_nor_let_go_of_while_a_write_waits_for_its_memory() {
    let (at, of_no_task) = (2 << 20, 77 << 8);
    let mut reader = Reader::of(0, vec![Settings::new(Kind::Ram { bytes: 8 << 20, preallocate: false })]);
    reader.write(0, LENT, 7);
    assert_eq!(reader.pdus().len(), 1, "the status");
    let lends = |reader: &Reader| reader.rig.core.loans.may_lend(&reader.rig.core.units[0]);
    let is_let_go = |reader: &Reader| {
        reader.rig.core.let_go();
        let region = reader.region(0);
        std::thread::scope(|scope| scope.spawn(|| region.may_hold()).join().unwrap())
    };
    let core = &mut reader.rig.core;
    let mut buffer = core.reactor.pool().take(Class::Small).unwrap();
    buffer[..BLOCK as usize].fill(8);
    let request = Request::Write { offset: at, buffer, range: 0..BLOCK, durable: false };
    assert!(matches!(core.units[0].queue.submit(&mut core.reactor, of_no_task, request), Submitted::Pending));
    assert!(!lends(&reader) && !is_let_go(&reader));
    reader.turns();
    assert_eq!((reader.medium(at as u32), lends(&reader), is_let_go(&reader)), (8, true, true));
}

#[test]
fn what_waits_for_memory_when_its_session_ends_is_let_go_of_afterwards() {
    let mut reader = Reader::of(0, vec![Settings::new(Kind::Ram { bytes: 8 << 20, preallocate: false })]);
    reader.write(0, LENT, 7);
    assert_eq!(reader.pdus().len(), 1, "the status");
    let key = reader.rig.link().0;
    let core = &mut reader.rig.core;
    core.cut(key, CloseReason::Silent);
    let mut buffer = core.reactor.pool().take(Class::Small).unwrap();
    buffer[..BLOCK as usize].fill(8);
    let request = Request::Write { offset: 2 << 20, buffer, range: 0..BLOCK, durable: false };
    // The job ends after the session.
    assert!(matches!(core.units[0].queue.submit(&mut core.reactor, 77 << 8, request), Submitted::Pending));
    (0..20).for_each(|_| _ = core.turn().unwrap());
    assert_eq!((core.sessions(), core.units[0].queue.in_flight()), (0, 0));
    let region = reader.region(0);
    assert!(std::thread::scope(|scope| scope.spawn(|| region.may_hold()).join().unwrap()));
}

#[test]
fn nobody_writes_to_what_a_reader_may_not_have_yet() {
    for length in [512, LENT] {
        let mut reader = Reader::new();
        reader.rig.peer.set_window(100);
        reader.read(0);
        reader.turns();
        assert_eq!(reader.lends(), 1);
        reader.write(LENT, 512, 5);
        reader.write(LENT - 512, length, 7);
        reader.turns();
        assert_eq!((reader.medium(0), reader.medium(LENT - 512), reader.medium(LENT)), (0, 0, 5));
        reader.rig.peer.set_window(4 << 20);
        let mut pdus = reader.pdus();
        let ping = pdus.pop().unwrap().is_ping().expect("a ping");
        assert_eq!(pdus[0].byte(), 0);
        assert!(pdus.iter().all(|pdu| pdu.is_ping().is_none()), "one ping");
        // It has come, but perhaps the initiator hasn't looked at it yet: it says that it expects it.
        reader.rig.has = pdus[0].stat_sn();
        reader.answer(ping);
        assert_eq!((reader.medium(LENT - 512), reader.lends()), (0, 1));
        reader.rig.has = pdus[0].stat_sn() + 1;
        reader.answer(ping);
        assert_eq!((reader.medium(LENT - 512), reader.lends()), (7, 0));
        assert_eq!(reader.pdus().len(), 1, "the status");
    }
}

#[test]
fn an_initiator_that_writes_what_it_has_read_waits_for_nothing() {
    // A short write comes whole with its command.
    for length in [512, LENT] {
        let mut reader = Reader::new();
        for round in 1..10 {
            reader.read(0);
            let pdus = reader.pdus();
            assert_eq!((pdus.len(), pdus[0].data[0], reader.lends()), (1, round - 1, 1));
            reader.rig.has = pdus[0].stat_sn() + 1;
            reader.write(0, length, round);
            let pdus = reader.pdus();
            assert_eq!((pdus.len(), reader.medium(0), reader.lends()), (1, round, 0));
            assert_eq!(ScsiResponse::parse(&pdus[0].header).unwrap().status, 0);
        }
    }
}

#[test]
fn who_does_not_say_what_it_has_is_sent_copies_from_then_on() {
    let mut reader = Reader::new();
    for at in 0..4 {
        reader.read(at * LENT);
    }
    assert_eq!(reader.pdus().len(), 4);
    let since = reader.rig.world.now();
    reader.write(0, 512, 7);
    assert_eq!((reader.pdus().len(), reader.medium(0), reader.lends()), (1, 0, 4));
    while reader.medium(0) == 0 {
        reader.rig.core.turn().unwrap();
    }
    let waited = reader.rig.world.now() - since;
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_millis(2100), "{waited:?}");
    assert_eq!(reader.lends(), 0);
    assert_eq!(reader.pdus().iter().filter(|pdu| pdu.is_ping().is_none()).count(), 1);
    let initiator = reader.rig.link().1.identity.initiator.clone();
    assert!(reader.rig.core.loans.was_late(&initiator), "its next session, too");
    // Nothing waits for it any more, though it reads as before.
    reader.rig.peer.set_window(100);
    reader.read(LENT);
    reader.turns();
    assert_eq!(reader.lends(), 0);
    reader.write(LENT, LENT, 8);
    reader.turns();
    assert_eq!(reader.medium(LENT), 8);
    reader.rig.peer.set_window(4 << 20);
    assert_eq!(reader.pdus()[0].byte(), 0);
}

#[test]
fn who_keeps_blocks_for_long_is_asked_for_them() {
    for answers in [true, false] {
        let mut reader = Reader::that_reads();
        let since = reader.rig.world.now();
        let mut pings = Vec::new();
        while pings.is_empty() {
            reader.rig.core.turn().unwrap();
            pings = reader.pdus();
        }
        let waited = reader.rig.world.now() - since;
        assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(3), "{waited:?}");
        let ping = pings[0].is_ping().expect("a ping");
        if answers {
            reader.rig.has = 3;
            reader.answer(ping);
        } else {
            while reader.lends() > 0 {
                reader.rig.core.turn().unwrap();
            }
        }
        assert_eq!((pings.len(), reader.lends(), reader.rig.link().1.gets_copies), (1, 0, !answers));
    }
}

#[test]
fn who_waits_to_write_is_not_overtaken_by_readers() {
    let mut reader = Reader::new();
    reader.read(0);
    assert_eq!(reader.pdus().len(), 1);
    reader.write(0, 512, 7);
    let ping = reader.pdus()[0].is_ping().expect("a ping");
    for _ in 0..5 {
        reader.read(0);
        assert_eq!((reader.pdus()[0].byte(), reader.lends()), (0, 1), "copied");
    }
    reader.rig.has = 3;
    reader.answer(ping);
    assert_eq!((reader.lends(), reader.medium(0)), (0, 7));
}

#[test]
fn as_much_is_lent_as_there_is_room_for() {
    let mut reader = Reader::new();
    for _ in 0..10 {
        for _ in 0..30 {
            reader.read(0);
        }
        assert_eq!(reader.pdus().len(), 30);
    }
    assert_eq!(reader.lends(), 256);
    reader.rig.has = reader.rig.link().1.connection.stat_sn();
    reader.rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
    assert_eq!((reader.pdus().len(), reader.lends()), (1, 0));
}

#[test]
fn a_session_that_ends_gives_all_back() {
    for cut in [false, true] {
        let mut reader = Reader::that_reads();
        if cut {
            let key = reader.rig.link().0;
            reader.rig.core.cut(key, CloseReason::Silent);
        } else {
            reader.rig.peer.close();
            reader.turns();
        }
        assert_eq!((reader.lends(), reader.rig.core.loans.has_any(0)), (0, false));
    }
}

#[test]
fn a_fence_waits_for_what_is_lent() {
    let mut reader = Reader::that_reads();
    reader.compare_and_write(0, 7);
    let pdus = reader.pdus();
    let ping = pdus[0].is_ping().expect("a ping");
    assert_eq!((pdus.len(), reader.medium(0)), (1, 0));
    reader.rig.has = 3;
    reader.answer(ping);
    assert_eq!((reader.lends(), reader.medium(0), reader.pdus().len()), (0, 7, 1));
}

#[test]
fn a_command_that_gives_back_what_two_fences_wait_for_is_carried_out() {
    let mut reader = Reader::that_reads();
    for (from, to) in [(0, 7), (7, 8)] {
        reader.compare_and_write(from, to);
    }
    assert!(reader.pdus()[0].is_ping().is_some());
    reader.rig.has = 3;
    reader.rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
    assert_eq!((reader.pdus().len(), reader.lends(), reader.medium(0)), (3, 0, 8));
}

#[test]
fn who_waits_goes_on_when_the_reader_logs_out() {
    let mut reader = Reader::new();
    let mut writer = reader.another(1);
    reader.read(0);
    assert_eq!((reader.pdus().len(), reader.lends()), (1, 1));
    reader.swap(&mut writer);
    reader.write(0, LENT, 7);
    reader.turns();
    reader.swap(&mut writer);
    assert!(reader.pdus()[0].is_ping().is_some());
    let since = reader.rig.world.now();
    reader.log_out();
    while reader.medium(0) == 0 {
        reader.rig.core.turn().unwrap();
    }
    let waited = reader.rig.world.now() - since;
    assert!(waited < Duration::from_millis(50), "{waited:?}");
}

#[test]
fn who_logs_out_is_not_asked_any_more() {
    let mut reader = Reader::new();
    let mut writer = reader.another(1);
    reader.rig.peer.set_window(100);
    reader.read(0);
    reader.turns();
    assert_eq!(reader.lends(), 1);
    reader.log_out();
    reader.turns();
    reader.swap(&mut writer);
    reader.write(0, LENT, 7);
    reader.turns();
    reader.swap(&mut writer);
    assert_eq!(reader.medium(0), 0);
    reader.rig.peer.set_window(4 << 20);
    let pdus = reader.pdus();
    assert_eq!((pdus.len(), pdus[0].byte()), (2, 0));
    assert_eq!(Bhs::new(&pdus[1].header).opcode(), wire::Opcode::LogoutResponse);
    assert_eq!((reader.medium(0), reader.lends()), (7, 0));
}

#[test]
fn nothing_is_lent_to_who_logs_out() {
    let mut reader = Reader::new();
    reader.rig.peer.set_window(100);
    reader.read(0);
    reader.log_out();
    reader.turns();
    assert_eq!(reader.lends(), 0);
    reader.rig.peer.set_window(4 << 20);
    let pdus = reader.pdus();
    assert_eq!((pdus.len(), pdus[0].byte()), (2, 0));
}

#[test]
fn a_unit_stays_until_what_is_lent_of_it_has_come_back() {
    let mut reader = Reader::that_reads();
    reader.rig.post.send(0, ToCore::Remove { slot: 0 });
    let ping = reader.pdus()[0].is_ping().expect("a ping");
    assert!(reader.rig.core.units[0].present);
    reader.rig.has = 3;
    reader.answer(ping);
    assert!(!reader.rig.core.units[0].present && reader.lends() == 0);
}

#[test]
fn a_queue_of_fences_behind_what_is_lent_does_not_fill_the_stack() {
    const MANY: u32 = 480;
    let wait = || {
        let mut reader = Reader::that_reads();
        for n in 0..MANY {
            reader.compare_and_write(n as u8, (n + 1) as u8);
        }
        let ping = reader.pdus()[0].is_ping().expect("a ping");
        assert_eq!(reader.medium(0), 0);
        reader.rig.has = 3;
        reader.answer(ping);
        assert_eq!((reader.pdus().len(), reader.medium(0)), (MANY as usize, MANY as u8));
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(wait).unwrap().join().unwrap();
}

#[test]
fn what_is_not_sent_yet_is_lent_only_if_it_still_may_be() {
    // What happens before it is sent, and what is lent after it.
    type Happens = fn(&mut Reader);
    let happens: [(Happens, usize); 3] = [
        (|reader| reader.compare_and_write(0, 0), 1),
        (|reader| reader.write(0, 512, 7), 1),
        (
            |reader| {
                reader.write(0, 512, 7);
                while reader.medium(0) == 0 {
                    reader.rig.core.turn().unwrap();
                }
            },
            0,
        ),
    ];
    for (nth, (happens, lent)) in happens.into_iter().enumerate() {
        let mut reader = Reader::new();
        reader.reads_one_behind_another();
        happens(&mut reader);
        reader.turns();
        assert_eq!(reader.lends(), lent, "{nth}");
        reader.rig.peer.set_window(4 << 20);
        reader.turns();
        assert_eq!(reader.lends(), lent, "{nth}: the second one is copied");
    }
}
