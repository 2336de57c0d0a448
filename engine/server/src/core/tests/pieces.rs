//! The answers to a stream of PDUs don't depend on the pieces in which it comes: what comes whole may take the short way, and
//! what comes in pieces never does.

use super::{chance::Dice, *};
use reactor::Wake;
use wire::{NopOut, Opcode, RESERVED_TAG, TaskManagementFunction, TaskManagementRequest};

/// Blocks that the commands are about, so that they meet.
const BLOCKS: u64 = 48;
/// Blocks from there on are read, and never written to.
const OTHERS: u64 = 64;
/// Of the medium.
const ALL: u64 = 2048;

/// PDUs by chance, of an initiator that doesn't know its rules too well.
struct Stream {
    dice: Dice,
    parameters: Parameters,
    /// Reads have what lies there when they are carried out. If not, what is written may be in answers that come before its own.
    still: bool,
    cmd_sn: u32,
    tag: u32,
    pdus: Vec<Vec<u8>>,
}

impl Stream {
    fn new(seed: u64, parameters: Parameters, still: bool) -> Stream {
        let mut stream = Stream { dice: Dice(seed), parameters, still, cmd_sn: 2, tag: 100, pdus: Vec::new() };
        for _ in 0..60 {
            match stream.dice.roll(40) {
                0 => stream.manage(),
                1 => stream.ping(),
                2 => stream.out_of_order(),
                _ => stream.command(),
            }
        }
        // What was counted, and what is left of it all.
        for cdb in [&[0; 6][..], &[0; 6], &[0x4d, 0, 0x59, 0, 0, 0, 0, 0, 255, 0]] {
            let command = stream.plain(cdb, 255);
            let command = ScsiCommand { attribute: TaskAttribute::HeadOfQueue, read: true, ..command };
            stream.put(command, &[], false);
        }
        stream
    }

    /// A command that is all right.
    fn plain(&mut self, cdb: &[u8], expected: u32) -> ScsiCommand {
        (self.tag, self.cmd_sn) = (self.tag + 1, self.cmd_sn.wrapping_add(1));
        ScsiCommand {
            expected_data_transfer_length: expected,
            exp_stat_sn: 1 + self.dice.roll(4) as u32,
            ..plain(self.tag, self.cmd_sn.wrapping_sub(1), cdb)
        }
    }

    /// READ or WRITE of any length of CDB.
    fn access(&mut self, writes: bool) -> (Vec<u8>, u32) {
        let apart = !writes && (!self.still || self.dice.one_in(2));
        let (first, last) = if apart { (OTHERS, ALL) } else { (0, ALL - 2) };
        let lba = if self.dice.one_in(40) { last } else { first + self.dice.roll(BLOCKS) };
        let blocks = if self.dice.one_in(30) { 0 } else { 1 + self.dice.roll(8) };
        let mut flags = if self.dice.one_in(4) { 0x18 & self.dice.roll(256) as u8 } else { 0 };
        if self.dice.one_in(25) {
            flags |= self.dice.roll(256) as u8;
        }
        let opcode = [0x28, 0x88, 0xa8, 0x08][self.dice.roll(4) as usize] | if writes { 2 } else { 0 };
        let mut cdb = vec![opcode, flags];
        match opcode {
            0x08 | 0x0a => {
                let far = if self.dice.one_in(20) { flags & 0x1f } else { 0 };
                cdb = vec![opcode, far, (lba >> 8) as u8, lba as u8, blocks.max(1) as u8, 0];
            }
            0x28 | 0x2a => {
                cdb.extend((lba as u32).to_be_bytes());
                cdb.extend([0, 0, blocks as u8, 0]);
            }
            0xa8 | 0xaa => {
                cdb.extend((lba as u32).to_be_bytes());
                cdb.extend((blocks as u32).to_be_bytes());
                cdb.extend([0; 2]);
            }
            _ => {
                cdb.extend(lba.to_be_bytes());
                cdb.extend((blocks as u32).to_be_bytes());
                cdb.extend([0; 2]);
            }
        }
        let count = if opcode & !2 == 0x08 { blocks.max(1) } else { blocks };
        (cdb, count as u32 * BLOCK)
    }

