//! Which commands run in the presence of which reservation (SPC-4 table 66, SBC-3 table 13, SPC-2 table 9).
//!
//! One table for all families, as the standards have it; a test demands a rule for every entry of the opcode table.

use super::{Kind, Reservations};
use crate::{cdb::Cdb, port::Path, table::Entry};

/// What the reservations of a unit leave to a nexus.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verdict {
    /// Everything.
    All,
    /// Reading: somebody else has Write Exclusive.
    Reads,
    /// Neither reading nor writing: somebody else has Exclusive Access.
    Status,
    /// Next to nothing: somebody else has the unit by RESERVE.
    Little,
}

/// How a command fares in the presence of a reservation that is not the nexus's own.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// Conflicts with every reservation.
    Writes,
    /// Runs under Write Exclusive types.
    Reads,
    /// Runs under every persistent reservation, and conflicts with RESERVE.
    Status,
    /// Runs under every reservation.
    Always,
    /// Has rules of its own, and sees to them itself.
    Own,
    /// It depends on the CDB.
    ByCdb(fn(&Cdb) -> Rule),
}

/// By opcode and service action; without one, for all service actions that are not named.
const RULES: &[(u8, Option<u16>, Rule)] = &[
    (0x00, None, Rule::Status),         // TEST UNIT READY
    (0x03, None, Rule::Always),         // REQUEST SENSE
    (0x04, None, Rule::Writes),         // FORMAT UNIT
    (0x07, None, Rule::Writes),         // REASSIGN BLOCKS
    (0x08, None, Rule::Reads),          // READ (6)
    (0x0A, None, Rule::Writes),         // WRITE (6)
    (0x12, None, Rule::Always),         // INQUIRY
    (0x15, None, Rule::Writes),         // MODE SELECT (6)
    (0x16, None, Rule::Own),            // RESERVE (6)
    (0x17, None, Rule::Own),            // RELEASE (6)
    (0x1A, None, Rule::Reads),          // MODE SENSE (6)
    (0x1B, None, Rule::ByCdb(start)),   // START STOP UNIT
    (0x1C, None, Rule::Reads),          // RECEIVE DIAGNOSTIC RESULTS
    (0x1D, None, Rule::Writes),         // SEND DIAGNOSTIC
    (0x1E, None, Rule::ByCdb(prevent)), // PREVENT ALLOW MEDIUM REMOVAL
    (0x25, None, Rule::Always),         // READ CAPACITY (10)
    (0x28, None, Rule::Reads),          // READ (10)
    (0x2A, None, Rule::Writes),         // WRITE (10)
    (0x2E, None, Rule::Writes),         // WRITE AND VERIFY (10)
    (0x2F, None, Rule::Reads),          // VERIFY (10)
    (0x34, None, Rule::Reads),          // PRE-FETCH (10)
    (0x35, None, Rule::Writes),         // SYNCHRONIZE CACHE (10)
    (0x37, None, Rule::Reads),          // READ DEFECT DATA (10)
    (0x3B, None, Rule::Writes),         // WRITE BUFFER
    (0x3C, None, Rule::Reads),          // READ BUFFER (10)
    (0x3E, None, Rule::Writes),         // READ LONG (10)
    (0x3F, None, Rule::Writes),         // WRITE LONG (10)
    (0x41, None, Rule::Writes),         // WRITE SAME (10)
    (0x42, None, Rule::Writes),         // UNMAP
    (0x48, None, Rule::Writes),         // SANITIZE
    (0x4C, None, Rule::Writes),         // LOG SELECT
    (0x4D, None, Rule::Always),         // LOG SENSE
    (0x53, None, Rule::Writes),         // XDWRITEREAD (10)
    (0x55, None, Rule::Writes),         // MODE SELECT (10)
    (0x56, None, Rule::Own),            // RESERVE (10)
    (0x57, None, Rule::Own),            // RELEASE (10)
    (0x5A, None, Rule::Reads),          // MODE SENSE (10)
    (0x5E, None, Rule::Own),            // PERSISTENT RESERVE IN
    (0x5F, None, Rule::Own),            // PERSISTENT RESERVE OUT
    (0x7F, None, Rule::Writes),         // WRITE (32) and its kin
    (0x7F, Some(0x09), Rule::Reads),    // READ (32)
    (0x7F, Some(0x0A), Rule::Reads),    // VERIFY (32)
    (0x83, None, Rule::Writes),         // EXTENDED COPY, WRITE USING TOKEN
    (0x83, Some(0x10), Rule::Reads),    // POPULATE TOKEN
    (0x84, None, Rule::Writes),         // RECEIVE COPY RESULTS
    (0x88, None, Rule::Reads),          // READ (16)
    (0x89, None, Rule::Writes),         // COMPARE AND WRITE
    (0x8A, None, Rule::Writes),         // WRITE (16)
    (0x8B, None, Rule::Writes),         // ORWRITE (16)
    (0x8E, None, Rule::Writes),         // WRITE AND VERIFY (16)
    (0x8F, None, Rule::Reads),          // VERIFY (16)
    (0x90, None, Rule::Reads),          // PRE-FETCH (16)
    (0x91, None, Rule::Writes),         // SYNCHRONIZE CACHE (16)
    (0x93, None, Rule::Writes),         // WRITE SAME (16)
    (0x9B, None, Rule::Reads),          // READ BUFFER (16)
    (0x9C, None, Rule::Writes),         // WRITE ATOMIC (16)
    (0x9E, Some(0x10), Rule::Always),   // READ CAPACITY (16)
    (0x9E, Some(0x11), Rule::Writes),   // READ LONG (16)
    (0x9E, Some(0x12), Rule::Reads),    // GET LBA STATUS
    (0x9F, Some(0x11), Rule::Writes),   // WRITE LONG (16)
    (0xA0, None, Rule::Always),         // REPORT LUNS
    (0xA3, None, Rule::Always),         // REPORT IDENTIFYING INFORMATION, TARGET PORT GROUPS, TIMESTAMP
    (0xA3, Some(0x0C), Rule::Reads),    // REPORT SUPPORTED OPERATION CODES
    (0xA3, Some(0x0D), Rule::Reads),    // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    (0xA4, None, Rule::Writes),         // SET IDENTIFYING INFORMATION, TARGET PORT GROUPS, TIMESTAMP
    (0xA8, None, Rule::Reads),          // READ (12)
    (0xAA, None, Rule::Writes),         // WRITE (12)
    (0xAE, None, Rule::Writes),         // WRITE AND VERIFY (12)
    (0xAF, None, Rule::Reads),          // VERIFY (12)
    (0xB7, None, Rule::Reads),          // READ DEFECT DATA (12)
];

