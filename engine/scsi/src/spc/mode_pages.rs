//! Mode pages: what they hold, and which bits of them change (SPC-4 7.5, SBC-3 6.5).

use crate::{
    attention::Attention,
    command::Context,
    sense::Sense,
    unit::{Flags, LogicalUnit, State},
};
use serde::{Deserialize, Serialize};

/// PAGE CONTROL of MODE SENSE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Current,
    Changeable,
    Default,
    Saved,
}

/// A mode page, or subpage.
pub(crate) struct Page {
    pub code: u8,
    pub subpage: u8,
    /// Bytes of the page without header.
    length: usize,
    /// Default values without header, padded to the page's length.
    defaults: &'static [u8],
    /// Byte of the values, and mask of bits that may change.
    changeable: &'static [(usize, u8)],
    /// There only when the unit is thin provisioned.
    thin: bool,
}

const RECOVERY: usize = 0;
const CACHING: usize = 1;
const CONTROL: usize = 2;
const EXCEPTIONS: usize = 5;
const PROVISIONING: usize = 6;
/// Where the threshold descriptors of the logical block provisioning page begin, and the length of one.
const THRESHOLDS: usize = 12;
const THRESHOLD: usize = 8;

/// In ascending order of page and subpage.
const PAGES: [Page; 7] = [
    // Read-write error recovery: AWRE, ARRE; LBPERE is set on a thin unit.
    Page {
        code: 0x01,
        subpage: 0,
        length: 10,
        defaults: &[0xC0, 0, 0, 0, 0, 0x80],
        changeable: &[(5, 0x80)],
        thin: false,
    },
    // Caching: WCE.
    Page { code: 0x08, subpage: 0, length: 18, defaults: &[0x04], changeable: &[(0, 0x04)], thin: false },
    // Control: TST 001b, GLTSD, QUEUE ALGORITHM MODIFIER 1h, QERR 00b, UA_INTLCK_CTRL 00b, TAS 0, no busy timeout
    // limit. D_SENSE and SWP change.
    Page {
        code: 0x0A,
        subpage: 0,
        length: 10,
        defaults: &[0x22, 0x10, 0x00, 0x00, 0, 0, 0xFF, 0xFF, 0, 0],
        changeable: &[(0, 0x04), (2, 0x08)],
        thin: false,
    },
    // Control extension: TCMOS, IALUAE; MAXIMUM SENSE DATA LENGTH.
    Page { code: 0x0A, subpage: 1, length: 28, defaults: &[0x05, 0, 252], changeable: &[], thin: false },
    // Power condition: none.
    Page { code: 0x1A, subpage: 0, length: 38, defaults: &[], changeable: &[], thin: false },
    // Informational exceptions control: DEXCPT, TEST and MRIE change.
    Page { code: 0x1C, subpage: 0, length: 10, defaults: &[0x08], changeable: &[(0, 0x0C), (1, 0x0F)], thin: false },
    // Logical block provisioning: SITUA; thresholds of available resources (decreasing) and of used ones (increasing).
    // ENABLED and THRESHOLD COUNT of each change.
    Page {
        code: 0x1C,
        subpage: 2,
        length: THRESHOLDS + 2 * THRESHOLD,
        defaults: &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0x01, 0x02],
        changeable: &[
            (0, 0x01),
            (12, 0x80),
            (16, 0xFF),
            (17, 0xFF),
            (18, 0xFF),
            (19, 0xFF),
            (20, 0x80),
            (24, 0xFF),
            (25, 0xFF),
            (26, 0xFF),
            (27, 0xFF),
        ],
        thin: true,
    },
];

/// Methods of reporting informational exceptions that there are: none, unit attention, on request.
const MRIE: [u8; 3] = [0x0, 0x2, 0x6];

/// The pages of a unit.
pub(crate) fn pages(thin: bool) -> impl Iterator<Item = &'static Page> {
    PAGES.iter().filter(move |page| thin || !page.thin)
}

/// Values of all pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Values(Vec<Vec<u8>>);

impl Values {
    /// The defaults.
    pub fn new(thin: bool) -> Values {
        let mut all: Vec<Vec<u8>> = PAGES.iter().map(|page| page.padded()).collect();
        if !thin {
            all[RECOVERY][5] = 0;
        }
        Values(all)
    }

    fn of(&self, page: &Page) -> &[u8] {
        &self.0[page.place()]
    }

