//! A core with a RAM volume in the simulated world, and PDUs by hand: what once ended or blocked the core.

mod alike;
mod chance;
mod flowing;
mod lending;
mod pieces;
mod protection;
mod short;
mod staying;

use super::{Core, CoreLimits, Unit, store_token_base};
use crate::mail::{Handover, Installed, Post, ToControl, ToCore};
use backstore::{Kind, Settings, Store};
use backstore_api::Protection;
use memory::Key;
use memory::{Arena, ArenaConfig, Pages};
use negotiation::Parameters;
use protocol::CloseReason;
use reactor::{
    Completion, Errno, Message, Reactor, Returned,
    twin::{Conduct, Peer, Twin, TwinSettings, World},
};
use scsi::{Identity, InitiatorPort, LogicalUnit, Profile, TargetPort};
use std::{collections::BTreeMap, os::fd::AsFd, sync::Arc, time::Duration};
use wire::{BHS_LEN, Bhs, DataOut, ReadyToTransfer, ScsiCommand, ScsiResponse, TaskAttribute};

const WINDOW: u32 = 1024;
const BLOCK: u32 = 512;

struct Rig {
    core: Core<Twin>,
    post: Arc<Post<<Twin as Reactor>::Waker>>,
    peer: Peer,
    cmd_sn: u32,
    /// What it says to have: its ExpStatSN.
    has: u32,
    /// Where its commands go.
    lun: u8,
    /// Its headers have digests.
    header_digest: bool,
    world: World,
    /// Of the units, in their order, which is that of their LUNs.
    stores: Vec<Arc<Store>>,
}

/// A SIMPLE command to LUN 0 that moves nothing.
fn plain(initiator_task_tag: u32, cmd_sn: u32, cdb: &[u8]) -> ScsiCommand {
    let mut field = [0; 16];
    field[..cdb.len()].copy_from_slice(cdb);
    ScsiCommand { exp_stat_sn: 1, ..ScsiCommand::simple(initiator_task_tag, cmd_sn, field) }
}

impl Rig {
    fn new(kind: Kind) -> Rig {
        Rig::with(kind, false, None)
    }

    /// `digests`: for the data alone.
    fn with(kind: Kind, digests: bool, protection: Option<Protection>) -> Rig {
        let delay = Duration::ZERO..Duration::from_nanos(1);
        let world = World::with(1, Conduct { delay, fragment: false, window: 4 << 20 });
        Rig::within(world, kind, protection, |parameters| parameters.data_digest = digests)
    }

    /// `negotiate`: what else is agreed on.
    fn within(
        world: World,
        kind: Kind,
        protection: Option<Protection>,
        negotiate: impl FnOnce(&mut Parameters),
    ) -> Rig {
        Rig::beside(0, world, vec![Settings { protection, ..Settings::new(kind) }], negotiate)
    }

    /// With so many other cores, of which there is nothing but their letter boxes, and some units.
    fn beside(others: usize, world: World, units: Vec<Settings>, negotiate: impl FnOnce(&mut Parameters)) -> Rig {
        let arena = Arena::new(ArenaConfig { small: 256, medium: 256, large: 8 }).unwrap();
        let mut twin = Twin::new(&world, &arena, TwinSettings { receive_buffers: 16, ..TwinSettings::default() });
        let (mut stores, mut luns, mut seats) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (place, settings) in units.iter().enumerate() {
            let store = Store::open(settings).unwrap();
            let identity = Identity::from_name(&format!("iqn.2026-01.io.ringlun:t{place}"));
            let profile = Profile { protection: settings.protection, ..Profile::new(identity, BLOCK) };
            let unit = LogicalUnit::new(profile, store.geometry().clone());
            let queue = store.queue(&mut twin, store_token_base(place as u16)).unwrap();
            luns.insert(place as u16, unit.clone());
            seats.push(Unit::new(unit, queue, 128));
            stores.push(store);
        }
        let post = Post::new(vec![twin.waker(); 1 + others], || {});
        let limits = CoreLimits {
            sessions: 4,
            window: WINDOW,
            tasks: 2 * WINDOW,
            nop_interval: Duration::ZERO,
            nop_timeout: Duration::from_secs(30),
        };
        let port = TargetPort {
            target_name: "iqn.2026-01.io.ringlun:t".into(),
            portal_group: 1,
            relative_port: 1,
            ports: vec![scsi::PortId { relative_port: 1, portal_group: 1 }],
            luns,
            copies: scsi::CopyManager::new([0; 32]),
        };
        let core = Core::new(0, limits, twin, post.clone(), seats);
        let (socket, peer) = world.connect().unwrap();
        let mut parameters = Parameters {
            initial_r2t: true,
            immediate_data: true,
            max_recv_data_segment_length: 256 << 10,
            peer_max_recv_data_segment_length: 256 << 10,
            max_burst_length: 1 << 20,
            first_burst_length: 64 << 10,
            ..Parameters::default()
        };
        negotiate(&mut parameters);
        let header_digest = parameters.header_digest;
        let handover = Handover {
            identity: Installed {
                id: 1,
                initiator: Arc::new(InitiatorPort {
                    name: "iqn.2026-01.io.ringlun:i".into(),
                    isid: [0x80, 0, 0, 0, 0, 1],
                }),
                target: port.target_name.as_str().into(),
                address: ([127, 0, 0, 1], 1).into(),
            },
            cid: 0,
            parameters,
            exp_cmd_sn: 1,
            stat_sn: 1,
            port: Arc::new(port),
            response: Vec::new(),
            addresses: Arc::new([]),
            leftover: Vec::new(),
        };
        post.send(0, ToCore::Install(socket, Box::new(handover)));
        let mut rig = Rig { core, post, peer, cmd_sn: 1, has: 1, lun: 0, header_digest, world, stores };
        rig.core.turn().unwrap();
        for lun in (0..units.len() as u8).rev() {
            // The unit attention of a new nexus.
            rig.lun = lun;
            rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
            assert_eq!(rig.statuses(1), [(rig.cmd_sn - 2, 2)]);
        }
        rig
    }

