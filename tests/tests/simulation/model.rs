//! A logical unit as several initiators see it: bytes, state, unit attentions, reservations. It says which answers a
//! command may get.

use crate::client::{CHECK_CONDITION, End, GOOD};
use initiator::{Command, cdb};
use ringlun_tests::reservations::{Access, Order, Reservations, Told, Verdict};

const RESERVATION_CONFLICT: u8 = 0x18;

/// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED, and BUS DEVICE RESET FUNCTION OCCURRED.
const POWER_ON: u16 = 0x2900;
const BUS_DEVICE_RESET: u16 = 0x2903;
const MODE_PARAMETERS_CHANGED: u16 = 0x2a01;

/// A command, one at a time per initiator.
#[derive(Clone, Debug)]
pub enum Ask {
    Ready,
    Sense,
    Inquiry,
    Read {
        lba: u64,
        blocks: u32,
    },
    Write {
        lba: u64,
        data: Vec<u8>,
        how: How,
    },
    Same {
        lba: u64,
        blocks: u32,
        data: Vec<u8>,
        unmap: bool,
        ten: bool,
    },
    /// Zeros without data.
    Zero {
        lba: u64,
        blocks: u32,
        unmap: bool,
    },
    Unmap {
        ranges: Vec<(u64, u32)>,
    },
    Swap {
        lba: u64,
        expected: Vec<u8>,
        new: Vec<u8>,
    },
    Or {
        lba: u64,
        data: Vec<u8>,
    },
    Verify {
        lba: u64,
        data: Vec<u8>,
    },
    Check {
        lba: u64,
        blocks: u32,
    },
    Flush,
    Status {
        lba: u64,
    },
    Start(bool),
    Prevent(bool),
    /// Current values of the caching and the control page.
    ModeSense {
        page: u8,
    },
    /// WCE of the caching page, SWP of the control page.
    ModeSelect {
        page: u8,
        on: bool,
    },
    ReserveUnit,
    ReleaseUnit,
    Reserve(Order),
    ReadKeys,
    ReadReservation,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Ten,
    Sixteen,
    Durable,
    Verified,
}

/// What a unit can do beside what all can.
#[derive(Clone, Copy, Default, Debug)]
pub struct Abilities {
    pub persistent_reservations: bool,
    pub unit_reservations: bool,
    pub orwrite: bool,
}

pub const CACHING: u8 = 0x08;
pub const CONTROL: u8 = 0x0a;

#[derive(Default, Clone, Debug)]
struct Nexus {
    /// Unit attentions that it has to hear.
    due: Vec<u16>,
    /// Such that a reset may have covered.
    perhaps: Vec<u16>,
}

pub struct Model {
    pub bytes: Vec<u8>,
    pub block: usize,
    nexuses: Vec<Nexus>,
    stopped: bool,
    write_cache: bool,
    protected: bool,
    pub reservations: Reservations,
    /// Mode pages as they were at the beginning.
    pub pages: [Vec<u8>; 2],
}

impl Model {
    pub fn new(bytes: usize, block: usize, nexuses: usize) -> Model {
        Model {
            bytes: vec![0; bytes],
            block,
            nexuses: vec![Nexus { due: vec![POWER_ON], perhaps: Vec::new() }; nexuses],
            stopped: false,
            write_cache: true,
            protected: false,
            reservations: Reservations::default(),
            pages: [Vec::new(), Vec::new()],
        }
    }

    pub fn blocks(&self) -> u64 {
        (self.bytes.len() / self.block) as u64
    }

    /// The bytes of a range that lies on the medium.
    pub fn at(&self, lba: u64, blocks: u64) -> &[u8] {
        &self.bytes[lba as usize * self.block..(lba + blocks) as usize * self.block]
    }

    fn page(&self, page: u8) -> &Vec<u8> {
        &self.pages[usize::from(page == CONTROL)]
    }

    fn set_of(&self, page: u8) -> bool {
        if page == CONTROL { self.protected } else { self.write_cache }
    }

