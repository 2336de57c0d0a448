//! Commands that come whole, and what has them take the long way.

use super::*;
use crate::core::link::OUTGOING_SOFT;
use backstore::{Delay, Fault, Filter, Kinds};
use backstore_api::{BlockQueue, Geometry, Request, StoreError, Submitted};
use memory::{Class, PageReader, Region};
use reactor::Wake;
use wire::{LogoutReason, LogoutRequest};

const READ: u8 = 0x28;
const WRITE: u8 = 0x2a;

fn ram() -> Rig {
    Rig::new(Kind::Ram { bytes: 8 << 20, preallocate: true })
}

/// With data digests.
fn digested() -> Rig {
    Rig::with(Kind::Ram { bytes: 8 << 20, preallocate: true }, true, None)
}

/// With these units.
fn of(units: Vec<Settings>, negotiate: impl FnOnce(&mut Parameters)) -> Rig {
    let delay = Duration::ZERO..Duration::from_nanos(1);
    let world = World::with(1, Conduct { delay, fragment: false, window: 4 << 20 });
    Rig::beside(0, world, units, negotiate)
}

/// READ (10) or WRITE (10) of so many bytes from a block on.
fn access_at(opcode: u8, lba: u8, length: u32) -> [u8; 10] {
    let mut cdb = access(opcode, length);
    cdb[5] = lba;
    cdb
}

impl Rig {
    /// A WRITE (10) of bytes that are all alike, with a digest if that was agreed on.
    fn write_whole(&mut self, lba: u8, length: u32, byte: u8) {
        let data = vec![byte; length as usize];
        self.command(TaskAttribute::Simple, &access_at(WRITE, lba, length), length, &data);
        if self.link().1.connection.data_digest() {
            self.peer.write(&wire::digest::to_wire(wire::crc32c(&data)));
        }
    }

    fn read_whole(&mut self, lba: u8, length: u32) {
        self.read(&access_at(READ, lba, length), length);
    }

    /// Few turns, none of which waits for time to pass.
    fn some_turns(&mut self) {
        for _ in 0..4 {
            self.core.reactor().waker().wake();
            self.core.turn().unwrap();
        }
    }

    /// Whether what is sent becomes a task.
    fn takes_a_task(&mut self, send: impl FnOnce(&mut Rig)) -> bool {
        assert!(self.core.tasks.is_empty());
        self.core.spare_work.clear();
        send(self);
        self.some_turns();
        !self.core.tasks.is_empty() || !self.core.spare_work.is_empty()
    }

    /// What has come.
    fn answer(&mut self) -> Vec<u8> {
        self.some_turns();
        self.peer.read(8 << 20)
    }

    /// The bytes of a read, which are all alike.
    fn byte_read(&mut self, length: u32) -> u8 {
        let digest = if self.link().1.connection.data_digest() { 4 } else { 0 };
        let answer = self.bytes(BHS_LEN + length as usize + digest);
        let data = &answer[BHS_LEN..BHS_LEN + length as usize];
        assert_eq!((answer.len(), answer[0]), (BHS_LEN + data.len() + digest, 0x25));
        assert!(data.iter().all(|byte| *byte == data[0]));
        data[0]
    }

    fn byte(&mut self, lba: u8) -> u8 {
        self.medium(u64::from(lba) * u64::from(BLOCK), 1)[0]
    }
}

#[test]
fn whole_commands_never_become_tasks() {
    for digests in [false, true] {
        let mut rig = Rig::with(Kind::Ram { bytes: 8 << 20, preallocate: true }, digests, None);
        for length in [512, 4096, 8 << 10, 16 << 10, 32 << 10] {
            let before = rig.core.commands;
            assert!(!rig.takes_a_task(|rig| rig.write_whole(0, length, length.ilog2() as u8)), "{length}");
            assert_eq!(rig.answer().len(), BHS_LEN);
            assert!(!rig.takes_a_task(|rig| rig.read_whole(0, length)), "{length}");
            let answer = rig.answer();
            assert_eq!(answer[BHS_LEN], length.ilog2() as u8);
            let stat_sn = u32::from_be_bytes(answer[24..28].try_into().unwrap());
            // A write of what was read before says that it has come.
            rig.has = stat_sn + 1;
            assert_eq!(rig.core.commands, before + 2, "they are counted, for who places sessions");
        }
        rig.read_whole(0, 64 << 10);
        assert_eq!(rig.answer()[0], 0x25);
        assert!(rig.takes_a_task(|rig| rig.read_whole(0, 128 << 10)), "longer ones are cut into windows");
    }
}

