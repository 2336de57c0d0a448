//! Blocks that move with their tuples of protection information.

use super::*;
use wire::DataIn;

const WHOLE: usize = BLOCK as usize + 8;
const GUARD_FAILED: (u8, u8, u8) = (0xB, 0x10, 0x01);

/// The CRC of the standard, bit by bit: polynomial 8BB7h.
fn crc(block: &[u8]) -> u16 {
    block.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc >> 15 == 1 { 0x8BB7 } else { 0 })
    })
}

/// Blocks that differ, with tuples.
fn with_tuples(blocks: usize, application: u16, reference: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for nth in 0..blocks {
        let block = [(nth * 7 + nth / 256) as u8; BLOCK as usize];
        out.extend(block);
        out.extend(crc(&block).to_be_bytes());
        out.extend(application.to_be_bytes());
        out.extend((reference + nth as u32).to_be_bytes());
    }
    out
}

fn without_tuples(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(WHOLE).flat_map(|block| &block[..BLOCK as usize]).copied().collect()
}

fn cdb_16(opcode: u8, byte_1: u8, lba: u8, blocks: u16) -> [u8; 16] {
    let [high, low] = blocks.to_be_bytes();
    [opcode, byte_1, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, high, low, 0, 0]
}

/// How a command ended.
#[derive(Debug, PartialEq)]
struct End {
    status: u8,
    data: Vec<u8>,
    sense: (u8, u8, u8),
}

impl Rig {
    /// Answers R2Ts out of `data`, collects Data-In, until the status comes.
    fn carry_out(&mut self, data: &[u8]) -> End {
        let tag = self.cmd_sn - 2;
        let (mut bytes, mut came): (Vec<u8>, Vec<u8>) = Default::default();
        for _ in 0..200_000 {
            self.core.turn().unwrap();
            bytes.extend(self.peer.read(1 << 20));
            while let Some(header) = bytes.first_chunk::<BHS_LEN>().copied() {
                let length = Bhs::new(&header).data_segment_length() as usize;
                let whole = BHS_LEN + length.next_multiple_of(4);
                if bytes.len() < whole {
                    break;
                }
                let payload = bytes[BHS_LEN..BHS_LEN + length].to_vec();
                bytes.drain(..whole);
                match header[0] & 0x3F {
                    0x31 => {
                        let r2t = ReadyToTransfer::parse(&header).unwrap();
                        let from = r2t.buffer_offset as usize;
                        let burst = &data[from..from + r2t.desired_data_transfer_length as usize];
                        self.data_out(tag, r2t.target_transfer_tag, r2t.buffer_offset, burst);
                    }
                    0x25 => {
                        let data_in = DataIn::parse(&header).unwrap();
                        assert_eq!(data_in.buffer_offset as usize, came.len());
                        came.extend(payload);
                        if header[1] & 1 == 1 {
                            return End { status: header[3], data: came, sense: (0, 0, 0) };
                        }
                    }
                    _ => {
                        let response = ScsiResponse::parse(&header).unwrap();
                        assert_eq!(response.initiator_task_tag, tag);
                        let sense = payload.get(2..).map_or((0, 0, 0), |s| (s[2] & 0xF, s[12], s[13]));
                        return End { status: response.status, data: came, sense };
                    }
                }
            }
        }
        panic!("no status came");
    }

    /// A command of 32 bytes: the second half travels in an additional header segment.
    fn long(&mut self, cdb: &[u8; 32], expected: u32, read: bool) {
        let mut header = [0; BHS_LEN];
        ScsiCommand {
            read,
            write: !read,
            total_ahs_length: 5,
            expected_data_transfer_length: expected,
            ..plain(self.cmd_sn - 1, self.cmd_sn, &cdb[..16])
        }
        .emit(&mut header);
        self.cmd_sn += 1;
        self.peer.write(&header);
        self.peer.write(&[0, 17, 1, 0]);
        self.peer.write(&cdb[16..]);
    }
}

fn rig(protection: Protection) -> Rig {
    Rig::with(Kind::Ram { bytes: 4 << 20, preallocate: false }, false, Some(protection))
}