    /// The command as it goes to the unit, and its data.
    pub fn command(&self, ask: &Ask) -> (Command<'static>, Vec<u8>) {
        let block = self.block as u32;
        let out = |cdb, data: &[u8]| (Command::write(cdb, data.len() as u32), data.to_vec());
        let none = |cdb| (Command::none(cdb), Vec::new());
        let count = |data: &[u8]| data.len() as u32 / block;
        match ask {
            Ask::Ready => none(cdb::test_unit_ready()),
            Ask::Sense => (Command::read(cdb::request_sense(false, 252), 252), Vec::new()),
            Ask::Inquiry => (Command::read(cdb::inquiry(96), 96), Vec::new()),
            Ask::Read { lba, blocks } => (Command::read(cdb::read_16(*lba, *blocks), blocks * block), Vec::new()),
            Ask::Write { lba, data, how } => {
                let cdb = match how {
                    How::Ten => cdb::write_10(*lba as u32, count(data) as u16),
                    How::Sixteen => cdb::write_16(*lba, count(data)),
                    How::Durable => cdb::with_fua(cdb::write_16(*lba, count(data))),
                    How::Verified => cdb::write_and_verify_16(*lba, count(data), 0),
                };
                out(cdb, data)
            }
            Ask::Same { lba, blocks, data, unmap, ten } => {
                let options = cdb::WriteSame { unmap: *unmap, ..Default::default() };
                let cdb = match ten {
                    true => cdb::write_same_10(*lba as u32, *blocks as u16, options),
                    false => cdb::write_same_16(*lba, *blocks, options),
                };
                out(cdb, data)
            }
            Ask::Zero { lba, blocks, unmap } => {
                let options = cdb::WriteSame { unmap: *unmap, no_data_out: true, ..Default::default() };
                none(cdb::write_same_16(*lba, *blocks, options))
            }
            Ask::Unmap { ranges } => {
                let list = cdb::unmap_parameters(ranges);
                out(cdb::unmap(false, list.len() as u16), &list)
            }
            Ask::Swap { lba, expected, new } => {
                let data = [&expected[..], &new[..]].concat();
                out(cdb::compare_and_write(*lba, count(expected) as u8), &data)
            }
            Ask::Or { lba, data } => out(cdb::orwrite_16(*lba, count(data)), data),
            Ask::Verify { lba, data } => out(cdb::verify_16(*lba, count(data), 1), data),
            Ask::Check { lba, blocks } => none(cdb::verify_16(*lba, *blocks, 0)),
            Ask::Flush => none(cdb::synchronize_cache_16(0, 0)),
            Ask::Status { lba } => (Command::read(cdb::get_lba_status(*lba, 24), 24), Vec::new()),
            Ask::Start(start) => none(cdb::start_stop_unit(false, 0, false, *start)),
            Ask::Prevent(prevent) => none(cdb::prevent_allow_medium_removal(u8::from(*prevent))),
            Ask::ModeSense { page } => {
                (Command::read(cdb::with_dbd(cdb::mode_sense_10(0, *page, 0, 252)), 252), Vec::new())
            }
            Ask::ModeSelect { page, on } => {
                let mut list = vec![0; 8];
                list.extend_from_slice(self.page(*page));
                set(&mut list[8..], *page, *on);
                out(cdb::mode_select_10(false, list.len() as u16), &list)
            }
            Ask::ReserveUnit => none(cdb::reserve_6()),
            Ask::ReleaseUnit => none(cdb::release_6()),
            Ask::Reserve(order) => out(order.cdb(), &order.parameters()),
            Ask::ReadKeys => (Command::read(cdb::persistent_reserve_in(0, 1024), 1024), Vec::new()),
            Ask::ReadReservation => (Command::read(cdb::persistent_reserve_in(1, 1024), 1024), Vec::new()),
        }
    }

    /// Blocks that it touches, and whether it changes them; for commands that may be on their way together.
    pub fn touches(&self, ask: &Ask) -> Option<(u64, u64, bool)> {
        let count = |data: &[u8]| (data.len() / self.block) as u64;
        Some(match ask {
            Ask::Read { lba, blocks } | Ask::Check { lba, blocks } => (*lba, u64::from(*blocks), false),
            Ask::Verify { lba, data } => (*lba, count(data), false),
            Ask::Write { lba, data, .. } | Ask::Or { lba, data } => (*lba, count(data), true),
            Ask::Same { lba, blocks, .. } | Ask::Zero { lba, blocks, .. } => (*lba, u64::from(*blocks), true),
            Ask::Swap { lba, new, .. } => (*lba, count(new), true),
            Ask::Ready | Ask::Inquiry => (0, 0, false),
            _ => return None,
        })
    }

    fn access(ask: &Ask) -> Access {
        match ask {
            Ask::Sense | Ask::Inquiry | Ask::Start(true) | Ask::Prevent(false) => Access::Free,
            Ask::Ready => Access::Status,
            // They decide for themselves.
            Ask::ReserveUnit | Ask::ReleaseUnit | Ask::Reserve(_) | Ask::ReadKeys | Ask::ReadReservation => {
                Access::Free
            }
            Ask::Read { .. } | Ask::Verify { .. } | Ask::Check { .. } | Ask::Status { .. } | Ask::ModeSense { .. } => {
                Access::Read
            }
            _ => Access::Write,
        }
    }

