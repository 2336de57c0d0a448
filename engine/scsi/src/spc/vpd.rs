//! Vital product data pages: 00h, 80h, 83h, 86h to 88h, 8Fh (SPC-4 7.8), B0h, B1h, B2h (SBC-3 6.6).

use crate::{
    copy,
    identity::{Identity, ascii},
    port::TargetPort,
    profile::Provisioning,
    sbc::{compare_and_write, unmap, write_atomic, write_same},
    spc::inquiry,
    unit::LogicalUnit,
};
use backstore_api::Protection;

/// Writes one page from its type byte on.
type Emit = fn(&LogicalUnit, &TargetPort, &mut Vec<u8>);

/// In ascending order, as page 00h lists them.
const PAGES: [(u8, Emit); 10] = [
    (0x00, supported_pages),
    (0x80, unit_serial_number),
    (0x83, device_identification),
    (0x86, extended_inquiry),
    (0x87, mode_page_policy),
    (0x88, scsi_ports),
    (0x8F, copy::page::third_party_copy),
    (0xB0, block_limits),
    (0xB1, block_characteristics),
    (0xB2, logical_block_provisioning),
];

/// Appends a page with its header. False: there is no such page.
pub(crate) fn emit(page: u8, unit: &LogicalUnit, port: &TargetPort, out: &mut Vec<u8>) -> bool {
    let Some((_, emit)) = PAGES.iter().find(|(code, _)| *code == page) else {
        return false;
    };
    with_header(0x00, page, out, |out| emit(unit, port, out));
    true
}

/// The same for the well-known logical unit, which has ports and a device but no names of its own.
pub(crate) fn emit_well_known(page: u8, port: &TargetPort, out: &mut Vec<u8>) -> bool {
    match page {
        0x00 => with_header(inquiry::WELL_KNOWN, page, out, |out| out.extend([0x00, 0x83])),
        0x83 => with_header(inquiry::WELL_KNOWN, page, out, |out| port_identification(port, out)),
        _ => return false,
    }
    true
}