/// START STOP UNIT may start, and nothing else.
fn start(cdb: &Cdb) -> Rule {
    if cdb.bit(4, 0) && cdb.byte(4) & 0xF2 == 0 { Rule::Always } else { Rule::Writes }
}

/// PREVENT ALLOW MEDIUM REMOVAL may allow.
fn prevent(cdb: &Cdb) -> Rule {
    if cdb.byte(4) & 0x03 == 0 { Rule::Always } else { Rule::Writes }
}

impl Rule {
    /// The rule of a command.
    #[cold]
    pub fn of(entry: &Entry) -> Rule {
        Rule::find(entry).unwrap_or(Rule::Writes)
    }

    fn find(entry: &Entry) -> Option<Rule> {
        let of = |action: Option<u16>| RULES.iter().find(|(opcode, a, _)| *opcode == entry.opcode && *a == action);
        let rule = of(entry.service_action).or_else(|| of(None))?;
        Some(rule.2)
    }

    /// Whether the command may run.
    pub fn admits(self, verdict: Verdict, cdb: &Cdb) -> bool {
        verdict
            <= match self {
                Rule::Writes => Verdict::All,
                Rule::Reads => Verdict::Reads,
                Rule::Status => Verdict::Status,
                Rule::Always | Rule::Own => Verdict::Little,
                Rule::ByCdb(rule) => return rule(cdb).admits(verdict, cdb),
            }
    }
}

impl Reservations {
    /// What is left to a nexus: `session` is its number, `path` who it is.
    pub fn verdict(&self, session: u64, path: &Path) -> Verdict {
        if let Some(holder) = self.reserved {
            return if holder == session { Verdict::All } else { Verdict::Little };
        }
        let Some(kind) = self.kind() else { return Verdict::All };
        let free = match kind {
            Kind::WriteExclusive | Kind::ExclusiveAccess => self.holds(path),
            // Registrants only, all registrants.
            _ => self.key(path).is_some(),
        };
        match (free, kind.excludes_reads()) {
            (true, _) => Verdict::All,
            (false, false) => Verdict::Reads,
            (false, true) => Verdict::Status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{self, Traits};

    #[test]
    fn every_command_has_a_rule_and_what_writes_conflicts() {
        for entry in table::entries() {
            let name = format!("{:02x}h {:?}", entry.opcode, entry.service_action);
            let Some(rule) = Rule::find(entry) else { panic!("{name} has no rule: give it one in RULES") };
            if entry.traits.has(Traits::WRITES) {
                assert!(matches!(rule, Rule::Writes), "{name} changes the medium");
            }
        }
    }
}