    /// What of it READ and WRITE look at.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags::NONE;
        flags.set(Flags::WRITE_CACHE, self.0[CACHING][0] & 0x04 != 0);
        flags.set(Flags::DESCRIPTOR_SENSE, self.0[CONTROL][0] & 0x04 != 0);
        flags.set(Flags::SOFTWARE_PROTECTED, self.0[CONTROL][2] & 0x08 != 0);
        flags
    }

    /// Informational exceptions are to be tested (TEST, without DEXCPT), and the method of reporting them (MRIE).
    pub fn exceptions(&self) -> (bool, u8) {
        let page = &self.0[EXCEPTIONS];
        (page[0] & 0x0C == 0x04, page[1] & 0x0F)
    }

    /// The thresholds that are enabled.
    pub fn thresholds(&self) -> Thresholds {
        let page = &self.0[PROVISIONING];
        let reported = self.0[RECOVERY][5] & 0x80 != 0;
        let threshold = |number: usize| {
            let descriptor = &page[THRESHOLDS + number * THRESHOLD..][..THRESHOLD];
            let count = u32::from_be_bytes([descriptor[4], descriptor[5], descriptor[6], descriptor[7]]);
            (reported && descriptor[0] & 0x80 != 0).then_some(count)
        };
        Thresholds { available: threshold(0), used: threshold(1), single: page[0] & 0x01 != 0 }
    }
}

/// Thresholds of the logical block provisioning mode page, in threshold sets of
/// [`LogicalUnit::threshold_exponent`]; None: not enabled, or not to be reported (LBPERE).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Thresholds {
    /// As few available resources as this are worth a unit attention.
    pub available: Option<u32>,
    /// As many used resources as this are.
    pub used: Option<u32>,
    /// SITUA: one initiator is told, else all.
    pub single: bool,
}

impl Page {
    fn place(&self) -> usize {
        PAGES.iter().position(|page| (page.code, page.subpage) == (self.code, self.subpage)).unwrap_or(0)
    }

    fn padded(&self) -> Vec<u8> {
        let mut values = self.defaults.to_vec();
        values.resize(self.length, 0);
        values
    }

    /// Bytes of header: with SPF there is a subpage code and a longer length.
    pub fn header(&self) -> usize {
        if self.subpage == 0 { 2 } else { 4 }
    }

    /// Bytes without header.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Something of it changes, and is saved with it.
    fn is_savable(&self) -> bool {
        !self.changeable.is_empty()
    }

    fn mask(&self, at: usize) -> u8 {
        self.changeable.iter().filter(|(byte, _)| *byte == at).fold(0, |all, (_, mask)| all | mask)
    }

    /// Appends it with its header.
    pub fn emit(&self, control: Control, modes: &Modes, thin: bool, out: &mut Vec<u8>) {
        let savable = u8::from(self.is_savable()) << 7;
        if self.subpage == 0 {
            out.extend([savable | self.code, self.length as u8]);
        } else {
            out.extend([savable | 0x40 | self.code, self.subpage, 0, self.length as u8]);
        }
        match control {
            Control::Current => out.extend(modes.current.of(self)),
            Control::Default => out.extend(Values::new(thin).of(self)),
            Control::Saved => out.extend(modes.saved.of(self)),
            Control::Changeable => out.extend((0..self.length).map(|at| self.mask(at))),
        }
    }

    /// Takes new values, or gives the byte (from the page's begin) and bit of the first that may not be. `new` has the
    /// page's length.
    pub fn select(&self, new: &[u8], values: &mut Values) -> Result<(), (usize, u8)> {
        let old = &mut values.0[self.place()];
        for (at, (old, new)) in old.iter().zip(new).enumerate() {
            let wrong = (new ^ old) & !self.mask(at);
            if wrong != 0 {
                return Err((self.header() + at, 7 - wrong.leading_zeros() as u8));
            }
        }
        if !self.admits(new) {
            return Err((self.header() + 1, 3));
        }
        old.copy_from_slice(new);
        Ok(())
    }

    /// The values make sense together; if not, it is MRIE.
    fn admits(&self, values: &[u8]) -> bool {
        self.place() != EXCEPTIONS || values.get(1).is_some_and(|byte| MRIE.contains(&(byte & 0x0F)))
    }
}

/// A saved page, as it is recorded: of its values the bits count that may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptPage {
    page: u8,
    #[serde(default)]
    subpage: u8,
    values: Vec<u8>,
}

/// The mode pages of a unit.
#[derive(Clone, Debug)]
pub(crate) struct Modes {
    pub current: Values,
    /// What they are after a reset, and at the next start.
    saved: Values,
}

impl Modes {
    pub fn new(thin: bool) -> Modes {
        Modes { current: Values::new(thin), saved: Values::new(thin) }
    }

    /// A reset: current values are what was saved.
    pub fn reset(&mut self) {
        self.current = self.saved.clone();
    }