#[test]
fn tuples_go_there_and_come_back_in_several_windows() {
    let mut rig = rig(Protection::Type1);
    // More than four windows; immediate data of none, of a part of a block, and as much as a buffer.
    for (nth, immediate) in [0, 1000, 64 << 10].into_iter().enumerate() {
        let bytes = with_tuples(2400 - nth, 0x1234, 5);
        let blocks = (bytes.len() / WHOLE) as u16;
        let length = bytes.len() as u32;
        rig.command(TaskAttribute::Simple, &cdb_16(0x8A, 0x20, 5, blocks), length, &bytes[..immediate]);
        assert_eq!(rig.carry_out(&bytes), End { status: 0, data: Vec::new(), sense: (0, 0, 0) });
        rig.read(&cdb_16(0x88, 0x20, 5, blocks), length);
        let end = rig.carry_out(&[]);
        assert!(end.status == 0 && end.data == bytes, "{} bytes came", end.data.len());
        let plain = u32::from(blocks) * BLOCK;
        rig.read(&cdb_16(0x88, 0, 5, blocks), plain);
        assert!(rig.carry_out(&[]).data == without_tuples(&bytes));
        // WRITE AND VERIFY, VERIFY with and without data.
        rig.command(TaskAttribute::Simple, &cdb_16(0x8E, 0x22, 5, blocks), length, &[]);
        assert_eq!(rig.carry_out(&bytes).status, 0);
        rig.command(TaskAttribute::Simple, &cdb_16(0x8F, 0x22, 5, blocks), length, &[]);
        assert_eq!(rig.carry_out(&bytes).status, 0);
        rig.command(TaskAttribute::Simple, &cdb_16(0x8F, 0x20, 5, blocks), 0, &[]);
        assert_eq!(rig.carry_out(&bytes).status, 0);
    }
}

#[test]
fn a_wrong_guard_is_refused_when_written_and_found_when_read() {
    let mut rig = rig(Protection::Type1);
    let mut bytes = with_tuples(600, 1, 5);
    bytes[520 * WHOLE] ^= 1;
    let length = bytes.len() as u32;
    rig.command(TaskAttribute::Simple, &cdb_16(0x8A, 0x20, 5, 600), length, &[]);
    let end = rig.carry_out(&bytes);
    assert_eq!((end.status, end.sense), (2, GUARD_FAILED));
    // WRPROTECT 011b: it is stored as it is.
    rig.command(TaskAttribute::Simple, &cdb_16(0x8A, 0x60, 5, 600), length, &[]);
    assert_eq!(rig.carry_out(&bytes).status, 0);
    for (field, expected) in [(0x20, length), (0x80, length), (0, 600 * BLOCK)] {
        rig.read(&cdb_16(0x88, field, 5, 600), expected);
        let end = rig.carry_out(&[]);
        assert_eq!((end.status, end.sense), (2, GUARD_FAILED), "RDPROTECT {field:x}");
    }
    rig.read(&cdb_16(0x88, 0x60, 5, 600), length);
    assert!(rig.carry_out(&[]).data == bytes);
    // An ordinary write makes it whole again.
    rig.command(TaskAttribute::Simple, &cdb_16(0x8A, 0, 5, 600), 600 * BLOCK, &[]);
    assert_eq!(rig.carry_out(&without_tuples(&bytes)).status, 0);
    rig.read(&cdb_16(0x88, 0x20, 5, 600), length);
    assert_eq!(rig.carry_out(&[]).status, 0);
}

#[test]
fn fewer_bytes_than_a_block_with_its_tuple_move_none_of_it() {
    let mut rig = rig(Protection::Type3);
    rig.read(&cdb_16(0x88, 0x20, 5, 2), 519);
    let end = rig.carry_out(&[]);
    assert_eq!((end.status, end.data.len()), (0, 0));
    rig.read(&cdb_16(0x88, 0x20, 5, 2), 600);
    assert_eq!(rig.carry_out(&[]).data.len(), WHOLE);
}

#[test]
fn type_2_is_checked_by_the_tags_of_commands_of_32_bytes() {
    let mut rig = rig(Protection::Type2);
    let bytes = with_tuples(3, 0xAB00, 7000);
    let cdb = |action: u8, reference: u32, tag: u16| {
        let mut cdb = [0; 32];
        (cdb[0], cdb[7], cdb[9], cdb[10], cdb[19], cdb[31]) = (0x7F, 24, action, 0x20, 9, 3);
        cdb[20..24].copy_from_slice(&reference.to_be_bytes());
        cdb[24..26].copy_from_slice(&tag.to_be_bytes());
        cdb[26..28].copy_from_slice(&0xFF00u16.to_be_bytes());
        cdb
    };
    let length = bytes.len() as u32;
    rig.long(&cdb(0x0B, 7000, 0xABFF), length, false);
    assert_eq!(rig.carry_out(&bytes).status, 0);
    rig.long(&cdb(0x09, 7000, 0xABFF), length, true);
    assert_eq!(rig.carry_out(&[]).data, bytes);
    rig.long(&cdb(0x09, 7001, 0xABFF), length, true);
    assert_eq!(rig.carry_out(&[]).sense, (0xB, 0x10, 0x03));
    rig.long(&cdb(0x09, 7000, 0xACFF), length, true);
    assert_eq!(rig.carry_out(&[]).sense, (0xB, 0x10, 0x02));
    rig.read(&cdb_16(0x88, 0x20, 9, 3), length);
    assert_eq!(rig.carry_out(&[]).sense, (5, 0x20, 0x00));
    rig.read(&cdb_16(0x88, 0, 9, 3), 3 * BLOCK);
    assert_eq!(rig.carry_out(&[]).data, without_tuples(&bytes));
}