    /// Checks an answer, and does what the command has done.
    pub fn ended(&mut self, nexus: usize, ask: &Ask, end: &End) {
        let what = format!("{ask:x?} of {nexus}");
        let exempt = matches!(ask, Ask::Sense | Ask::Inquiry);
        let of = &mut self.nexuses[nexus];
        if end.is_attention() {
            let code = end.sense.1;
            let known = [&mut of.due, &mut of.perhaps].into_iter().find_map(|list| {
                let at = list.iter().position(|known| *known == code)?;
                Some(list.remove(at))
            });
            assert!(known.is_some() && !exempt, "{what}: unit attention {code:04x}, and {of:x?} are due");
            return;
        }
        let conflicts = self.reservations.forbid(nexus, Model::access(ask));
        if end.status == RESERVATION_CONFLICT && conflicts {
            return;
        }
        assert!(exempt || of.due.is_empty(), "{what}: {:x} {:x?}, and {of:x?} are due", end.status, end.sense);
        assert!(!conflicts, "{what}: {:x} {:x?} in spite of {:x?}", end.status, end.sense, self.reservations);
        let forbidden = self.forbidden(ask);
        if !forbidden.is_empty() {
            assert!(
                end.status == CHECK_CONDITION && forbidden.contains(&(end.sense.0, end.sense.1)),
                "{what}: {:x} {:x?} instead of one of {forbidden:x?}",
                end.status,
                end.sense
            );
            return;
        }
        self.carry_out(nexus, ask, end, &what);
    }

    /// Why a command can't run: sense key and code.
    fn forbidden(&self, ask: &Ask) -> Vec<(u8, u16)> {
        let mut why = Vec::new();
        let medium = self.touches(ask).is_some_and(|(_, _, _)| !matches!(ask, Ask::Ready | Ask::Inquiry))
            || matches!(ask, Ask::Ready | Ask::Flush | Ask::Unmap { .. });
        if self.stopped && (medium && !matches!(ask, Ask::Ready) || matches!(ask, Ask::Status { .. })) {
            why.push((0x02, 0x0402));
        }
        if self.stopped && matches!(ask, Ask::Ready) {
            why.push((0x02, 0x0402));
        }
        let writes = self.touches(ask).is_some_and(|(_, _, writes)| writes) || matches!(ask, Ask::Unmap { .. });
        if self.protected && writes {
            why.extend([(0x07, 0x2700), (0x07, 0x2702)]);
        }
        let ranges: Vec<(u64, u64)> = match ask {
            Ask::Unmap { ranges } => ranges.iter().map(|(lba, blocks)| (*lba, u64::from(*blocks))).collect(),
            Ask::Status { lba } => vec![(*lba, 1)],
            Ask::Ready | Ask::Inquiry => Vec::new(),
            _ => self.touches(ask).map(|(lba, blocks, _)| (lba, blocks)).into_iter().collect(),
        };
        if ranges.iter().any(|(lba, blocks)| lba + blocks > self.blocks()) {
            why.push((0x05, 0x2100));
        }
        why
    }