    fn command(&mut self) {
        let writes = self.dice.one_in(2);
        let (cdb, length) = match self.dice.roll(60) {
            0 => (vec![0; 6], 0),
            // What it counts, twice: by the unit, and by all its parameters.
            1 => (vec![0x4d, 0, 0x59, 0, 0, 0, 0, 0, 255, 0], 255),
            // STOP, START, SYNCHRONIZE CACHE.
            2 => (vec![0x1b, 0, 0, 0, 0, 0], 0),
            3..6 => (vec![0x1b, 0, 0, 0, 1, 0], 0),
            6 => (vec![0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0),
            // COMPARE AND WRITE of a block.
            7..10 => {
                let mut cdb = vec![0x89, 0, 0, 0, 0, 0, 0, 0, 0, self.dice.roll(BLOCKS) as u8];
                cdb.extend([0, 0, 0, 1, 0, 0]);
                (cdb, 2 * BLOCK)
            }
            // RESERVE (6), RELEASE (6).
            10 => (vec![0x16 | self.dice.roll(2) as u8, 0, 0, 0, 0, 0], 0),
            _ => self.access(writes),
        };
        let sends = matches!(cdb[0], 0x2a | 0x8a | 0xaa | 0x0a | 0x89);
        let mut command = self.plain(&cdb, length);
        (command.read, command.write) = (!sends && length > 0, sends && length > 0);
        command.attribute = match self.dice.roll(30) {
            0 | 1 => TaskAttribute::Ordered,
            2 => TaskAttribute::HeadOfQueue,
            3 => TaskAttribute::Aca,
            4 | 5 => TaskAttribute::Untagged,
            _ => TaskAttribute::Simple,
        };
        let mut data = vec![0; if sends { length as usize } else { 0 }];
        let value = self.dice.roll(4) as u8;
        data.iter_mut().enumerate().for_each(|(n, byte)| *byte = value.wrapping_mul((n / 512) as u8 | 1));
        match self.dice.roll(150) {
            0..4 => command.expected_data_transfer_length = self.dice.roll(10_000) as u32,
            4..6 => {
                (command.read, command.write) = (command.write, command.read);
                data = vec![1; if command.write { length as usize } else { 0 }];
            }
            6 => command.read = true,
            7 => command.lun = 1 << 48,
            8 => command.lun = self.dice.roll(u64::MAX),
            9..12 => (command.immediate, self.cmd_sn) = (true, self.cmd_sn.wrapping_sub(1)),
            12 => command.initiator_task_tag -= 1,
            13 => command.initiator_task_tag = RESERVED_TAG,
            14 => command.cmd_sn = command.cmd_sn.wrapping_sub(1 + self.dice.roll(9) as u32),
            15 => command.cmd_sn = command.cmd_sn.wrapping_add(WINDOW + self.dice.roll(2) as u32),
            // It owes data, which never comes.
            16..18 if !data.is_empty() => data.truncate(self.dice.roll(data.len() as u64) as usize),
            18 => data.extend([1; 512]),
            19 => command.final_bit = false,
            20 => command.exp_stat_sn = self.dice.roll(1 << 32) as u32,
            _ => {}
        }
        if command.immediate && command.cmd_sn != self.cmd_sn {
            command.cmd_sn = self.cmd_sn;
        }
        let spoils = self.dice.one_in(60);
        self.put(command, &data, spoils);
    }

    /// Two or three commands, the last one first.
    fn out_of_order(&mut self) {
        let first = self.pdus.len();
        for _ in 0..2 + self.dice.roll(2) {
            self.command();
        }
        self.pdus[first..].reverse();
    }

    fn ping(&mut self) {
        let immediate = self.dice.one_in(2);
        let data = vec![7; self.dice.roll(20) as usize];
        let mut header = [0; BHS_LEN];
        NopOut {
            immediate,
            data_segment_length: data.len() as u32,
            lun: 0,
            initiator_task_tag: 0x2000_0000 | self.pdus.len() as u32,
            target_transfer_tag: RESERVED_TAG,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: 1,
        }
        .emit(&mut header);
        self.cmd_sn = self.cmd_sn.wrapping_add(u32::from(!immediate));
        self.seal(&header, &data, false);
    }

    fn manage(&mut self) {
        let functions = [
            TaskManagementFunction::AbortTask,
            TaskManagementFunction::AbortTaskSet,
            TaskManagementFunction::ClearTaskSet,
            TaskManagementFunction::LogicalUnitReset,
            TaskManagementFunction::TargetWarmReset,
        ];
        let function = functions[self.dice.roll(5) as usize];
        let immediate = !self.dice.one_in(4);
        // It may be about commands that come behind it.
        let ahead = if self.dice.one_in(3) { self.dice.roll(4) as u32 } else { 0 };
        let back = self.dice.roll(6) as u32;
        let mut header = [0; BHS_LEN];
        TaskManagementRequest {
            immediate,
            function,
            data_segment_length: 0,
            lun: 0,
            initiator_task_tag: 0x1000_0000 | self.pdus.len() as u32,
            referenced_task_tag: (self.tag + ahead).saturating_sub(back),
            cmd_sn: self.cmd_sn.wrapping_add(if immediate { ahead } else { 0 }),
            exp_stat_sn: 1,
            ref_cmd_sn: self.cmd_sn.wrapping_add(ahead).wrapping_sub(back),
            exp_data_sn: 0,
        }
        .emit(&mut header);
        self.cmd_sn = self.cmd_sn.wrapping_add(u32::from(!immediate));
        self.seal(&header, &[], false);
    }

    fn put(&mut self, command: ScsiCommand, data: &[u8], spoils: bool) {
        let mut header = [0; BHS_LEN];
        ScsiCommand { data_segment_length: data.len() as u32, ..command }.emit(&mut header);
        self.seal(&header, data, spoils);
    }

    /// Adds a PDU with its digests.
    fn seal(&mut self, header: &[u8; BHS_LEN], data: &[u8], spoils: bool) {
        let mut pdu = header.to_vec();
        if self.parameters.header_digest {
            let wrong = spoils && self.dice.one_in(4);
            pdu.extend(wire::digest::to_wire(wire::crc32c(header) ^ u32::from(wrong)));
        }
        let at = pdu.len();
        pdu.extend(data);
        pdu.extend(&[0; 3][..wire::padding(data.len())]);
        if self.parameters.data_digest && !data.is_empty() {
            pdu.extend(wire::digest::to_wire(wire::crc32c(&pdu[at..]) ^ u32::from(spoils)));
        }
        self.pdus.push(pdu);
    }
}

/// How a stream comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comes {
    AtOnce,
    PduByPdu,
    /// None of its headers in one piece: nothing takes the short way.
    Cut,
    ByChance,
}