#[test]
fn write_same_repeats_a_block_and_counts_its_tuple_on() {
    let mut rig = rig(Protection::Type1);
    let one = with_tuples(1, 0x1234, 9);
    // More than one piece.
    rig.command(TaskAttribute::Simple, &cdb_16(0x93, 0x20, 9, 3000), WHOLE as u32, &[]);
    assert_eq!(rig.carry_out(&one), End { status: 0, data: Vec::new(), sense: (0, 0, 0) });
    let expected: Vec<u8> =
        (0..3000u32).flat_map(|nth| [&one[..WHOLE - 4], &(9 + nth).to_be_bytes()].concat()).collect();
    rig.read(&cdb_16(0x88, 0x20, 9, 3000), expected.len() as u32);
    assert!(rig.carry_out(&[]).data == expected);
    let mut bad = with_tuples(2, 0, 8).split_off(WHOLE);
    bad[0] ^= 1;
    rig.command(TaskAttribute::Simple, &cdb_16(0x93, 0x20, 9, 3000), WHOLE as u32, &bad);
    assert_eq!(rig.carry_out(&[]).sense, GUARD_FAILED);
    rig.read(&cdb_16(0x88, 0x20, 9, 3000), expected.len() as u32);
    assert!(rig.carry_out(&[]).data == expected, "nothing was written");
    // A block without a tuple is too short.
    rig.command(TaskAttribute::Simple, &cdb_16(0x93, 0x20, 9, 1), BLOCK, &one[..BLOCK as usize]);
    assert_eq!(rig.carry_out(&[]).sense, (5, 0x0E, 0x03));
}

#[test]
fn write_same_of_32_bytes_carries_the_tags_of_type_2() {
    let mut rig = rig(Protection::Type2);
    let one = with_tuples(1, 0x1234, 500);
    let mut cdb = [0; 32];
    (cdb[0], cdb[7], cdb[9], cdb[10], cdb[19], cdb[31]) = (0x7F, 24, 0x0D, 0x20, 3, 5);
    cdb[20..24].copy_from_slice(&500u32.to_be_bytes());
    cdb[24..28].copy_from_slice(&[0x12, 0x34, 0xFF, 0xFF]);
    rig.long(&cdb, WHOLE as u32, false);
    assert_eq!(rig.carry_out(&one).status, 0);
    cdb[9] = 0x09;
    rig.long(&cdb, 5 * WHOLE as u32, true);
    let expected: Vec<u8> =
        (0..5u32).flat_map(|nth| [&one[..WHOLE - 4], &(500 + nth).to_be_bytes()].concat()).collect();
    assert!(rig.carry_out(&[]).data == expected);
    (cdb[9], cdb[25]) = (0x0D, 0x35);
    rig.long(&cdb, WHOLE as u32, false);
    assert_eq!(rig.carry_out(&one).sense, (0xB, 0x10, 0x02));
}

#[test]
fn compare_and_write_compares_blocks_and_writes_them_with_their_tuples() {
    let mut rig = rig(Protection::Type1);
    let old = with_tuples(3, 1, 5);
    let new = with_tuples(4, 1, 4).split_off(WHOLE);
    let length = old.len() as u32;
    rig.command(TaskAttribute::Simple, &cdb_16(0x8A, 0x20, 5, 3), length, &[]);
    assert_eq!(rig.carry_out(&old).status, 0);
    let swap = |rig: &mut Rig, expected: &[u8], new: &[u8]| {
        rig.command(TaskAttribute::Simple, &cdb_16(0x89, 0x20, 5, 3), 2 * length, &[]);
        rig.carry_out(&[expected, new].concat())
    };
    let medium = |rig: &mut Rig| {
        rig.read(&cdb_16(0x88, 0x20, 5, 3), length);
        rig.carry_out(&[]).data
    };
    let mut bad = new.clone();
    bad[2 * WHOLE + 511] ^= 1;
    assert_eq!(swap(&mut rig, &old, &bad).sense, GUARD_FAILED);
    assert!(medium(&mut rig) == old);
    assert_eq!(swap(&mut rig, &old, &new).status, 0);
    assert!(medium(&mut rig) == new);
    assert_eq!(swap(&mut rig, &old, &new).sense, (0xE, 0x1D, 0));
    assert!(medium(&mut rig) == new);
    // Without tuples the target makes them.
    let (expected, plain) = (without_tuples(&new), without_tuples(&old));
    rig.command(TaskAttribute::Simple, &cdb_16(0x89, 0, 5, 3), 6 * BLOCK, &[]);
    assert_eq!(rig.carry_out(&[&expected[..], &plain].concat()).status, 0);
    assert!(without_tuples(&medium(&mut rig)) == plain);
}