    fn carry_out(&mut self, nexus: usize, ask: &Ask, end: &End, what: &str) {
        let good = || assert_eq!(end.status, GOOD, "{what}: {:x?}", end.sense);
        match ask {
            Ask::Reserve(order) => return self.reserve(nexus, *order, end, what),
            Ask::ReserveUnit | Ask::ReleaseUnit => {
                let verdict = match ask {
                    Ask::ReserveUnit => self.reservations.reserve_unit(nexus),
                    _ => self.reservations.release_unit(nexus),
                };
                let expected = if verdict == Verdict::Good { GOOD } else { RESERVATION_CONFLICT };
                assert_eq!(end.status, expected, "{what}: {:x?}", self.reservations);
                return;
            }
            Ask::Swap { lba, expected, .. } if self.at(*lba, (expected.len() / self.block) as u64) != expected => {
                assert_eq!((end.status, end.sense), (CHECK_CONDITION, (0x0e, 0x1d00)), "{what}");
                return;
            }
            Ask::Verify { lba, data } if self.at(*lba, (data.len() / self.block) as u64) != data => {
                assert_eq!((end.status, end.sense), (CHECK_CONDITION, (0x0e, 0x1d00)), "{what}");
                return;
            }
            _ => good(),
        }
        match ask {
            Ask::Read { lba, blocks } => {
                let is = self.at(*lba, u64::from(*blocks));
                assert!(end.data == is, "{what}: other bytes than were written ({} of {})", end.data.len(), is.len());
            }
            Ask::Write { lba, data, .. } => self.put(*lba, data),
            Ask::Same { lba, blocks, data, .. } => self.put(*lba, &data.repeat(*blocks as usize)),
            Ask::Zero { lba, blocks, .. } => self.put(*lba, &vec![0; *blocks as usize * self.block]),
            Ask::Unmap { ranges } => {
                for (lba, blocks) in ranges {
                    self.put(*lba, &vec![0; *blocks as usize * self.block]);
                }
            }
            Ask::Swap { lba, new, .. } => self.put(*lba, new),
            Ask::Or { lba, data } => {
                let old = self.at(*lba, (data.len() / self.block) as u64);
                let new: Vec<u8> = old.iter().zip(data).map(|(old, bits)| old | bits).collect();
                self.put(*lba, &new);
            }
            // With others it rests.
            Ask::Start(start) => self.stopped = !start && self.nexuses.len() == 1,
            Ask::Sense => self.sensed(nexus, end, what),
            Ask::ModeSense { page } => {
                let mut is = self.page(*page).clone();
                set(&mut is, *page, self.set_of(*page));
                assert_eq!(end.data.get(8..), Some(&is[..]), "{what}");
                assert_eq!(end.data[3] & 0x80 != 0, self.protected, "{what}: WP");
            }
            Ask::ModeSelect { page, on } if self.set_of(*page) != *on => {
                *(if *page == CONTROL { &mut self.protected } else { &mut self.write_cache }) = *on;
                let others = (0..self.nexuses.len()).filter(|other| *other != nexus);
                let told = others.map(|other| (other, MODE_PARAMETERS_CHANGED)).collect();
                self.tell(told);
            }
            Ask::ReadKeys => {
                let (generation, keys) = listed(&end.data, what);
                let mut keys: Vec<u64> = keys.chunks(8).map(number).collect();
                keys.sort_unstable();
                assert_eq!(keys, self.reservations.keys(), "{what}");
                let (least, most) = self.reservations.generation;
                assert!((least..=most).contains(&generation), "{what}: PRGENERATION {generation} of {least}..={most}");
                self.reservations.generation = (generation, generation);
            }
            Ask::ReadReservation => {
                let (_, descriptor) = listed(&end.data, what);
                let shown = (!descriptor.is_empty()).then(|| (number(&descriptor[..8]), descriptor[13]));
                assert_eq!(shown, self.reservations.shown(), "{what}");
            }
            _ => {}
        }
    }

    fn put(&mut self, lba: u64, data: &[u8]) {
        let at = lba as usize * self.block;
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    /// REQUEST SENSE takes a unit attention that is due.
    fn sensed(&mut self, nexus: usize, end: &End, what: &str) {
        let of = &mut self.nexuses[nexus];
        let (key, code) = (end.data[2] & 0x0f, u16::from_be_bytes([end.data[12], end.data[13]]));
        if key != 0x06 {
            assert!(of.due.is_empty(), "{what}: {key:x} {code:04x}, and {of:x?} are due");
            return;
        }
        let lists = [&mut of.due, &mut of.perhaps];
        let known = lists.into_iter().find_map(|list| Some(list.remove(list.iter().position(|known| *known == code)?)));
        assert!(known.is_some(), "{what}: unit attention {code:04x}");
    }

    fn reserve(&mut self, nexus: usize, order: Order, end: &End, what: &str) {
        let before = self.reservations.clone();
        let (verdict, told) = self.reservations.order(nexus, order);
        let expected = match verdict {
            Verdict::Good => (GOOD, (0, 0)),
            Verdict::Conflict => (RESERVATION_CONFLICT, (0, 0)),
            Verdict::Illegal(code) => (CHECK_CONDITION, (0x05, code)),
        };
        assert_eq!((end.status, end.sense), expected, "{what} with {before:x?}");
        self.tell(told);
    }

    fn tell(&mut self, told: Told) {
        for (nexus, code) in told {
            let due = &mut self.nexuses[nexus].due;
            if !due.contains(&code) {
                due.push(code);
            }
        }
    }

    /// LOGICAL UNIT RESET or TARGET WARM RESET was done.
    pub fn reset(&mut self) {
        (self.stopped, self.write_cache, self.protected) = (false, true, false);
        self.reservations.reset();
        for of in &mut self.nexuses {
            // Whoever has not heard yet that it is new hears of one of both at least.
            let covered = std::mem::take(&mut of.due);
            of.perhaps.extend(covered);
            of.due.push(BUS_DEVICE_RESET);
        }
    }
}

/// Sets the bit that the model knows in a mode page.
fn set(page: &mut [u8], code: u8, on: bool) {
    let (byte, mask) = if code == CONTROL { (4, 0x08) } else { (2, 0x04) };
    page[byte] = page[byte] & !mask | if on { mask } else { 0 };
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}

/// PRGENERATION, and what the list of PERSISTENT RESERVE IN holds.
fn listed<'a>(data: &'a [u8], what: &str) -> (u32, &'a [u8]) {
    let field = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes"));
    let list = &data[8..];
    assert_eq!(field(4) as usize, list.len(), "{what}: ADDITIONAL LENGTH");
    (field(0), list)
}