fn with_header(peripheral: u8, page: u8, out: &mut Vec<u8>, emit: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([peripheral, page, 0, 0]);
    emit(out);
    let length = u16::try_from(out.len() - start - 4).unwrap_or(u16::MAX);
    out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn supported_pages(_: &LogicalUnit, _: &TargetPort, out: &mut Vec<u8>) {
    out.extend(PAGES.map(|(code, _)| code));
}

fn unit_serial_number(unit: &LogicalUnit, _: &TargetPort, out: &mut Vec<u8>) {
    let serial = &unit.identity().serial;
    ascii(out, serial, serial.len().min(252));
}

/// Who a designator belongs to (SPC-4 table 531).
#[derive(Clone, Copy)]
enum Association {
    LogicalUnit = 0x00,
    TargetPort = 0x10,
    TargetDevice = 0x20,
}

const BINARY: u8 = 1;
const ASCII: u8 = 2;
const UTF8: u8 = 3;
/// PROTOCOL IDENTIFIER of iSCSI.
const ISCSI: u8 = 5;

/// One designation descriptor. PIV is set where the protocol matters (ports and devices).
fn designator(out: &mut Vec<u8>, association: Association, kind: u8, code_set: u8, value: &[u8]) {
    let (protocol, valid) = match association {
        Association::LogicalUnit => (0, 0),
        _ => (ISCSI << 4, 0x80),
    };
    let value = &value[..value.len().min(255)];
    out.extend([protocol | code_set, valid | association as u8 | kind, 0, value.len() as u8]);
    out.extend_from_slice(value);
}

/// A SCSI name string ends with a NUL and has a multiple of four bytes (SPC-4 7.8.6.11).
fn scsi_name(out: &mut Vec<u8>, association: Association, name: &str) {
    let mut value = name.as_bytes()[..name.len().min(251)].to_vec();
    value.resize((value.len() + 4) / 4 * 4, 0);
    designator(out, association, 8, UTF8, &value);
}

/// Designators of the unit that are short enough for who names it elsewhere: type, code set and value.
pub(crate) fn unit_designators(unit: &LogicalUnit) -> impl Iterator<Item = (u8, u8, Vec<u8>)> {
    let identity = unit.identity();
    let mut t10 = Vec::new();
    ascii(&mut t10, &identity.vendor, 8);
    ascii(&mut t10, &identity.product, 16);
    ascii(&mut t10, &identity.serial, identity.serial.len().min(200));
    [(3, BINARY, identity.naa_bytes()), (1, ASCII, t10)].into_iter()
}

fn device_identification(unit: &LogicalUnit, port: &TargetPort, out: &mut Vec<u8>) {
    for (kind, code_set, value) in unit_designators(unit) {
        designator(out, Association::LogicalUnit, kind, code_set, &value);
    }
    scsi_name(out, Association::LogicalUnit, &unit_name(unit.identity()));
    port_identification(port, out);
}

/// Designators of the port that the command came to, and of the target.
fn port_identification(port: &TargetPort, out: &mut Vec<u8>) {
    designator(out, Association::TargetPort, 4, BINARY, &numbered(port.relative_port));
    designator(out, Association::TargetPort, 5, BINARY, &numbered(port.portal_group));
    scsi_name(out, Association::TargetPort, &port_name(port, port.portal_group));
    scsi_name(out, Association::TargetDevice, &port.target_name);
}

/// The SCSI name string of a target port (RFC 7143 3.4.2).
fn port_name(port: &TargetPort, portal_group: u16) -> String {
    format!("{},t,0x{portal_group:04x}", port.target_name)
}

/// The unit's SCSI name string: its volume's iSCSI name with a logical unit suffix, else the NAA.
fn unit_name(identity: &Identity) -> String {
    if identity.name.starts_with("iqn.") && identity.name.len() <= 223 {
        format!("{},L,0x0000000000000000", identity.name)
    } else {
        let digits: String = identity.naa_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        format!("naa.{digits}")
    }
}

/// Relative target port and target port group: two reserved bytes and a number.
fn numbered(number: u16) -> [u8; 4] {
    u32::from(number).to_be_bytes()
}

fn extended_inquiry(unit: &LogicalUnit, _: &TargetPort, out: &mut Vec<u8>) {
    let mut page = [0u8; 60];
    // SPT: the type that it is formatted with; GRD_CHK, APP_CHK, REF_CHK.
    page[0] = match unit.protection() {
        None => 0,
        Some(Protection::Type1) => 0b00_0101,
        Some(Protection::Type2) => 0b01_0111,
        Some(Protection::Type3) => 0b10_0100,
    };
    page[1] = 0x07; // HEADSUP, ORDSUP, SIMPSUP
    page[2] = 0x01; // V_SUP: a volatile cache
    page[9] = 252; // MAXIMUM SUPPORTED SENSE DATA LENGTH
    out.extend(page);
}

/// All mode pages are shared by all nexuses.
fn mode_page_policy(_: &LogicalUnit, _: &TargetPort, out: &mut Vec<u8>) {
    out.extend([0x3F, 0xFF, 0x00, 0x00]);
}

/// SCSI ports (SPC-4 7.8.13): all ports of the target; none is an initiator port.
fn scsi_ports(_: &LogicalUnit, port: &TargetPort, out: &mut Vec<u8>) {
    for id in &port.ports {
        out.extend([0, 0]);
        out.extend(id.relative_port.to_be_bytes());
        out.extend([0; 6]);
        let at = out.len();
        out.extend([0, 0]);
        scsi_name(out, Association::TargetPort, &port_name(port, id.portal_group));
        let length = (out.len() - at - 2) as u16; // one name of at most 255 bytes
        out[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
}

fn block_limits(unit: &LogicalUnit, _: &TargetPort, out: &mut Vec<u8>) {
    let (geometry, shift) = (unit.store(), unit.block_shift());
    let most = unit.max_transfer() >> shift;
    let mut page = [0u8; 60];
    // `at` is the byte of the page with its header of 4.
    let mut put = |at: usize, value: u32| page[at - 4..at].copy_from_slice(&value.to_be_bytes());
    put(8, most);
    put(12, (geometry.optimal_io >> shift).min(most));
    if unit.unmaps() {
        put(20, unmap::MOST_BLOCKS);
        put(24, unmap::MOST_DESCRIPTORS);
        let granularity = geometry.discard_granularity >> shift;
        put(28, granularity.max(1));
        put(32, 0x8000_0000); // UGAVALID, aligned to LBA 0
    }
    put(40, write_same::MOST_BLOCKS as u32);
    // MAXIMUM ATOMIC TRANSFER LENGTH, ATOMIC ALIGNMENT and GRANULARITY; there is no atomic boundary.
    put(44, write_atomic::most_blocks(unit));
    let atom = write_atomic::granularity(unit).unwrap_or(0);
    put(48, atom);
    put(52, atom);
    page[0] = u8::from(!write_same::counts_to_the_end(unit)); // WSNZ
    page[1] = compare_and_write::most_blocks(unit);
    let granularity = u16::try_from(unit.physical_block() >> shift).unwrap_or(u16::MAX).max(1);
    page[2..4].copy_from_slice(&granularity.to_be_bytes());
    out.extend(page);
}

fn block_characteristics(unit: &LogicalUnit, _: &TargetPort, out: &mut Vec<u8>) {
    let mut page = [0u8; 60];
    page[..2].copy_from_slice(&unit.rotation_rate().to_be_bytes());
    if unit.unmaps() {
        page[3] = 0x40; // WABEREQ 01b: blocks can be read after a SANITIZE with BLOCK ERASE
    }
    out.extend(page);
}

fn logical_block_provisioning(unit: &LogicalUnit, _: &TargetPort, out: &mut Vec<u8>) {
    let mut page = [0u8; 4];
    let provisioning = unit.provisioning();
    if provisioning != Provisioning::Full {
        page[1] = 0x80 | 0x40 | 0x20; // LBPU, LBPWS, LBPWS10
        if unit.unmaps_to_zeroes() {
            page[1] |= 0x04; // LBPRZ 001b
        }
    }
    match provisioning {
        Provisioning::Full => (),
        Provisioning::Resource => {
            page[1] |= 0x02; // ANC_SUP
            page[2] = 0x01; // resource provisioned
        }
        Provisioning::Thin => {
            page[0] = unit.threshold_exponent() as u8; // 8 to 11
            page[2] = 0x02;
        }
    }
    out.extend(page);
}
