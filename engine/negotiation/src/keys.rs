//! The table of keys: what RFC 7143 chapter 13 and RFC 7144 say of each, and nothing of what came of it.

use std::ops::RangeInclusive;

/// A key that a login knows. The order is that of RFC 7143 chapters 12 and 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the standard's own.
pub enum Key {
    AuthMethod,
    HeaderDigest,
    DataDigest,
    MaxConnections,
    SendTargets,
    TargetName,
    InitiatorName,
    TargetAlias,
    InitiatorAlias,
    TargetAddress,
    TargetPortalGroupTag,
    InitialR2T,
    ImmediateData,
    MaxRecvDataSegmentLength,
    MaxBurstLength,
    FirstBurstLength,
    DefaultTime2Wait,
    DefaultTime2Retain,
    MaxOutstandingR2T,
    DataPDUInOrder,
    DataSequenceInOrder,
    ErrorRecoveryLevel,
    SessionType,
    TaskReporting,
    ISCSIProtocolLevel,
    IFMarker,
    OFMarker,
    IFMarkInt,
    OFMarkInt,
    NodeArchitecture,
}

/// How many there are.
pub(crate) const COUNT: usize = Key::NodeArchitecture as usize + 1;

/// What a key is, and how two values become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// The first value of the offered list that the answering side supports (RFC 7143 6.2.1).
    List,
    /// The smaller of two numbers, both in this range (RFC 7143 6.2.2).
    Minimum(RangeInclusive<u32>),
    /// The larger of two numbers, both in this range.
    Maximum(RangeInclusive<u32>),
    /// Yes when both say Yes.
    And,
    /// Yes when one says Yes.
    Or,
    /// Each side tells its own number, in this range; there is no answer (RFC 7143 6.2).
    DeclaredNumber(RangeInclusive<u32>),
    /// Text that one side tells the other; there is no answer.
    Declared,
    /// A marker key of RFC 3720, answered `No` (RFC 7143 13.25).
    ObsoleteMarker,
    /// A marker interval of RFC 3720, answered `Reject` (RFC 7143 13.25).
    ObsoleteInterval,
}

/// Who may send a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    /// The initiator alone, but for a bare answer.
    Initiator,
    /// The target alone.
    Target,
    /// Both.
    Both,
}

/// In which phases a key may be sent (RFC 7143 chapter 13, "Use").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// IO: in the login phase of the first connection.
    InitializeOnly,
    /// LO: in the login phase.
    LoginOnly,
    /// FFPO: in the full feature phase.
    FullFeaturePhaseOnly,
    /// ALL: in every phase.
    All,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// Which key.
    pub key: Key,
    /// Its name on the wire; case matters.
    pub name: &'static str,
    /// How two values become one.
    pub function: Function,
    /// Who may send it.
    pub senders: Senders,
    /// When it may be sent.
    pub phases: Use,
    /// It holds for the whole session, not for one connection (scope SW).
    pub session_wide: bool,
    /// It means nothing in a discovery session.
    pub irrelevant_in_discovery: bool,
}

const LENGTH: RangeInclusive<u32> = 512..=(1 << 24) - 1;
const COUNTED: RangeInclusive<u32> = 1..=65_535;
const SECONDS: RangeInclusive<u32> = 0..=3600;

const fn row(key: Key, name: &'static str, function: Function, phases: Use) -> Row {
    Row { key, name, function, senders: Senders::Both, phases, session_wide: true, irrelevant_in_discovery: false }
}
impl Row {
    const fn from(mut self, senders: Senders) -> Row {
        self.senders = senders;
        self
    }
    const fn of_connection(mut self) -> Row {
        self.session_wide = false;
        self
    }
    const fn not_in_discovery(mut self) -> Row {
        self.irrelevant_in_discovery = true;
        self
    }
}

use Function::*;
use Use::{All, FullFeaturePhaseOnly, InitializeOnly, LoginOnly};