/// All that can be seen of a session and its unit afterwards.
#[derive(PartialEq)]
struct Seen {
    pdus: Vec<Vec<u8>>,
    medium: Vec<u8>,
    numbers: [u32; 4],
    sessions: u32,
    tasks: u32,
}

fn play(seed: u64, stream: &Stream, comes: Comes, kind: Kind) -> (Seen, bool) {
    let delay = Duration::ZERO..Duration::from_nanos(1);
    let world = World::with(seed, Conduct { delay, fragment: false, window: 4 << 20 });
    let mut rig = Rig::within(world, kind, None, |parameters| *parameters = stream.parameters);
    rig.core.spare_work.clear();
    rig.core.units[0].still = stream.still;
    let others: Vec<u8> = (0..2 * BLOCKS * u64::from(BLOCK)).map(|n| (n / 100) as u8 | 1).collect();
    assert!(rig.core.units[0].write_now(OTHERS * u64::from(BLOCK), &others));
    let mut dice = Dice(seed);
    let pieces: Vec<Vec<u8>> = match comes {
        Comes::AtOnce => vec![stream.pdus.concat()],
        Comes::PduByPdu => stream.pdus.clone(),
        Comes::Cut => stream.pdus.iter().flat_map(|pdu| [pdu[..20].to_vec(), pdu[20..].to_vec()]).collect(),
        Comes::ByChance => {
            let (mut pieces, mut left) = (Vec::new(), stream.pdus.concat());
            while !left.is_empty() {
                let most = if dice.one_in(2) { 100 } else { 6000 };
                pieces.push(left.drain(..left.len().min(1 + dice.roll(most) as usize)).collect());
            }
            pieces
        }
    };
    let (mut bytes, mut without_tasks) = (Vec::new(), false);
    for piece in pieces {
        rig.peer.write(&piece);
        for _ in 0..3 {
            rig.core.reactor().waker().wake();
            rig.core.turn().unwrap();
        }
        let read = rig.peer.read(4 << 20);
        let data = read.first() == Some(&Opcode::DataIn.code());
        without_tasks |= data && rig.core.tasks.is_empty() && rig.core.spare_work.is_empty();
        bytes.extend(read);
    }
    for _ in 0..10 {
        rig.core.reactor().waker().wake();
        rig.core.turn().unwrap();
        bytes.extend(rig.peer.read(4 << 20));
    }
    let mut medium = vec![0; (ALL * u64::from(BLOCK)) as usize];
    rig.core.units[0].queue.read_now(0, &mut medium).expect("memory").unwrap();
    let link = rig.core.links.iter().next().map(|(_, link)| link);
    let numbers = link.map_or([0; 4], |link| {
        let (session, connection) = (&link.session, &link.connection);
        [session.exp_cmd_sn(), session.max_cmd_sn(), connection.stat_sn(), connection.exp_stat_sn()]
    });
    let (sessions, tasks) = (rig.core.sessions(), rig.core.tasks.len());
    let seen = Seen { pdus: cut(&bytes, &stream.parameters), medium, numbers, sessions, tasks };
    (seen, without_tasks)
}