#[test]
fn nothing_overtakes_what_goes_first() {
    // What is in the task set: a WRITE that waits for its data, and perhaps an ORDERED command that waits for it.
    let sets = [(TaskAttribute::Ordered, false), (TaskAttribute::HeadOfQueue, false), (TaskAttribute::Simple, true)];
    for (nth, (attribute, ordered)) in sets.into_iter().enumerate() {
        for opcode in [READ, WRITE] {
            let mut rig = ram();
            rig.command(attribute, &access(WRITE, BLOCK), BLOCK, &[]);
            let r2t = rig.r2t();
            if ordered {
                rig.command(TaskAttribute::Ordered, &[0; 6], 0, &[]);
            }
            match opcode {
                READ => rig.read_whole(0, BLOCK),
                _ => rig.write_whole(0, BLOCK, 9),
            }
            assert_eq!((rig.answer().len(), rig.byte(0)), (0, 0), "{nth}");
            rig.data_out(1, r2t.target_transfer_tag, 0, &[5; BLOCK as usize]);
            let others: Vec<(u32, u8)> = (1..2 + u32::from(ordered)).map(|tag| (tag, 0)).collect();
            let answers = rig.answer();
            let (first, last) = answers.split_at(others.len() * BHS_LEN);
            for (header, (tag, status)) in first.chunks(BHS_LEN).zip(others) {
                let response = ScsiResponse::parse(header.try_into().unwrap()).unwrap();
                assert_eq!((response.initiator_task_tag, response.status), (tag, status), "{nth}");
            }
            match opcode {
                READ => assert_eq!(last[BHS_LEN..], [5; BLOCK as usize], "{nth}"),
                _ => assert_eq!((last.len(), rig.byte(0)), (BHS_LEN, 9), "{nth}"),
            }
            // That is over.
            assert!(!rig.takes_a_task(|rig| rig.write_whole(0, BLOCK, 1)), "{nth}");
        }
    }
}

#[test]
fn a_write_that_gets_its_memory_first_keeps_nobody_waiting() {
    for digests in [false, true] {
        let mut rig = within_slow_world(digests);
        // It has memory from the first one on.
        for (lba, length, byte) in [(0, 4096, 1), (8, 512, 2)] {
            rig.core.spare_work.clear();
            rig.write_whole(lba, length, byte);
            assert_eq!(rig.statuses(1), [(u32::from(byte), 0)]);
            assert_eq!(rig.core.spare_work.is_empty(), byte == 2, "a task");
        }
        let mut cdb = access(WRITE, 4096);
        cdb[4] = 0x20;
        rig.command(TaskAttribute::Simple, &cdb, 4096, &[3; 4096]);
        if digests {
            rig.peer.write(&wire::digest::to_wire(wire::crc32c(&[3; 4096])));
        }
        rig.write_whole(9, 512, 4);
        assert_eq!(rig.statuses(2), [(4, 0), (3, 0)], "the one that need not wait comes first");
        assert_eq!((rig.byte(0), rig.byte(8), rig.byte(9), rig.medium(4 << 20, 4096)), (1, 2, 4, vec![3; 4096]));
    }
}

/// In which jobs take a while.
fn within_slow_world(digests: bool) -> Rig {
    let delay = Duration::from_micros(100)..Duration::from_micros(200);
    let world = World::with(1, Conduct { delay, fragment: false, window: 4 << 20 });
    let kind = Kind::Ram { bytes: 8 << 20, preallocate: false };
    Rig::within(world, kind, None, |parameters| parameters.data_digest = digests)
}

#[test]
fn blocks_that_somebody_has_for_himself_are_neither_read_nor_written() {
    const LENGTH: u32 = 4096;
    for opcode in [READ, WRITE] {
        for fence in [true, false] {
            let mut rig = ram();
            // The last block of it.
            let range = 7 * u64::from(BLOCK)..8 * u64::from(BLOCK);
            let id = fence.then(|| rig.fence(range.clone()));
            if !fence {
                rig.core.units[0].dying.push((900, range));
            }
            let send = |rig: &mut Rig, lba: u8| match opcode {
                READ => rig.read_whole(lba, LENGTH),
                _ => rig.write_whole(lba, LENGTH, 3),
            };
            let answer = if opcode == READ { BHS_LEN + LENGTH as usize } else { BHS_LEN };
            for beside in [8, 200] {
                assert!(!rig.takes_a_task(|rig| send(rig, beside)), "only these blocks");
                assert_eq!(rig.answer().len(), answer);
            }
            send(&mut rig, 0);
            assert_eq!((rig.answer().len(), rig.byte(0)), (0, 0), "{opcode:x} {fence}");
            match id {
                Some(id) => rig.release(id),
                None => {
                    rig.core.units[0].dying.clear();
                    rig.core.retry_unit(0);
                }
            }
            assert_eq!(rig.answer().len(), answer);
            assert_eq!(rig.byte(0), if opcode == READ { 0 } else { 3 });
        }
    }
}

