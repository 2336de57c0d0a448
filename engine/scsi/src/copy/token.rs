//! ROD tokens (SPC-4 5.17.6): what stands for data of a unit as it was at one moment.
//!
//! Tokens are of the type "point in time copy - change vulnerable": nothing is kept aside, so that whoever writes to
//! data that a token stands for cancels the token, before the store has the write ([`Watch::written`]). A write that was
//! on its way when the token was made has ended before (the barrier of POPULATE TOKEN). Whoever shows a token may read
//! what it stands for, by any port of the host; it holds a secret that nobody can guess, of this life of the program.

use super::{be16, be32, be64, cscd};
use crate::{
    port::{InitiatorPort, TargetPort},
    sense::{Sense, asc},
    unit::LogicalUnit,
};
use sha2::{Digest, Sha256};
use std::{
    collections::VecDeque,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    time::Duration,
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of a token.
pub(super) const LENGTH: usize = 512;
/// ROD TOKEN LENGTH of each.
pub(super) const FIELD_LENGTH: u16 = LENGTH as u16 - 8;
/// ROD types.
pub(super) const CHANGE_VULNERABLE: u32 = 0x0080_0001;
pub(super) const ANY_POINT_IN_TIME: u32 = 0x0080_FFFF;
pub(super) const BLOCK_ZERO: u32 = 0xFFFF_0001;

/// Tokens that are known at a time. With at most 128 ranges each they take 1.3 MiB at most.
const MOST: usize = 512;
/// Where the secret is in a token: behind all that is said openly.
const SECRET: Range<usize> = 256..288;

pub(super) type Token = [u8; LENGTH];

const VALID: u8 = 0;
const EXPIRED: u8 = 1;
const DELETED: u8 = 2;

/// Data that a token stands for.
pub(super) struct Rod {
    unit: Weak<LogicalUnit>,
    /// Byte ranges of the medium, in the order of the token.
    ranges: Vec<Range<u64>>,
    /// Binary logarithm of the unit's block size.
    pub block_shift: u32,
    /// Some of the data was changed since.
    changed: AtomicBool,
    state: AtomicU8,
    /// ROD token inactivity timeout.
    timeout: Duration,
    /// When it was made, or used last: milliseconds.
    used_ms: AtomicU64,
    /// Commands that use it.
    users: AtomicU32,
}

impl Rod {
    /// Bytes that it stands for.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Some of the data was changed since.
    pub fn is_cancelled(&self) -> bool {
        // What was read before this is not newer than what is said here.
        fence(Ordering::Acquire);
        self.changed.load(Ordering::Acquire)
    }

    fn overlaps(&self, range: &Range<u64>) -> bool {
        self.ranges.iter().any(|own| own.start < range.end && range.start < own.end)
    }

    /// It is over, for this reason; the first one counts.
    fn end(&self, state: u8) {
        let _ = self.state.compare_exchange(VALID, state, Ordering::AcqRel, Ordering::Acquire);
    }

    fn touch(&self, now: Duration) {
        self.used_ms.fetch_max(now.as_millis() as u64, Ordering::AcqRel);
    }

    /// Ends it if nobody has used it for too long.
    fn age(&self, now: Duration) {
        let used = Duration::from_millis(self.used_ms.load(Ordering::Acquire));
        if self.users.load(Ordering::Acquire) == 0 && now > used + self.timeout {
            self.end(EXPIRED);
        }
    }

    /// It may be used, or is.
    fn is_alive(&self) -> bool {
        !self.changed.load(Ordering::Acquire)
            && (self.state.load(Ordering::Acquire) == VALID || self.users.load(Ordering::Acquire) > 0)
    }
}

/// A unit's tokens, seen from those who write to it. While there is none, each write pays one atomic load.
#[derive(Default)]
pub(crate) struct Watch {
    rods: AtomicUsize,
    list: Mutex<Vec<Weak<Rod>>>,
}

impl Watch {
    /// The range is about to be written.
    #[inline]
    pub fn written(&self, range: &Range<u64>) {
        if self.rods.load(Ordering::Acquire) > 0 {
            self.cancel(range);
        }
    }

    #[cold]
    fn cancel(&self, range: &Range<u64>) {
        self.retain(|rod| {
            if rod.overlaps(range) {
                rod.changed.store(true, Ordering::Release);
            }
        });
        // The write is not seen before this is.
        fence(Ordering::SeqCst);
    }

    /// All of the medium changes, or its data is not to be had any more.
    pub fn revoke(&self) {
        self.written(&(0..u64::MAX));
    }

    /// Forgets what nobody has used for too long.
    pub fn sweep(&self, now: Duration) {
        if self.rods.load(Ordering::Acquire) > 0 {
            self.retain(|rod| rod.age(now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Rod>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retain(&self, change: impl Fn(&Rod)) {
        let mut list = self.lock();
        list.retain(|rod| {
            let Some(rod) = rod.upgrade() else { return false };
            change(&rod);
            rod.is_alive()
        });
        self.rods.store(list.len(), Ordering::Release);
    }

    fn add(&self, rod: &Arc<Rod>) {
        let mut list = self.lock();
        if list.len() >= MOST {
            list.retain(|known| known.strong_count() > 0);
        }
        list.push(Arc::downgrade(rod));
        self.rods.store(list.len(), Ordering::Release);
    }
}

impl LogicalUnit {
    /// The server is about to give a write of these bytes to the store: tokens for what is there are no longer valid.
    /// One atomic load while there are none.
    #[inline]
    pub fn written(&self, range: &Range<u64>) {
        self.watch().written(range);
    }

    /// The unit goes: so do all tokens for its data.
    pub fn revoke_tokens(&self) {
        self.watch().revoke();
    }

    /// Tokens that nobody has used for too long expire. Once a second, say.
    pub fn sweep_tokens(&self, now: Duration) {
        self.watch().sweep(now);
    }
}

struct Entry {
    token: Box<Token>,
    rod: Arc<Rod>,
    /// Who had it made.
    owner: Option<Arc<InitiatorPort>>,
}

impl Entry {
    fn id(&self) -> u64 {
        be64(&*self.token, 8)
    }

    fn is_idle(&self) -> bool {
        self.rod.users.load(Ordering::Acquire) == 0
    }
}

#[derive(Default)]
struct Table {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// COPY MANAGER ROD TOKEN IDENTIFIER of the last one.
    last: u64,
}

impl Table {
    /// Makes room for one more: what is over goes, then the oldest of the initiator that has most, if nobody uses it.
    fn make_room(&mut self, now: Duration) -> Result<(), Sense> {
        if self.entries.len() < MOST {
            return Ok(());
        }
        self.entries.retain(|entry| {
            entry.rod.age(now);
            entry.rod.is_alive() || !entry.is_idle()
        });
        if self.entries.len() < MOST {
            return Ok(());
        }
        let name = |entry: &Entry| entry.owner.as_ref().map(|owner| owner.name.clone());
        let mut counts = std::collections::HashMap::new();
        for entry in &self.entries {
            *counts.entry(name(entry)).or_insert(0u32) += 1;
        }
        let most = counts.values().copied().max().unwrap_or(0);
        let goes = |entry: &Entry| entry.is_idle() && counts.get(&name(entry)) == Some(&most);
        let full = Sense::illegal(asc::INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN);
        let place = self.entries.iter().position(goes).ok_or(full)?;
        self.entries.remove(place);
        Ok(())
    }
}

/// The ROD tokens of this host: shared by all of its ports, since a token may be used at any of its units.
pub struct CopyManager {
    secret: Zeroizing<[u8; 32]>,
    table: Mutex<Table>,
}

impl CopyManager {
    /// Without tokens. `secret`: random, of one life of the program.
    pub fn new(secret: [u8; 32]) -> Arc<CopyManager> {
        Arc::new(CopyManager { secret: Zeroizing::new(secret), table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a token for ranges of a unit that nobody is writing to at this moment.
    pub(super) fn create(
        &self,
        unit: &Arc<LogicalUnit>,
        ranges: Vec<Range<u64>>,
        timeout: Duration,
        owner: Option<Arc<InitiatorPort>>,
        port: &TargetPort,
        now: Duration,
    ) -> Result<Box<Token>, Sense> {
        let rod = Arc::new(Rod {
            unit: Arc::downgrade(unit),
            ranges,
            block_shift: unit.block_shift(),
            changed: AtomicBool::new(false),
            state: AtomicU8::new(VALID),
            timeout,
            used_ms: AtomicU64::new(now.as_millis() as u64),
            users: AtomicU32::new(0),
        });
        let mut table = self.table();
        table.make_room(now)?;
        table.last += 1;
        let token = Box::new(self.emit(table.last, unit, &rod, port));
        unit.watch().add(&rod);
        table.entries.push_back(Entry { token: token.clone(), rod, owner });
        Ok(token)
    }

    /// What a token stands for, if it is valid (SPC-4 5.17.6.5.2).
    pub(super) fn look_up(&self, token: &Token, now: Duration) -> Result<Lease, Sense> {
        let invalid = |code| Err(Sense::illegal(code));
        if be32(token, 0) != CHANGE_VULNERABLE {
            return invalid(asc::UNSUPPORTED_TOKEN_TYPE);
        }
        if be16(token, 6) != FIELD_LENGTH {
            return invalid(asc::INVALID_TOKEN_LENGTH);
        }
        let id = be64(token, 8);
        let table = self.table();
        let found = table.entries.iter().find(|entry| entry.id() == id);
        // The identifier can be guessed; the rest can't.
        let Some(entry) = found.filter(|entry| entry.token.ct_eq(token).into()) else {
            return invalid(asc::TOKEN_UNKNOWN);
        };
        let rod = &entry.rod;
        let Some(unit) = rod.unit.upgrade() else { return invalid(asc::TOKEN_CANCELLED) };
        // It doesn't expire between the look and the use.
        let _watched = unit.watch().lock();
        if rod.is_cancelled() {
            return invalid(asc::TOKEN_CANCELLED);
        }
        rod.age(now);
        match rod.state.load(Ordering::Acquire) {
            VALID => {
                rod.users.fetch_add(1, Ordering::AcqRel);
                rod.touch(now);
                Ok(Lease { unit: unit.clone(), rod: rod.clone() })
            }
            EXPIRED => invalid(asc::TOKEN_EXPIRED),
            _ => invalid(asc::TOKEN_DELETED),
        }
    }

    /// A generic ROD token (SPC-4 table 112).
    fn emit(&self, id: u64, unit: &LogicalUnit, rod: &Rod, port: &TargetPort) -> Token {
        let mut token = [0; LENGTH];
        token[..4].copy_from_slice(&CHANGE_VULNERABLE.to_be_bytes());
        token[6..8].copy_from_slice(&FIELD_LENGTH.to_be_bytes());
        token[8..16].copy_from_slice(&id.to_be_bytes());
        token[16..48].copy_from_slice(&cscd::of_unit(unit));
        token[48..64].copy_from_slice(&u128::from(rod.bytes()).to_be_bytes());
        // Device type specific data: the logical block length.
        token[96..100].copy_from_slice(&unit.block_size().to_be_bytes());
        // TARGET DEVICE DESCRIPTOR: the name of the target as a SCSI name string.
        let name = port.target_name.as_bytes();
        let name = &name[..name.len().min(123)];
        token[128..132].copy_from_slice(&[0x53, 0xA8, 0, 124]);
        token[132..132 + name.len()].copy_from_slice(name);
        let secret = Sha256::new().chain_update(*self.secret).chain_update(&token[..SECRET.start]).finalize();
        token[SECRET].copy_from_slice(&secret);
        token
    }
}

impl fmt::Debug for CopyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyManager").field("tokens", &self.table().entries.len()).finish_non_exhaustive()
    }
}

/// The use of a token by a command: it doesn't expire meanwhile.
pub(super) struct Lease {
    pub unit: Arc<LogicalUnit>,
    pub rod: Arc<Rod>,
}

impl Lease {
    /// It is used at this time.
    pub fn renew(&self, now: Duration) {
        self.rod.touch(now);
    }

    /// DEL_TKN: it is not valid any more. Those who use it go on.
    pub fn delete(&self) {
        self.rod.end(DELETED);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.rod.users.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::Identity, profile::Profile};
    use backstore_api::Geometry;

    const MINUTE: Duration = Duration::from_secs(60);

    fn unit(name: &str) -> Arc<LogicalUnit> {
        LogicalUnit::new(Profile::new(Identity::from_name(name), 512), Geometry::new(1 << 20))
    }

    fn port(copies: &Arc<CopyManager>) -> TargetPort {
        TargetPort {
            target_name: "iqn.2026-01.io.ringlun:t".into(),
            portal_group: 1,
            relative_port: 1,
            ports: Vec::new(),
            luns: Default::default(),
            copies: copies.clone(),
        }
    }

    fn owner(name: &str) -> Option<Arc<InitiatorPort>> {
        Some(Arc::new(InitiatorPort { name: name.into(), isid: [0; 6] }))
    }

    /// A token for a range, made by `who` at zero.
    fn token(copies: &Arc<CopyManager>, unit: &Arc<LogicalUnit>, range: Range<u64>, who: &str) -> Box<Token> {
        copies.create(unit, vec![range], MINUTE, owner(who), &port(copies), Duration::ZERO).unwrap()
    }

    fn code(result: Result<Lease, Sense>) -> u16 {
        result.err().expect("it is refused").asc
    }

    #[test]
    fn a_token_is_taken_as_it_was_made_and_not_with_any_other_byte() {
        let (copies, unit) = (CopyManager::new([1; 32]), unit("a"));
        let token = token(&copies, &unit, 0..512, "i");
        assert!(copies.look_up(&token, Duration::ZERO).is_ok());
        for place in 8..LENGTH {
            let mut forged = token.clone();
            forged[place] ^= 0x10;
            assert_eq!(code(copies.look_up(&forged, Duration::ZERO)), asc::TOKEN_UNKNOWN, "byte {place}");
        }
        // Another life of the program has another secret.
        let later = CopyManager::new([2; 32]);
        assert_ne!(*super::tests::token(&later, &unit, 0..512, "i"), *token);
        assert_eq!(code(later.look_up(&token, Duration::ZERO)), asc::TOKEN_UNKNOWN);
    }

    #[test]
    fn a_write_cancels_the_tokens_of_what_it_changes() {
        let (copies, unit) = (CopyManager::new([1; 32]), unit("a"));
        let (first, second) = (token(&copies, &unit, 0..1024, "i"), token(&copies, &unit, 1024..2048, "i"));
        let lease = copies.look_up(&first, Duration::ZERO).ok().unwrap();
        unit.written(&(2048..4096));
        assert!(!lease.rod.is_cancelled());
        unit.written(&(512..1024));
        assert!(lease.rod.is_cancelled());
        assert_eq!(code(copies.look_up(&first, Duration::ZERO)), asc::TOKEN_CANCELLED);
        assert!(copies.look_up(&second, Duration::ZERO).is_ok());
    }

    #[test]
    fn a_unit_that_shrinks_or_goes_cancels_what_is_not_there_any_more() {
        let (copies, gone) = (CopyManager::new([1; 32]), unit("a"));
        let (low, high) = (token(&copies, &gone, 0..512, "i"), token(&copies, &gone, 1 << 19..1 << 20, "i"));
        gone.resize(1 << 19);
        assert!(copies.look_up(&low, Duration::ZERO).is_ok());
        assert_eq!(code(copies.look_up(&high, Duration::ZERO)), asc::TOKEN_CANCELLED);
        gone.revoke_tokens();
        assert_eq!(code(copies.look_up(&low, Duration::ZERO)), asc::TOKEN_CANCELLED);
        let other = unit("b");
        let lost = token(&copies, &other, 0..512, "i");
        drop(other);
        assert_eq!(code(copies.look_up(&lost, Duration::ZERO)), asc::TOKEN_CANCELLED);
    }

    #[test]
    fn a_token_expires_when_nobody_uses_it_and_not_while_somebody_does() {
        let (copies, unit) = (CopyManager::new([1; 32]), unit("a"));
        let token = token(&copies, &unit, 0..512, "i");
        let lease = copies.look_up(&token, MINUTE).ok().unwrap();
        unit.sweep_tokens(10 * MINUTE);
        lease.renew(10 * MINUTE);
        drop(lease);
        assert!(copies.look_up(&token, 11 * MINUTE).is_ok());
        assert_eq!(code(copies.look_up(&token, 13 * MINUTE)), asc::TOKEN_EXPIRED);
        // Nor do writes pay for it any more.
        unit.sweep_tokens(13 * MINUTE);
        assert_eq!(unit.watch().rods.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_deleted_token_serves_those_who_have_it_alone() {
        let (copies, unit) = (CopyManager::new([1; 32]), unit("a"));
        let token = token(&copies, &unit, 0..512, "i");
        let lease = copies.look_up(&token, Duration::ZERO).ok().unwrap();
        lease.delete();
        assert!(!lease.rod.is_cancelled());
        assert_eq!(code(copies.look_up(&token, Duration::ZERO)), asc::TOKEN_DELETED);
    }

    #[test]
    fn who_has_most_tokens_loses_the_oldest_when_there_are_too_many() {
        let (copies, unit) = (CopyManager::new([1; 32]), unit("a"));
        let modest = token(&copies, &unit, 0..512, "modest");
        let greedy: Vec<_> = (1..MOST).map(|_| token(&copies, &unit, 0..512, "greedy")).collect();
        let used = copies.look_up(&greedy[0], Duration::ZERO).ok().unwrap();
        token(&copies, &unit, 0..512, "greedy");
        assert!(copies.look_up(&modest, Duration::ZERO).is_ok());
        assert!(copies.look_up(&greedy[0], Duration::ZERO).is_ok(), "it is in use");
        assert_eq!(code(copies.look_up(&greedy[1], Duration::ZERO)), asc::TOKEN_UNKNOWN);
        assert_eq!(copies.table().entries.len(), MOST);
        drop(used);
    }
}