    /// Sends a command with immediate data; its tag is its CmdSN less one.
    fn command(&mut self, attribute: TaskAttribute, cdb: &[u8], expected: u32, data: &[u8]) {
        self.send(attribute, cdb, expected, false, data);
    }

    fn read(&mut self, cdb: &[u8], expected: u32) {
        self.send(TaskAttribute::Simple, cdb, expected, true, &[]);
    }

    fn send(&mut self, attribute: TaskAttribute, cdb: &[u8], expected: u32, read: bool, data: &[u8]) {
        let command = ScsiCommand {
            read,
            write: expected > 0 && !read,
            attribute,
            data_segment_length: data.len() as u32,
            lun: u64::from(self.lun) << 48,
            expected_data_transfer_length: expected,
            exp_stat_sn: self.has,
            ..plain(self.cmd_sn - 1, self.cmd_sn, cdb)
        };
        self.cmd_sn += 1;
        let mut header = [0; BHS_LEN];
        command.emit(&mut header);
        self.peer.write(&header);
        if self.header_digest {
            self.peer.write(&wire::digest::to_wire(wire::crc32c(&header)));
        }
        self.peer.write(data);
    }

    /// Answers an R2T whole: data for the task with this initiator's tag.
    fn data_out(&mut self, tag: u32, target_transfer_tag: u32, buffer_offset: u32, data: &[u8]) {
        self.data_out_piece(tag, target_transfer_tag, buffer_offset, data, 0, true);
    }

    /// One PDU of such an answer.
    fn data_out_piece(
        &mut self,
        tag: u32,
        target_transfer_tag: u32,
        buffer_offset: u32,
        data: &[u8],
        data_sn: u32,
        final_bit: bool,
    ) {
        let mut header = [0; BHS_LEN];
        DataOut {
            final_bit,
            data_segment_length: data.len() as u32,
            lun: 0,
            initiator_task_tag: tag,
            target_transfer_tag,
            exp_stat_sn: self.has,
            data_sn,
            buffer_offset,
        }
        .emit(&mut header);
        self.peer.write(&header);
        self.peer.write(data);
    }

    /// Turns until so many bytes have come.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..200_000 {
            self.core.turn().unwrap();
            bytes.extend(self.peer.read(1 << 20));
            if bytes.len() >= count {
                return bytes;
            }
        }
        panic!("{} of {count} bytes came", bytes.len());
    }

    /// Turns until so many PDUs without data digest have come.
    fn pdus(&mut self, count: usize) -> Vec<[u8; BHS_LEN]> {
        let mut pdus = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..200_000 {
            self.core.turn().unwrap();
            bytes.extend(self.peer.read(1 << 20));
            while let Some(header) = bytes.first_chunk::<BHS_LEN>().copied() {
                let length = Bhs::new(&header).pdu_len(self.header_digest, false);
                if bytes.len() < length {
                    break;
                }
                bytes.drain(..length);
                pdus.push(header);
            }
            if pdus.len() >= count {
                return pdus;
            }
        }
        panic!("{} of {count} PDUs came", pdus.len());
    }

    /// Tag and status of the next responses.
    fn statuses(&mut self, count: usize) -> Vec<(u32, u8)> {
        let response = |header: &[u8; BHS_LEN]| ScsiResponse::parse(header).unwrap();
        self.pdus(count).iter().map(response).map(|r| (r.initiator_task_tag, r.status)).collect()
    }
}