    /// What is recorded of the saved values.
    pub fn keep(&self, thin: bool) -> Vec<KeptPage> {
        let defaults = Values::new(thin);
        let differs = |page: &&Page| self.saved.of(page) != defaults.of(page);
        let kept =
            |page: &Page| KeptPage { page: page.code, subpage: page.subpage, values: self.saved.of(page).to_vec() };
        PAGES.iter().filter(differs).map(kept).collect()
    }

    /// The pages at start. A page that there isn't is passed over: another version has it.
    pub fn of(kept: Vec<KeptPage>, thin: bool) -> Result<Modes, String> {
        let mut modes = Modes::new(thin);
        for KeptPage { page: code, subpage, values } in kept {
            let Some(page) = PAGES.iter().find(|page| (page.code, page.subpage) == (code, subpage)) else { continue };
            let saved = &mut modes.saved.0[page.place()];
            if values.len() != saved.len() || !page.admits(&values) {
                return Err(format!("the saved mode page {code:02x}h, subpage {subpage:02x}h, makes no sense"));
            }
            for (at, (saved, value)) in saved.iter_mut().zip(values).enumerate() {
                *saved = *saved & !page.mask(at) | value & page.mask(at);
            }
        }
        modes.reset();
        Ok(modes)
    }
}

/// What a MODE SELECT has done.
pub(crate) struct Selected {
    /// State bits before and after.
    pub old: Flags,
    pub new: Flags,
    /// The number of the lasting state that is to be saved.
    pub save: Option<u64>,
}

impl LogicalUnit {
    /// MODE SELECT: `change` takes current values to new ones, or all stays as it is. The other nexuses hear of a change.
    /// `save`: what holds then holds for good.
    pub(crate) fn select(
        &self,
        except: Option<u64>,
        save: bool,
        change: impl FnOnce(&mut Values) -> Result<(), Sense>,
    ) -> Result<Selected, Sense> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut values = state.modes.current.clone();
        change(&mut values)?;
        let before = state.modes.clone();
        let old = self.flags();
        state.set_modes(self, Modes { current: values, ..before.clone() }, except);
        let save = save.then(|| {
            state.modes.saved = state.modes.current.clone();
            state.changed_for_good(Box::new(move |unit, state| state.set_modes(unit, before, except)))
        });
        Ok(Selected { old, new: self.flags(), save })
    }

    /// Looks at the mode pages.
    pub(crate) fn modes<T>(&self, look: impl FnOnce(&Modes) -> T) -> T {
        look(&self.lock().modes)
    }
}

impl State {
    /// Puts others in the place of the pages, and what follows from them.
    fn set_modes(&mut self, unit: &LogicalUnit, modes: Modes, except: Option<u64>) {
        let old = std::mem::replace(&mut self.modes, modes);
        if self.modes.current == old.current {
            return;
        }
        unit.set_flags(|flags| flags.take(self.modes.current.flags()));
        self.log.push(Attention::ModeParametersChanged, except);
        let test = self.modes.current.exceptions();
        if test != old.current.exceptions() && test == (true, 2) {
            self.log.push(Attention::FalseFailurePrediction, None);
        }
        unit.changed();
    }
}

/// WP and DPOFUA of the DEVICE-SPECIFIC PARAMETER (SBC-3 6.5.1).
pub(crate) fn device_specific(flags: Flags) -> u8 {
    let protected = flags.has(Flags::READ_ONLY) || flags.has(Flags::SOFTWARE_PROTECTED);
    0x10 | if protected { 0x80 } else { 0 }
}

/// The short block descriptor (SBC-3 6.5.2.2).
pub(crate) fn short_descriptor(unit: &LogicalUnit) -> [u8; 8] {
    let mut descriptor = [0; 8];
    let blocks = u32::try_from(unit.blocks()).unwrap_or(u32::MAX);
    descriptor[..4].copy_from_slice(&blocks.to_be_bytes());
    descriptor[4..].copy_from_slice(&unit.block_size().to_be_bytes());
    descriptor
}

/// The long LBA block descriptor (SBC-3 6.5.2.3).
pub(crate) fn long_descriptor(unit: &LogicalUnit) -> [u8; 16] {
    let mut descriptor = [0; 16];
    descriptor[..8].copy_from_slice(&unit.blocks().to_be_bytes());
    descriptor[12..].copy_from_slice(&unit.block_size().to_be_bytes());
    descriptor
}

/// Identifier of the nexus, that hears nothing of a change of its own.
pub(crate) fn who(context: &Context<'_>) -> Option<u64> {
    context.nexus.as_ref().map(|nexus| nexus.id())
}
