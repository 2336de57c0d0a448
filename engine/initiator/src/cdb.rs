//! Command descriptor blocks as an initiator builds them: one function per command, named as SPC and SBC name it.
//!
//! Every function gives the 16-byte field of a SCSI Command PDU (RFC 7143 11.3); shorter CDBs are followed by zeros.
//! Logical block addresses and counts are in blocks, allocation and parameter list lengths in bytes. Values that do
//! not fit into a field of the CDB are cut to its width, as the wire would: tests of limits rely on it.

/// The CDB field of a SCSI Command PDU.
pub type Cdb = [u8; 16];

fn build(parts: &[(usize, &[u8])]) -> Cdb {
    let mut cdb = [0; 16];
    for (at, bytes) in parts {
        cdb[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    cdb
}

/// The low 24 bits, big endian.
fn be24(value: u32) -> [u8; 3] {
    let bytes = value.to_be_bytes();
    [bytes[1], bytes[2], bytes[3]]
}

/// `opcode` with a 21-bit address and an 8-bit count (SBC-4, the 6-byte READ and WRITE).
fn blocks_6(opcode: u8, lba: u32, blocks: u8) -> Cdb {
    let lba = be24(lba & 0x1f_ffff);
    build(&[(0, &[opcode]), (1, &lba), (4, &[blocks])])
}

/// `opcode` with a 32-bit address and a 16-bit count.
fn blocks_10(opcode: u8, lba: u32, blocks: u16) -> Cdb {
    build(&[(0, &[opcode]), (2, &lba.to_be_bytes()), (7, &blocks.to_be_bytes())])
}

/// `opcode` with a 32-bit address and a 32-bit count.
fn blocks_12(opcode: u8, lba: u32, blocks: u32) -> Cdb {
    build(&[(0, &[opcode]), (2, &lba.to_be_bytes()), (6, &blocks.to_be_bytes())])
}

/// `opcode` with a 64-bit address and a 32-bit count.
fn blocks_16(opcode: u8, lba: u64, blocks: u32) -> Cdb {
    build(&[(0, &[opcode]), (2, &lba.to_be_bytes()), (10, &blocks.to_be_bytes())])
}

/// Sets FUA (byte 1 bit 3) of a READ, WRITE or COMPARE AND WRITE of 10 bytes and more (SBC-4 5.11).
#[must_use]
pub fn with_fua(mut cdb: Cdb) -> Cdb {
    cdb[1] |= 0x08;
    cdb
}

/// Sets DPO (byte 1 bit 4) of a READ, WRITE or VERIFY of 10 bytes and more (SBC-4 5.11).
#[must_use]
pub fn with_dpo(mut cdb: Cdb) -> Cdb {
    cdb[1] |= 0x10;
    cdb
}

/// Sets IMMED (byte 1 bit 1) of SYNCHRONIZE CACHE (SBC-4 5.29).
#[must_use]
pub fn with_sync_immed(mut cdb: Cdb) -> Cdb {
    cdb[1] |= 0x02;
    cdb
}

/// Sets the three bits of RDPROTECT, WRPROTECT or VRPROTECT (byte 1 bits 7..5).
#[must_use]
pub fn with_protect(mut cdb: Cdb, protect: u8) -> Cdb {
    cdb[1] = (cdb[1] & 0x1f) | (protect << 5);
    cdb
}

/// Sets the CONTROL byte, which is the last of the CDB's own length (SAM-5 5.2); NACA is 04h.
#[must_use]
pub fn with_control(mut cdb: Cdb, control: u8) -> Cdb {
    cdb[length(cdb[0]) - 1] = control;
    cdb
}

/// Length of the CDB with this operation code, from its group (SPC-4 4.2.5.1); 16 where the group has no fixed length.
pub fn length(operation_code: u8) -> usize {
    match operation_code >> 5 {
        0 => 6,
        1 | 2 => 10,
        5 => 12,
        _ => 16,
    }
}

// --- SPC ---

/// TEST UNIT READY (SPC-4 6.47).
pub fn test_unit_ready() -> Cdb {
    [0; 16]
}

/// REQUEST SENSE (SPC-4 6.39); `descriptor` asks for descriptor format.
pub fn request_sense(descriptor: bool, allocation_length: u8) -> Cdb {
    build(&[(0, &[0x03, u8::from(descriptor)]), (4, &[allocation_length])])
}

/// INQUIRY of the standard data (SPC-4 6.6).
pub fn inquiry(allocation_length: u16) -> Cdb {
    build(&[(0, &[0x12]), (3, &allocation_length.to_be_bytes())])
}

/// INQUIRY of a vital product data page (SPC-4 6.6, EVPD 1).
pub fn inquiry_vpd(page_code: u8, allocation_length: u16) -> Cdb {
    build(&[(0, &[0x12, 0x01, page_code]), (3, &allocation_length.to_be_bytes())])
}

/// REPORT LUNS (SPC-4 6.33).
pub fn report_luns(select_report: u8, allocation_length: u32) -> Cdb {
    build(&[(0, &[0xa0, 0, select_report]), (6, &allocation_length.to_be_bytes())])
}

/// MODE SENSE(6) (SPC-4 6.13). `page_control`: 0 current, 1 changeable, 2 default, 3 saved. DBD stays 0.
pub fn mode_sense_6(page_control: u8, page_code: u8, subpage_code: u8, allocation_length: u8) -> Cdb {
    build(&[(0, &[0x1a, 0, page_control << 6 | page_code & 0x3f, subpage_code, allocation_length])])
}

/// MODE SENSE(10) (SPC-4 6.14), see [`mode_sense_6`].
pub fn mode_sense_10(page_control: u8, page_code: u8, subpage_code: u8, allocation_length: u16) -> Cdb {
    build(&[(0, &[0x5a, 0, page_control << 6 | page_code & 0x3f, subpage_code]), (7, &allocation_length.to_be_bytes())])
}

/// Sets DBD (byte 1 bit 3) of MODE SENSE: no block descriptors.
#[must_use]
pub fn with_dbd(mut cdb: Cdb) -> Cdb {
    cdb[1] |= 0x08;
    cdb
}

/// MODE SELECT(6) with PF 1 (SPC-4 6.11); `save` sets SP.
pub fn mode_select_6(save: bool, parameter_list_length: u8) -> Cdb {
    build(&[(0, &[0x15, 0x10 | u8::from(save)]), (4, &[parameter_list_length])])
}

/// MODE SELECT(10) with PF 1 (SPC-4 6.12); `save` sets SP.
pub fn mode_select_10(save: bool, parameter_list_length: u16) -> Cdb {
    build(&[(0, &[0x55, 0x10 | u8::from(save)]), (7, &parameter_list_length.to_be_bytes())])
}

/// PERSISTENT RESERVE IN (SPC-4 6.15).
pub fn persistent_reserve_in(service_action: u8, allocation_length: u16) -> Cdb {
    build(&[(0, &[0x5e, service_action & 0x1f]), (7, &allocation_length.to_be_bytes())])
}

/// PERSISTENT RESERVE OUT (SPC-4 6.16). `scope_type`: SCOPE in the high, TYPE in the low four bits.
pub fn persistent_reserve_out(service_action: u8, scope_type: u8, parameter_list_length: u32) -> Cdb {
    build(&[(0, &[0x5f, service_action & 0x1f, scope_type]), (5, &parameter_list_length.to_be_bytes())])
}

/// RESERVE(6) (SPC-2 7.21).
pub fn reserve_6() -> Cdb {
    build(&[(0, &[0x16])])
}

/// RELEASE(6) (SPC-2 7.16).
pub fn release_6() -> Cdb {
    build(&[(0, &[0x17])])
}

/// REPORT SUPPORTED OPERATION CODES (SPC-4 6.35). `reporting_options`: 0 all, 1 by operation code, 2 and 3 with
/// service action; `timeouts` sets RCTD.
pub fn report_supported_operation_codes(
    timeouts: bool,
    reporting_options: u8,
    operation_code: u8,
    service_action: u16,
    allocation_length: u32,
) -> Cdb {
    build(&[
        (0, &[0xa3, 0x0c, u8::from(timeouts) << 7 | reporting_options & 0x07, operation_code]),
        (4, &service_action.to_be_bytes()),
        (6, &allocation_length.to_be_bytes()),
    ])
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36); `extended` sets REPD.
pub fn report_supported_task_management_functions(extended: bool, allocation_length: u32) -> Cdb {
    build(&[(0, &[0xa3, 0x0d, u8::from(extended) << 7]), (6, &allocation_length.to_be_bytes())])
}

/// REPORT TARGET PORT GROUPS (SPC-4 6.37).
pub fn report_target_port_groups(allocation_length: u32) -> Cdb {
    build(&[(0, &[0xa3, 0x0a]), (6, &allocation_length.to_be_bytes())])
}

/// SEND DIAGNOSTIC with SELFTEST as given (SPC-4 6.42).
pub fn send_diagnostic(self_test: bool) -> Cdb {
    build(&[(0, &[0x1d, u8::from(self_test) << 2])])
}

// --- SBC ---

/// READ CAPACITY(10) (SBC-4 5.20).
pub fn read_capacity_10() -> Cdb {
    build(&[(0, &[0x25])])
}

/// READ CAPACITY(16) (SBC-4 5.21).
pub fn read_capacity_16(allocation_length: u32) -> Cdb {
    build(&[(0, &[0x9e, 0x10]), (10, &allocation_length.to_be_bytes())])
}

/// GET LBA STATUS(16) (SBC-4 5.6).
pub fn get_lba_status(lba: u64, allocation_length: u32) -> Cdb {
    build(&[(0, &[0x9e, 0x12]), (2, &lba.to_be_bytes()), (10, &allocation_length.to_be_bytes())])
}

/// READ(6) (SBC-3 5.12): 21-bit address; 0 blocks stands for 256.
pub fn read_6(lba: u32, blocks: u8) -> Cdb {
    blocks_6(0x08, lba, blocks)
}

/// READ(10) (SBC-4 5.16).
pub fn read_10(lba: u32, blocks: u16) -> Cdb {
    blocks_10(0x28, lba, blocks)
}

/// READ(12) (SBC-4 5.17).
pub fn read_12(lba: u32, blocks: u32) -> Cdb {
    blocks_12(0xa8, lba, blocks)
}

/// READ(16) (SBC-4 5.18).
pub fn read_16(lba: u64, blocks: u32) -> Cdb {
    blocks_16(0x88, lba, blocks)
}

/// WRITE(6) (SBC-3 5.31): 21-bit address; 0 blocks stands for 256.
pub fn write_6(lba: u32, blocks: u8) -> Cdb {
    blocks_6(0x0a, lba, blocks)
}

/// WRITE(10) (SBC-4 5.40).
pub fn write_10(lba: u32, blocks: u16) -> Cdb {
    blocks_10(0x2a, lba, blocks)
}

/// WRITE(12) (SBC-4 5.41).
pub fn write_12(lba: u32, blocks: u32) -> Cdb {
    blocks_12(0xaa, lba, blocks)
}

/// WRITE(16) (SBC-4 5.42).
pub fn write_16(lba: u64, blocks: u32) -> Cdb {
    blocks_16(0x8a, lba, blocks)
}

/// VERIFY(10) (SBC-4 5.35). `byte_check`: BYTCHK, 0 medium only, 1 compare all, 3 compare one block.
pub fn verify_10(lba: u32, blocks: u16, byte_check: u8) -> Cdb {
    with_byte_check(blocks_10(0x2f, lba, blocks), byte_check)
}

/// VERIFY(12) (SBC-4 5.36), see [`verify_10`].
pub fn verify_12(lba: u32, blocks: u32, byte_check: u8) -> Cdb {
    with_byte_check(blocks_12(0xaf, lba, blocks), byte_check)
}

/// VERIFY(16) (SBC-4 5.37), see [`verify_10`].
pub fn verify_16(lba: u64, blocks: u32, byte_check: u8) -> Cdb {
    with_byte_check(blocks_16(0x8f, lba, blocks), byte_check)
}

/// WRITE AND VERIFY(10) (SBC-4 5.44), see [`verify_10`].
pub fn write_and_verify_10(lba: u32, blocks: u16, byte_check: u8) -> Cdb {
    with_byte_check(blocks_10(0x2e, lba, blocks), byte_check)
}

/// WRITE AND VERIFY(12) (SBC-4 5.45), see [`verify_10`].
pub fn write_and_verify_12(lba: u32, blocks: u32, byte_check: u8) -> Cdb {
    with_byte_check(blocks_12(0xae, lba, blocks), byte_check)
}

/// WRITE AND VERIFY(16) (SBC-4 5.46), see [`verify_10`].
pub fn write_and_verify_16(lba: u64, blocks: u32, byte_check: u8) -> Cdb {
    with_byte_check(blocks_16(0x8e, lba, blocks), byte_check)
}

fn with_byte_check(mut cdb: Cdb, byte_check: u8) -> Cdb {
    cdb[1] |= (byte_check & 0x03) << 1;
    cdb
}

/// SYNCHRONIZE CACHE(10) (SBC-4 5.29); 0 blocks means to the end.
pub fn synchronize_cache_10(lba: u32, blocks: u16) -> Cdb {
    blocks_10(0x35, lba, blocks)
}

/// SYNCHRONIZE CACHE(16) (SBC-4 5.30); 0 blocks means to the end.
pub fn synchronize_cache_16(lba: u64, blocks: u32) -> Cdb {
    blocks_16(0x91, lba, blocks)
}

/// PRE-FETCH(10) (SBC-4 5.9).
pub fn pre_fetch_10(lba: u32, blocks: u16) -> Cdb {
    blocks_10(0x34, lba, blocks)
}

/// PRE-FETCH(16) (SBC-4 5.10).
pub fn pre_fetch_16(lba: u64, blocks: u32) -> Cdb {
    blocks_16(0x90, lba, blocks)
}

/// What WRITE SAME does beside writing zeros or the given block (SBC-4 5.48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteSame {
    /// UNMAP: unmap when the result reads as the given data.
    pub unmap: bool,
    /// ANCHOR: anchor instead of deallocate.
    pub anchor: bool,
    /// NDOB: no data-out buffer, zeros are meant (16-byte form alone).
    pub no_data_out: bool,
}

impl WriteSame {
    fn bits(self) -> u8 {
        u8::from(self.anchor) << 4 | u8::from(self.unmap) << 3 | u8::from(self.no_data_out)
    }
}

/// WRITE SAME(10) (SBC-4 5.48).
pub fn write_same_10(lba: u32, blocks: u16, options: WriteSame) -> Cdb {
    let mut cdb = blocks_10(0x41, lba, blocks);
    cdb[1] = options.bits();
    cdb
}

/// WRITE SAME(16) (SBC-4 5.49).
pub fn write_same_16(lba: u64, blocks: u32, options: WriteSame) -> Cdb {
    let mut cdb = blocks_16(0x93, lba, blocks);
    cdb[1] = options.bits();
    cdb
}

/// UNMAP (SBC-4 5.34); the parameter list is made by [`unmap_parameters`].
pub fn unmap(anchor: bool, parameter_list_length: u16) -> Cdb {
    build(&[(0, &[0x42, u8::from(anchor)]), (7, &parameter_list_length.to_be_bytes())])
}

/// The parameter list of UNMAP for (address, blocks) pairs (SBC-4 5.34.2). Lengths are cut to 16 bits.
pub fn unmap_parameters(ranges: &[(u64, u32)]) -> Vec<u8> {
    let descriptors = ranges.len() * 16;
    let mut list = Vec::with_capacity(8 + descriptors);
    list.extend_from_slice(&((descriptors + 6) as u16).to_be_bytes());
    list.extend_from_slice(&(descriptors as u16).to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    for (lba, blocks) in ranges {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

/// COMPARE AND WRITE (SBC-4 5.3); the data-out buffer holds the expected blocks, then the new ones.
pub fn compare_and_write(lba: u64, blocks: u8) -> Cdb {
    build(&[(0, &[0x89]), (2, &lba.to_be_bytes()), (13, &[blocks])])
}

/// ORWRITE(16) (SBC-4 5.7).
pub fn orwrite_16(lba: u64, blocks: u32) -> Cdb {
    blocks_16(0x8b, lba, blocks)
}

/// WRITE ATOMIC(16) (SBC-4 5.47) without a boundary.
pub fn write_atomic_16(lba: u64, blocks: u16) -> Cdb {
    build(&[(0, &[0x9c]), (2, &lba.to_be_bytes()), (12, &blocks.to_be_bytes())])
}

/// POPULATE TOKEN (SBC-4 5.12); the parameter list is made by [`populate_token_parameters`].
pub fn populate_token(list_identifier: u32, parameter_list_length: u32) -> Cdb {
    build(&[(0, &[0x83, 0x10]), (6, &list_identifier.to_be_bytes()), (10, &parameter_list_length.to_be_bytes())])
}

/// The parameter list of POPULATE TOKEN for (address, blocks) pairs (SBC-4 5.12.2), without a wish for a ROD type.
pub fn populate_token_parameters(inactivity_timeout_s: u32, ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut list = vec![0; 16];
    list[4..8].copy_from_slice(&inactivity_timeout_s.to_be_bytes());
    add_ranges(&mut list, ranges);
    list
}

/// WRITE USING TOKEN (SBC-4 5.59); the parameter list is made by [`write_using_token_parameters`].
pub fn write_using_token(list_identifier: u32, parameter_list_length: u32) -> Cdb {
    build(&[(0, &[0x83, 0x11]), (6, &list_identifier.to_be_bytes()), (10, &parameter_list_length.to_be_bytes())])
}

/// The parameter list of WRITE USING TOKEN for (address, blocks) pairs (SBC-4 5.59.2). `offset`: blocks into the data of
/// the token.
pub fn write_using_token_parameters(immediate: bool, offset: u64, token: &[u8; 512], ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut list = vec![0; 536];
    list[2] = u8::from(immediate);
    list[8..16].copy_from_slice(&offset.to_be_bytes());
    list[16..528].copy_from_slice(token);
    add_ranges(&mut list, ranges);
    list
}

/// Block device range descriptors behind a header that ends with their length. Lengths are cut to 16 bits.
fn add_ranges(list: &mut Vec<u8>, ranges: &[(u64, u32)]) {
    let header = list.len();
    list[header - 2..].copy_from_slice(&((ranges.len() * 16) as u16).to_be_bytes());
    for (lba, blocks) in ranges {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&blocks.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    let length = list.len() as u16 - 2;
    list[..2].copy_from_slice(&length.to_be_bytes());
}

/// RECEIVE ROD TOKEN INFORMATION (SBC-4 5.25).
pub fn receive_rod_token_information(list_identifier: u32, allocation_length: u32) -> Cdb {
    build(&[(0, &[0x84, 0x07]), (2, &list_identifier.to_be_bytes()), (10, &allocation_length.to_be_bytes())])
}

/// START STOP UNIT (SBC-4 5.27).
pub fn start_stop_unit(immediate: bool, power_condition: u8, load_eject: bool, start: bool) -> Cdb {
    let last = power_condition << 4 | u8::from(load_eject) << 1 | u8::from(start);
    build(&[(0, &[0x1b, u8::from(immediate)]), (4, &[last])])
}

/// PREVENT ALLOW MEDIUM REMOVAL (SBC-4 5.13).
pub fn prevent_allow_medium_removal(prevent: u8) -> Cdb {
    build(&[(0, &[0x1e]), (4, &[prevent & 0x03])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_standards_put_them() {
        assert_eq!(read_6(0x3f_ffff, 8)[..6], [0x08, 0x1f, 0xff, 0xff, 8, 0]);
        assert_eq!(read_10(0x0102_0304, 0x0506)[..10], [0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0]);
        assert_eq!(write_12(0x0102_0304, 0x0506_0708)[..12], [0xaa, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
        assert_eq!(
            with_fua(write_16(0x0102_0304_0506_0708, 0x090a_0b0c)),
            [0x8a, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0]
        );
        assert_eq!(inquiry_vpd(0x83, 0x0102)[..6], [0x12, 1, 0x83, 1, 2, 0]);
        assert_eq!(mode_sense_10(2, 0x08, 0xff, 0x0102)[..10], [0x5a, 0, 0x88, 0xff, 0, 0, 0, 1, 2, 0]);
        assert_eq!(report_luns(2, 0x0102_0304)[..12], [0xa0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 0, 0]);
        assert_eq!(read_capacity_16(32)[..14], [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]);
        assert_eq!(compare_and_write(1, 2)[..14], [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        let same = WriteSame { unmap: true, anchor: false, no_data_out: true };
        assert_eq!(write_same_16(0, 1, same)[1], 0x09);
        assert_eq!(verify_10(0, 1, 3)[1], 0x06);
        assert_eq!(with_protect(read_16(0, 1), 3)[1], 0x60);
    }

    #[test]
    fn control_is_the_last_byte_of_each_length() {
        assert_eq!(with_control(test_unit_ready(), 4)[5], 4);
        assert_eq!(with_control(read_10(0, 0), 4)[9], 4);
        assert_eq!(with_control(read_12(0, 0), 4)[11], 4);
        assert_eq!(with_control(read_16(0, 0), 4)[15], 4);
    }

    #[test]
    fn lists_about_tokens_count_their_bytes() {
        let list = populate_token_parameters(60, &[(1, 2), (3, 4)]);
        assert_eq!((list.len(), &list[..8], &list[14..16]), (48, &[0, 46, 0, 0, 0, 0, 0, 60][..], &[0, 32][..]));
        let list = write_using_token_parameters(true, 5, &[7; 512], &[(1, 2)]);
        assert_eq!((list.len(), &list[..3], &list[15..17]), (552, &[2, 38, 1][..], &[5, 7][..]));
        assert_eq!((&list[527..536], list[543]), (&[7, 0, 0, 0, 0, 0, 0, 0, 16][..], 1));
    }

    #[test]
    fn an_unmap_list_counts_its_bytes() {
        let list = unmap_parameters(&[(1, 2), (3, 4)]);
        assert_eq!(list.len(), 40);
        assert_eq!(list[..8], [0, 38, 0, 32, 0, 0, 0, 0]);
        assert_eq!(list[24..36], [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4]);
    }
}