/// All keys, each at the index of its [`Key`].
static TABLE: [Row; COUNT] = [
    row(Key::AuthMethod, "AuthMethod", List, InitializeOnly).of_connection(),
    row(Key::HeaderDigest, "HeaderDigest", List, InitializeOnly).of_connection(),
    row(Key::DataDigest, "DataDigest", List, InitializeOnly).of_connection(),
    row(Key::MaxConnections, "MaxConnections", Minimum(COUNTED), LoginOnly).not_in_discovery(),
    row(Key::SendTargets, "SendTargets", Declared, FullFeaturePhaseOnly).from(Senders::Initiator),
    row(Key::TargetName, "TargetName", Declared, InitializeOnly),
    row(Key::InitiatorName, "InitiatorName", Declared, InitializeOnly).from(Senders::Initiator),
    row(Key::TargetAlias, "TargetAlias", Declared, All).from(Senders::Target),
    row(Key::InitiatorAlias, "InitiatorAlias", Declared, All).from(Senders::Initiator),
    row(Key::TargetAddress, "TargetAddress", Declared, All).from(Senders::Target),
    row(Key::TargetPortalGroupTag, "TargetPortalGroupTag", Declared, InitializeOnly).from(Senders::Target),
    row(Key::InitialR2T, "InitialR2T", Or, LoginOnly).not_in_discovery(),
    row(Key::ImmediateData, "ImmediateData", And, LoginOnly).not_in_discovery(),
    row(Key::MaxRecvDataSegmentLength, "MaxRecvDataSegmentLength", DeclaredNumber(LENGTH), All).of_connection(),
    row(Key::MaxBurstLength, "MaxBurstLength", Minimum(LENGTH), LoginOnly).not_in_discovery(),
    row(Key::FirstBurstLength, "FirstBurstLength", Minimum(LENGTH), LoginOnly).not_in_discovery(),
    row(Key::DefaultTime2Wait, "DefaultTime2Wait", Maximum(SECONDS), LoginOnly),
    row(Key::DefaultTime2Retain, "DefaultTime2Retain", Minimum(SECONDS), LoginOnly),
    row(Key::MaxOutstandingR2T, "MaxOutstandingR2T", Minimum(COUNTED), LoginOnly).not_in_discovery(),
    row(Key::DataPDUInOrder, "DataPDUInOrder", Or, LoginOnly).not_in_discovery(),
    row(Key::DataSequenceInOrder, "DataSequenceInOrder", Or, LoginOnly).not_in_discovery(),
    row(Key::ErrorRecoveryLevel, "ErrorRecoveryLevel", Minimum(0..=2), LoginOnly),
    row(Key::SessionType, "SessionType", Declared, LoginOnly).from(Senders::Initiator),
    row(Key::TaskReporting, "TaskReporting", List, LoginOnly).not_in_discovery(),
    row(Key::ISCSIProtocolLevel, "iSCSIProtocolLevel", Minimum(0..=31), LoginOnly).not_in_discovery(),
    row(Key::IFMarker, "IFMarker", ObsoleteMarker, LoginOnly).of_connection(),
    row(Key::OFMarker, "OFMarker", ObsoleteMarker, LoginOnly).of_connection(),
    row(Key::IFMarkInt, "IFMarkInt", ObsoleteInterval, LoginOnly).of_connection(),
    row(Key::OFMarkInt, "OFMarkInt", ObsoleteInterval, LoginOnly).of_connection(),
    row(Key::NodeArchitecture, "X#NodeArchitecture", Declared, LoginOnly),
];

impl Key {
    /// The key of this name; case matters (RFC 7143 6.1).
    pub fn named(name: &str) -> Option<Key> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.key)
    }

    /// Its row.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// All keys.
    pub fn all() -> impl Iterator<Item = Key> {
        TABLE.iter().map(|row| row.key)
    }
}

/// A set of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet(u32);

const _: () = assert!(COUNT <= 32);

impl KeySet {
    /// Adds a key; false when it was there.
    pub(crate) fn insert(&mut self, key: Key) -> bool {
        let fresh = !self.contains(key);
        self.0 |= 1 << key as u8;
        fresh
    }
    pub(crate) fn remove(&mut self, key: Key) {
        self.0 &= !(1 << key as u8);
    }
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.0 & (1 << key as u8) != 0
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_at_the_index_of_its_key() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.key as usize, index, "{}", row.name);
            assert_eq!(Key::named(row.name), Some(row.key));
        }
    }

    #[test]
    fn names_are_told_apart_by_case() {
        assert_eq!(Key::named("headerdigest"), None);
        assert_eq!(Key::named("HeaderDigest"), Some(Key::HeaderDigest));
    }
}