#[test]
fn a_queue_of_ordered_commands_does_not_fill_the_stack() {
    let mut rig = Rig::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
    // It waits for its data, and all others for it.
    rig.command(TaskAttribute::Ordered, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], BLOCK, &[]);
    let r2t = ReadyToTransfer::parse(&rig.pdus(1)[0]).unwrap();
    for _ in 0..WINDOW - 1 {
        rig.command(TaskAttribute::Ordered, &[0; 6], 0, &[]);
    }
    rig.data_out(1, r2t.target_transfer_tag, 0, &[7; BLOCK as usize]);
    let all: Vec<(u32, u8)> = (1..=WINDOW).map(|tag| (tag, 0)).collect();
    assert_eq!(rig.statuses(WINDOW as usize), all, "in order, and all of them");
}

#[test]
fn a_verify_of_a_large_medium_takes_many_turns_and_little_stack() {
    let mut rig = Rig::new(Kind::Null { bytes: 4 << 30 });
    let mut cdb = [0; 16];
    cdb[0] = 0x8f;
    cdb[10..14].copy_from_slice(&((4u64 << 30) / u64::from(BLOCK)).to_be_bytes()[4..]);
    rig.command(TaskAttribute::Simple, &cdb, 0, &[]);
    rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
    assert_eq!(rig.statuses(2), [(2, 0), (1, 0)], "others have their turn meanwhile");
}

#[test]
fn more_immediate_data_than_the_block_to_verify_is_thrown_away() {
    let mut rig = Rig::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
    let mut cdb = [0; 10];
    (cdb[0], cdb[1], cdb[7]) = (0x2f, 0x06, 1);
    rig.command(TaskAttribute::Simple, &cdb, 32 << 10, &[0; 16 << 10]);
    let response = ScsiResponse::parse(&rig.pdus(1)[0]).unwrap();
    assert_eq!((response.status, response.residual_underflow), (0, true));
    assert_eq!(response.residual_count, (32 << 10) - BLOCK);
}

/// READ (10) or WRITE (10) at the start of the medium.
fn access(opcode: u8, length: u32) -> [u8; 10] {
    let [high, low] = ((length / BLOCK) as u16).to_be_bytes();
    [opcode, 0, 0, 0, 0, 0, 0, high, low, 0]
}

#[test]
fn data_under_a_digest_is_written_when_it_is_right_and_read_with_a_digest() {
    for length in [4 << 10, 64 << 10, 128 << 10] {
        for wrong in [false, true] {
            let mut rig = Rig::with(Kind::Ram { bytes: 1 << 20, preallocate: false }, true, None);
            let data: Vec<u8> = (0..length).map(|n| (n / 7) as u8 | 1).collect();
            // As much as the first burst may have comes with the command.
            let most = data.len().min(64 << 10);
            rig.command(TaskAttribute::Simple, &access(0x2a, length), length, &data[..most]);
            let crc = wire::crc32c(&data[..most]) ^ u32::from(wrong);
            rig.peer.write(&wire::digest::to_wire(crc));
            if most < data.len() {
                if wrong {
                    continue;
                }
                let r2t = ReadyToTransfer::parse(&rig.pdus(1)[0]).unwrap();
                rig.data_out(1, r2t.target_transfer_tag, most as u32, &data[most..]);
                rig.peer.write(&wire::digest::to_wire(wire::crc32c(&data[most..])));
            }
            if wrong {
                let mut bytes = rig.bytes(3 * BHS_LEN + 4 + 20 + 4);
                let reject = wire::Reject::parse(bytes.first_chunk().unwrap()).unwrap();
                assert_eq!(reject.reason, wire::RejectReason::DataDigestError);
                bytes.drain(..BHS_LEN + BHS_LEN + 4);
                let response = ScsiResponse::parse(bytes.first_chunk().unwrap()).unwrap();
                assert_eq!(response.status, 2);
            } else {
                assert_eq!(rig.statuses(1), [(1, 0)]);
            }
            rig.read(&access(0x28, length), length);
            let answer = rig.bytes(BHS_LEN + length as usize + 4);
            assert_eq!(answer.len(), BHS_LEN + length as usize + 4);
            let (payload, crc) = answer[BHS_LEN..].split_at(length as usize);
            assert_eq!(crc, wire::digest::to_wire(wire::crc32c(payload)));
            if wrong {
                assert!(payload.iter().all(|byte| *byte == 0), "nothing of it was written");
            } else {
                assert!(payload == data);
            }
        }
    }
}