/// PDUs with right digests, but for what names a slot of the core: how many slots were used before depends on the way.
fn cut(mut bytes: &[u8], parameters: &Parameters) -> Vec<Vec<u8>> {
    let mut pdus = Vec::new();
    while let Some(header) = bytes.first_chunk::<BHS_LEN>() {
        let bhs = Bhs::new(header);
        let length = bhs.pdu_len(parameters.header_digest, parameters.data_digest);
        let head = bhs.header_len(parameters.header_digest);
        let (pdu, rest) = bytes.split_at(length);
        if parameters.header_digest {
            assert_eq!(pdu[BHS_LEN..head], wire::digest::to_wire(wire::crc32c(header)));
        }
        if parameters.data_digest && length > head {
            let (data, digest) = pdu[head..].split_at(length - head - 4);
            assert_eq!(digest, wire::digest::to_wire(wire::crc32c(data)));
        }
        let mut pdu = [header, &pdu[head..]].concat();
        if bhs.opcode() == Opcode::ReadyToTransfer {
            pdu[20..24].fill(0);
        }
        pdus.push(pdu);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{} bytes of a PDU", bytes.len());
    pdus
}

#[test]
fn the_answers_are_the_same_whatever_the_pieces() {
    let mut short = 0;
    for seed in 0..120 {
        let parameters = Parameters {
            header_digest: seed & 1 > 0,
            data_digest: seed & 2 > 0,
            initial_r2t: seed % 7 > 0,
            immediate_data: seed % 11 > 0,
            max_recv_data_segment_length: 8 << 10,
            peer_max_recv_data_segment_length: if seed % 5 > 0 { 8 << 10 } else { 1500 },
            max_burst_length: if seed % 6 > 0 { 16 << 10 } else { 2000 },
            first_burst_length: 4 << 10,
            ..Parameters::default()
        };
        let stream = Stream::new(seed, parameters, seed & 4 > 0);
        let bytes = ALL * u64::from(BLOCK);
        let kind = || Kind::Ram { bytes, preallocate: false };
        let (long, took_none) = play(seed, &stream, Comes::Cut, kind());
        assert!(!took_none, "what comes in pieces becomes a task");
        for comes in [Comes::AtOnce, Comes::PduByPdu, Comes::ByChance] {
            let (seen, without_tasks) = play(seed, &stream, comes, kind());
            short += u32::from(without_tasks);
            for (n, (one, other)) in seen.pdus.iter().zip(&long.pdus).enumerate() {
                let headers = (&one[..BHS_LEN], &other[..BHS_LEN]);
                assert!(one == other, "seed {seed}, {comes:?}: answer {n} is, and is not: {headers:x?}");
            }
            assert_eq!(seen.pdus.len(), long.pdus.len(), "seed {seed}, {comes:?}");
            assert_eq!((seen.numbers, seen.sessions), (long.numbers, long.sessions), "seed {seed}, {comes:?}");
            assert_eq!(seen.tasks, long.tasks, "seed {seed}, {comes:?}");
            assert!(seen.medium == long.medium, "seed {seed}, {comes:?}: the medium");
        }
    }
    assert!(short > 20, "the short way is taken: {short}");
}