#[test]
fn who_is_behind_is_sent_short_answers_alone() {
    let mut rig = ram();
    rig.hold(OUTGOING_SOFT);
    rig.read_whole(0, BLOCK);
    assert_eq!(rig.answer().len(), 0);
    rig.write_whole(1, BLOCK, 5);
    assert_eq!((rig.answer().len(), rig.byte(1)), (BHS_LEN, 5));
    rig.free(OUTGOING_SOFT);
    assert_eq!(rig.byte_read(BLOCK), 0);
}

#[test]
fn a_peer_that_reads_nothing_has_little_made_for_it() {
    // READs: 48 bytes each, and 64 KiB to be sent; then WRITEs.
    let mut rig = ram();
    rig.peer.set_window(0);
    let mut most = 0;
    for _ in 0..WINDOW / 2 {
        rig.read_whole(0, 64 << 10);
    }
    for n in 0..WINDOW / 2 {
        rig.write_whole(0, BLOCK, 1);
        if n % 16 == 0 {
            rig.some_turns();
        }
        let link = rig.link().1;
        most = most.max(link.outgoing.len() + link.last_bytes);
    }
    rig.some_turns();
    let bound = OUTGOING_SOFT + (64 << 10) + 2 * WINDOW as usize * BHS_LEN;
    assert!(most > bound / 2 && most <= bound, "{most}");
}

/// WRITE (10) of the first block, as it comes.
fn write_pdu(cmd_sn: u32, data: &[u8]) -> Vec<u8> {
    let mut header = [0; BHS_LEN];
    ScsiCommand {
        write: true,
        data_segment_length: data.len() as u32,
        expected_data_transfer_length: BLOCK,
        ..plain(cmd_sn, cmd_sn, &access(WRITE, BLOCK))
    }
    .emit(&mut header);
    [&header, data].concat()
}

#[test]
fn what_was_written_is_settled_however_the_input_ends() {
    let whole = |cmd_sn| write_pdu(cmd_sn, &[7; BLOCK as usize]);
    let mut logout = [0; BHS_LEN];
    LogoutRequest {
        immediate: true,
        reason: LogoutReason::CloseSession,
        data_segment_length: 0,
        initiator_task_tag: 99,
        cid: 0,
        cmd_sn: 3,
        exp_stat_sn: 1,
    }
    .emit(&mut logout);
    // A Login Request is an error.
    let login = [[3; 1].as_slice(), &[0; BHS_LEN - 1]].concat();
    let ends = [vec![], whole(3), whole(3)[..20].to_vec(), whole(3)[..BHS_LEN + 9].to_vec(), logout.to_vec(), login];
    for end in ends {
        let mut rig = ram();
        let key = rig.link().0;
        assert!(rig.core.answer_at_once(key, &whole(2)).is_some() && rig.core.streamed);
        let mut rig = ram();
        let key = rig.link().0;
        rig.core.feed(key, &[whole(2), end].concat());
        assert_eq!((rig.byte(0), rig.core.streamed), (7, false));
    }
}

#[test]
fn what_may_not_be_lent_is_copied_to_a_buffer() {
    const LENGTH: u32 = 32 << 10;
    type Why = fn(&mut Rig);
    let reasons: [(&str, Why); 5] = [
        ("it is lent", |_| {}),
        ("who reads doesn't say what it has", |rig| rig.link().1.gets_copies = true),
        ("blocks shall stand still", |rig| rig.core.units[0].still = true),
        ("others write, too", |rig| {
            let region = rig.core.units[0].queue.region(0, 0).unwrap().0.clone();
            std::thread::scope(|scope| assert!(scope.spawn(|| region.may_write()).join().unwrap()));
        }),
        ("somebody waits to write", |rig| {
            rig.read_whole(0, LENGTH);
            rig.some_turns();
            rig.write_whole(0, BLOCK, 1);
            rig.some_turns();
            assert_eq!(rig.core.units[0].waiting.len(), 1);
        }),
    ];
    for (why, happens) in reasons {
        let mut rig = digested();
        happens(&mut rig);
        rig.answer();
        rig.peer.set_window(0);
        let (before, loans) = (rig.available(), rig.core.loans.ranges(0).count());
        rig.read_whole(100, LENGTH);
        rig.some_turns();
        let lent = usize::from(why == "it is lent");
        let buffers = before[1] - rig.available()[1];
        assert_eq!((rig.core.loans.ranges(0).count() - loans, buffers), (lent, 1 - lent as u32), "{why}");
    }
}