#[test]
fn data_under_a_digest_stands_still_however_little_the_socket_takes() {
    let length = 4 << 10;
    for window in [0, 1, 60, 5000] {
        let mut rig = Rig::with(Kind::Ram { bytes: 1 << 20, preallocate: false }, true, None);
        let write = |rig: &mut Rig, byte: u8| {
            let data = vec![byte; length as usize];
            rig.command(TaskAttribute::Simple, &access(0x2a, length), length, &data);
            rig.peer.write(&wire::digest::to_wire(wire::crc32c(&data)));
        };
        write(&mut rig, 1);
        assert_eq!(rig.statuses(1), [(1, 0)]);
        rig.peer.set_window(window);
        let reads = 3;
        for _ in 0..reads {
            rig.read(&access(0x28, length), length);
        }
        let mut bytes = Vec::new();
        // While these answers are on their way, or wait, the data changes.
        for byte in 2..6 {
            write(&mut rig, byte);
            for _ in 0..20 {
                rig.core.turn().unwrap();
            }
            bytes.extend(rig.peer.read(7));
        }
        rig.peer.set_window(4 << 20);
        let answer = BHS_LEN + length as usize + 4;
        let rest = reads * answer + 4 * BHS_LEN - bytes.len();
        bytes.extend(rig.bytes(rest));
        let (mut seen, mut at) = (0, 0);
        while let Some(header) = bytes[at..].first_chunk::<BHS_LEN>() {
            at += BHS_LEN;
            if Bhs::new(header).data_segment_length() > 0 {
                let (data, crc) = bytes[at..at + length as usize + 4].split_at(length as usize);
                assert_eq!(crc, wire::digest::to_wire(wire::crc32c(data)), "window {window}");
                at += length as usize + 4;
                seen += 1;
            }
        }
        assert_eq!((seen, at), (reads, bytes.len()));
    }
}

#[test]
fn a_read_before_an_ordered_write_has_the_old_data() {
    let mut rig = Rig::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
    let (old, new) = ([1; 4096], [2; 4096]);
    rig.command(TaskAttribute::Ordered, &access(0x2a, 4096), 4096, &old);
    assert_eq!(rig.statuses(1), [(1, 0)]);
    // Both come in one piece, so that the write is done before anything is sent.
    rig.read(&access(0x28, 4096), 4096);
    rig.command(TaskAttribute::Ordered, &access(0x2a, 4096), 4096, &new);
    let answers = rig.bytes(BHS_LEN + 4096 + BHS_LEN);
    assert!(answers[BHS_LEN..BHS_LEN + 4096] == old);
    rig.read(&access(0x28, 4096), 4096);
    assert!(rig.bytes(BHS_LEN + 4096)[BHS_LEN..] == new);
}

#[test]
fn a_session_that_is_closed_while_it_sends_and_receives_is_reported() {
    let mut rig = Rig::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
    rig.peer.set_window(0);
    rig.command(TaskAttribute::Simple, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 64, 0], 64 * BLOCK, &[]);
    for _ in 0..20 {
        rig.core.turn().unwrap();
    }
    rig.post.send(0, ToCore::Close(1, CloseReason::Reinstated));
    for _ in 0..50 {
        rig.core.turn().unwrap();
        if let Some(ToControl::Ended { ended, .. }) = rig.post.reported() {
            assert_eq!((ended.id, rig.core.sessions()), (1, 0));
            return;
        }
    }
    panic!("its end is not reported at {:?}", rig.world.now());
}

impl Rig {
    fn link(&mut self) -> (Key, &mut super::Link) {
        let key = self.core.links.iter().next().expect("a link").0;
        (key, self.core.links.get_mut(key).expect("just found"))
    }

    /// As if a message of so many bytes was sent without a copy, and the kernel kept it.
    fn hold(&mut self, bytes: usize) {
        let (key, link) = self.link();
        (link.sending, link.last_bytes) = (true, bytes);
        link.operations += 1;
        self.core.sent(key, Completion { token: 0, result: Ok(bytes as u32), returned: Returned::Held });
    }

