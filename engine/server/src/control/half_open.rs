//! Bounds on connections that have not logged in: how many, from one address, for how long. Sans-IO.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

/// A half-open connection.
pub type LoginId = u64;

/// The connections before the end of their login.
///
/// Invariant: never more than `total` in all, and never more than `per_address` of one address.
#[derive(Debug)]
pub struct HalfOpen {
    total: usize,
    per_address: usize,
    next: LoginId,
    of_address: HashMap<IpAddr, VecDeque<LoginId>>,
    all: BTreeMap<LoginId, (IpAddr, Duration)>,
}

impl HalfOpen {
    /// Bounds of at least one.
    pub fn new(total: u32, per_address: u32) -> Self {
        Self {
            total: total.max(1) as usize,
            per_address: per_address.max(1) as usize,
            next: 1,
            of_address: HashMap::new(),
            all: BTreeMap::new(),
        }
    }

    /// A new connection, to be cut at `deadline`. Gives its number, and who has to go for it: with a full bound of its
    /// own address, that address's oldest; with a full bound in all, the oldest of the address that has most.
    pub fn enter(&mut self, address: IpAddr, deadline: Duration) -> (LoginId, Option<LoginId>) {
        let own = self.of_address.get(&address).map_or(0, VecDeque::len);
        let loser = if own >= self.per_address {
            Some(address)
        } else if self.all.len() >= self.total {
            let most = self.of_address.iter().max_by_key(|(_, q)| q.len()).map(|(a, _)| *a);
            most.filter(|a| self.of_address[a].len() > own).or(if own > 0 { Some(address) } else { most })
        } else {
            None
        };
        let evicted = loser.and_then(|address| self.of_address.get(&address)?.front().copied());
        if let Some(id) = evicted {
            self.leave(id);
        }
        let id = self.next;
        self.next += 1;
        self.of_address.entry(address).or_default().push_back(id);
        self.all.insert(id, (address, deadline));
        (id, evicted)
    }

    /// The connection has logged in, or is gone.
    pub fn leave(&mut self, id: LoginId) {
        let Some((address, _)) = self.all.remove(&id) else { return };
        if let Some(queue) = self.of_address.get_mut(&address) {
            if let Some(at) = queue.iter().position(|&other| other == id) {
                queue.remove(at);
            }
            if queue.is_empty() {
                self.of_address.remove(&address);
            }
        }
    }

    /// Gives a connection more time (a discovery session that has logged in).
    pub fn extend(&mut self, id: LoginId, deadline: Duration) {
        if let Some((_, old)) = self.all.get_mut(&id) {
            *old = deadline;
        }
    }

    /// Takes out those whose time is up.
    pub fn overdue(&mut self, now: Duration) -> Vec<LoginId> {
        let late: Vec<LoginId> = self.all.iter().filter(|(_, (_, at))| *at <= now).map(|(id, _)| *id).collect();
        for &id in &late {
            self.leave(id);
        }
        late
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }
    const FAR: Duration = Duration::from_secs(100);

    #[test]
    fn a_full_address_loses_its_own_oldest() {
        let mut half = HalfOpen::new(100, 2);
        let (first, none) = half.enter(ip(1), FAR);
        assert_eq!(none, None);
        half.enter(ip(1), FAR);
        half.enter(ip(2), FAR);
        let (_, evicted) = half.enter(ip(1), FAR);
        assert_eq!(evicted, Some(first));
        assert_eq!(half.len(), 3);
    }

    #[test]
    fn a_full_house_evicts_from_the_address_that_has_most() {
        let mut half = HalfOpen::new(4, 4);
        let (first, _) = half.enter(ip(1), FAR);
        for _ in 0..3 {
            half.enter(ip(1), FAR);
        }
        let (_, evicted) = half.enter(ip(2), FAR);
        assert_eq!(evicted, Some(first), "the flood pays, not the newcomer");
    }

    #[test]
    fn those_whose_time_is_up_are_taken_out() {
        let mut half = HalfOpen::new(4, 4);
        let (a, _) = half.enter(ip(1), Duration::from_secs(1));
        let (b, _) = half.enter(ip(1), Duration::from_secs(1));
        half.extend(b, Duration::from_secs(9));
        assert_eq!(half.overdue(Duration::from_secs(2)), vec![a]);
        assert_eq!(half.len(), 1);
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_comes(steps in proptest::collection::vec((0u8..6, 0u8..4), 1..300)) {
            let mut half = HalfOpen::new(7, 3);
            let mut live: Vec<(LoginId, u8)> = Vec::new();
            for (address, leave) in steps {
                if leave == 0 && !live.is_empty() {
                    let (id, _) = live.remove(0);
                    half.leave(id);
                }
                let (id, evicted) = half.enter(ip(address), FAR);
                if let Some(gone) = evicted {
                    live.retain(|(other, _)| *other != gone);
                }
                live.push((id, address));
                prop_assert_eq!(half.len(), live.len());
                prop_assert!(live.len() <= 7);
                for a in 0..6 {
                    prop_assert!(live.iter().filter(|(_, other)| *other == a).count() <= 3);
                }
            }
        }
    }
}