#[test]
fn what_a_store_does_in_its_own_time_is_awaited() {
    let delayed = Settings {
        filters: vec![Filter::Delay(Delay { by: Duration::from_millis(5) })],
        ..Settings::new(Kind::Ram { bytes: 1 << 20, preallocate: false })
    };
    let mut rig = of(vec![delayed], |_| {});
    for write in [true, false] {
        match write {
            true => rig.write_whole(0, BLOCK, 3),
            false => rig.read_whole(0, BLOCK),
        }
        assert_eq!(rig.answer().len(), 0);
        let since = rig.world.now();
        assert_eq!(rig.bytes(BHS_LEN).len(), BHS_LEN + if write { 0 } else { BLOCK as usize });
        assert!(rig.world.now() - since >= Duration::from_millis(4));
    }
}

#[test]
fn what_a_store_says_is_wrong_is_told() {
    for (read, write) in [(true, false), (false, true)] {
        let fault = Fault {
            kinds: Kinds { read, write, flush: false },
            range: Some(0..u64::from(BLOCK)),
            per_million: 1_000_000,
            count: None,
            error: StoreError::Medium { offset: 0 },
            seed: 1,
        };
        let settings = Settings {
            filters: vec![Filter::Fault(fault)],
            ..Settings::new(Kind::Ram { bytes: 1 << 20, preallocate: false })
        };
        let mut rig = of(vec![settings], |_| {});
        rig.write_whole(0, BLOCK, 3);
        assert_eq!(rig.statuses(1), [(1, if write { 2 } else { 0 })]);
        rig.read_whole(0, BLOCK);
        match read {
            true => assert_eq!(rig.statuses(1), [(2, 2)]),
            false => assert_eq!(rig.byte_read(BLOCK), 0),
        }
    }
}

#[test]
fn buffers_that_are_scarce_are_not_held_by_messages() {
    const LENGTH: u32 = 32 << 10;
    let mut rig = digested();
    // Nothing is lent.
    rig.core.units[0].still = true;
    assert!(!rig.takes_a_task(|rig| rig.read_whole(0, LENGTH)), "it is copied to a buffer");
    assert_eq!(rig.byte_read(LENGTH), 0);
    rig.peer.set_window(0);
    let mut taken = rig.take_all(Class::Medium);
    let spare = taken.len() * 3 / 4 + 4;
    taken.truncate(taken.len() - spare);
    assert_eq!(rig.available()[1] as usize, spare);
    for _ in 0..20 {
        rig.read_whole(0, LENGTH);
    }
    rig.some_turns();
    assert!(rig.available()[1] as usize >= spare - 5, "{:?} of {spare}", rig.available());
    assert!(rig.core.tasks.is_empty(), "all are answered");
    // None at all: whoever finds none waits.
    taken.extend(rig.take_all(Class::Medium));
    taken.extend(rig.take_all(Class::Large));
    rig.read_whole(0, LENGTH);
    rig.some_turns();
    assert_eq!(rig.core.tasks.len(), 1);
    drop(taken);
    rig.peer.set_window(4 << 20);
    let answer = BHS_LEN + LENGTH as usize + 4;
    assert_eq!(rig.bytes(21 * answer).len(), 21 * answer);
}

#[test]
fn a_unit_that_is_at_its_share_gets_no_buffer() {
    const LENGTH: u32 = 32 << 10;
    let unit = || Settings::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
    let mut rig = of(vec![unit(), unit()], |parameters| parameters.data_digest = true);
    rig.core.units[0].still = true;
    let share = std::mem::take(&mut rig.core.units[0].share);
    rig.read_whole(0, LENGTH);
    assert_eq!((rig.answer().len(), rig.core.tasks.len()), (0, 1));
    rig.core.units[0].share = share;
    assert_eq!(rig.byte_read(LENGTH), 0);
}