    /// It comes home.
    fn free(&mut self, bytes: usize) {
        let message = Message { bytes: vec![0; bytes], ..Message::default() };
        let key = self.link().0;
        self.core.sent(key, Completion { token: 0, result: Ok(bytes as u32), returned: Returned::Late(message) });
    }

    fn turns(&mut self) {
        for _ in 0..20 {
            self.core.turn().unwrap();
        }
    }
}

#[test]
fn what_the_kernel_holds_counts_as_not_sent() {
    let mut rig = Rig::new(Kind::Ram { bytes: 8 << 20, preallocate: false });
    rig.hold(3 << 20);
    assert!(rig.link().1.is_behind() && !rig.link().1.is_flooded());
    // Short answers go; a read that needs windows waits.
    rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
    assert_eq!(rig.statuses(1), [(1, 0)]);
    let mut cdb = [0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    cdb[7..9].copy_from_slice(&1024u16.to_be_bytes());
    rig.read(&cdb, 512 << 10);
    rig.turns();
    assert_eq!(rig.peer.unread(), 0, "nothing of it");
    rig.free(3 << 20);
    assert_eq!(rig.bytes(2 * (BHS_LEN + (256 << 10))).len(), 2 * (BHS_LEN + (256 << 10)));
    rig.hold(4 << 20);
    assert!(rig.link().1.is_flooded());
    rig.free(4 << 20);
    assert_eq!((rig.link().1.held, rig.link().1.held_bytes), (0, 0));
}

#[test]
fn only_so_many_messages_are_held_before_the_next_one_waits() {
    let mut rig = Rig::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
    for _ in 0..super::link::HELD_SENDS {
        rig.hold(4096);
    }
    rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
    rig.turns();
    assert_eq!(rig.peer.unread(), 0);
    rig.free(4096);
    assert_eq!(rig.statuses(1), [(1, 0)]);
}

#[test]
fn a_gentle_end_waits_for_what_is_held_and_a_cut_does_not() {
    for gentle in [true, false] {
        let mut rig = Rig::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
        rig.hold(4096);
        let key = rig.link().0;
        if gentle {
            rig.core.close_gently(key, CloseReason::Logout);
            // Each may take a second of the world's time.
            for _ in 0..5 {
                rig.core.turn().unwrap();
            }
            assert_eq!(rig.core.sessions(), 1, "its peer has not acknowledged all");
            rig.free(4096);
        } else {
            rig.core.cut(key, CloseReason::Silent);
        }
        rig.turns();
        assert_eq!(rig.core.sessions(), 0);
        // What comes home behind the session's end is nobody's any more.
        let message = Message::default();
        rig.core.sent(key, Completion { token: 0, result: Ok(0), returned: Returned::Late(message) });
    }
}

#[test]
fn pages_that_could_not_be_read_are_not_trusted_wherever_their_message_comes_home() {
    const BYTES: u64 = 64 << 10;
    for late in [false, true] {
        let mut rig = Rig::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
        let file = tempfile::tempfile().unwrap();
        file.set_len(BYTES).unwrap();
        let pages = Pages::map(file.as_fd(), BYTES, BYTES, BYTES).unwrap();
        assert!(pages.begin(0) && pages.fill(0).unwrap());
        let reader = pages.reader();
        let message = Message { leases: vec![reader.lease()], ..Message::default() };
        let key = rig.link().0;
        let result = Err(Errno::FAULT);
        if late {
            rig.hold(0);
            rig.core.cut(key, CloseReason::Silent);
            rig.turns();
            assert!(rig.core.sessions() == 0 && reader.holds(0, 4096));
            rig.core.sent(key, Completion { token: 0, result, returned: Returned::Late(message) });
        } else {
            let link = rig.link().1;
            link.sending = true;
            link.operations += 1;
            rig.core.sent(key, Completion { token: 0, result, returned: Returned::Message(message) });
        }
        assert!(!reader.holds(0, 4096), "{late}");
    }
}

#[test]
fn a_session_that_is_cut_takes_back_what_its_peer_has_not_got() {
    for gentle in [true, false] {
        let mut rig = Rig::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
        rig.read(&access(0x28, 64 << 10), 64 << 10);
        rig.turns();
        assert_eq!(rig.peer.unread(), BHS_LEN + (64 << 10));
        let key = rig.link().0;
        if gentle {
            rig.core.close_gently(key, CloseReason::Logout);
        } else {
            rig.core.cut(key, CloseReason::Reinstated);
        }
        rig.turns();
        assert_eq!((rig.core.sessions(), rig.peer.unread() > 0), (0, gentle));
    }
}