#[test]
fn long_reads_under_a_digest_need_no_more_than_a_buffer_at_a_time() {
    const LENGTH: u32 = 512 << 10;
    for still in [false, true] {
        let unit = Settings::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
        let mut rig = of(vec![unit], |parameters| {
            (parameters.data_digest, parameters.peer_max_recv_data_segment_length) = (true, 1 << 20);
        });
        rig.core.units[0].still = still;
        rig.read_whole(0, LENGTH);
        let parts = LENGTH as usize / Class::Large.bytes();
        let all = LENGTH as usize + parts * (BHS_LEN + 4);
        assert_eq!(rig.bytes(all).len(), all);
    }
}

/// The store of a unit, which can't do all at once.
struct Part {
    inner: Box<dyn BlockQueue<Twin, Completion>>,
    /// What a file has locked in memory: then there is no region.
    pages: Option<PageReader>,
}

impl BlockQueue<Twin, Completion> for Part {
    fn geometry(&self) -> &Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, reactor: &mut Twin, tag: u64, request: Request) -> Submitted {
        self.inner.submit(reactor, tag, request)
    }

    fn complete(&mut self, reactor: &mut Twin, completion: Completion) -> Option<backstore_api::Completion> {
        self.inner.complete(reactor, completion)
    }

    fn in_flight(&self) -> u32 {
        self.inner.in_flight()
    }

    fn region(&self, offset: u64, length: u32) -> Option<(&Arc<Region>, u64)> {
        if self.pages.is_some() { None } else { self.inner.region(offset, length) }
    }

    fn pages(&self, _offset: u64, _length: u32) -> Option<&PageReader> {
        self.pages.as_ref()
    }
}

impl Rig {
    /// From now on its store is only that.
    fn in_part(&mut self, pages: Option<PageReader>) {
        let unit = &mut self.core.units[0];
        let geometry = BlockQueue::<Twin, Completion>::geometry(&*unit.queue).clone();
        let nothing = Box::new(Part { inner: Box::new(Empty(geometry)), pages: None });
        let inner = std::mem::replace(&mut unit.queue, nothing);
        unit.queue = Box::new(Part { inner, pages });
    }
}

struct Empty(Geometry);

impl BlockQueue<Twin, Completion> for Empty {
    fn geometry(&self) -> &Geometry {
        &self.0
    }

    fn submit(&mut self, _: &mut Twin, _: u64, request: Request) -> Submitted {
        Submitted::Full(request)
    }

    fn complete(&mut self, _: &mut Twin, _: Completion) -> Option<backstore_api::Completion> {
        None
    }

    fn in_flight(&self) -> u32 {
        0
    }
}

#[test]
fn a_region_that_cannot_be_read_now_is_read_by_a_task() {
    for length in [BLOCK, 32 << 10] {
        let mut rig = digested();
        rig.core.units[0].still = true;
        assert!(!rig.takes_a_task(|rig| rig.read_whole(0, length)));
        assert_eq!(rig.byte_read(length), 0);
        rig.in_part(None);
        let before = rig.available();
        assert!(rig.takes_a_task(|rig| rig.read_whole(0, length)));
        assert_eq!((rig.byte_read(length), rig.available()), (0, before));
    }
}

#[test]
fn pinned_pages_are_sent_unless_something_wants_copies() {
    const BYTES: u64 = 64 << 10;
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 2 * BYTES as usize], 0).unwrap();
    let pages = Pages::map(file.as_fd(), 2 * BYTES, 2 * BYTES, BYTES).unwrap();
    assert!(pages.begin(0) && pages.fill(0).unwrap());
    for (still, digest) in [(false, false), (true, false), (false, true)] {
        let mut rig = if digest { digested() } else { ram() };
        rig.in_part(Some(pages.reader()));
        rig.core.units[0].still = still;
        // The file is full of ones, the store behind it of zeroes.
        let pinned = !still && !digest;
        assert_eq!(rig.takes_a_task(|rig| rig.read_whole(0, 4096)), !pinned);
        assert_eq!(rig.byte_read(4096), u8::from(pinned));
        // What isn't there.
        rig.read_whole((BYTES / 512 - 1) as u8, 1024);
        assert_eq!(rig.byte_read(1024), 0);
        if pinned {
            let id = rig.fence(0..512);
            rig.read_whole(0, 4096);
            assert_eq!(rig.answer().len(), 0);
            rig.core.units[0].still = false;
            rig.release(id);
            assert_eq!(rig.byte_read(4096), 0);
        }
    }
}
