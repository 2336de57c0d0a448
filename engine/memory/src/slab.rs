//! A bounded slab with generations.

/// Index and generation of an entry: a stale key finds nothing.
///
/// Packs into a u64 with the generation in the upper half. A generation is never 0, so a packed key is never less
/// than 2^32.
/// The default key names nothing: no slot has generation 0.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Position of the slot.
    pub index: u32,
    /// Tells this holder of the slot from former ones; never 0.
    pub generation: u32,
}

impl Key {
    /// The generation in the upper half, the index in the lower.
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// Undoes [`Key::pack`]. Any number is accepted: one that was never a key finds nothing.
    pub const fn unpack(raw: u64) -> Key {
        Key { index: raw as u32, generation: (raw >> 32) as u32 }
    }
}

/// Marks the end of the list of free slots.
const NONE: u32 = u32::MAX;

enum State<T> {
    Free { next: u32 },
    Taken(T),
}

struct Slot<T> {
    generation: u32,
    state: State<T>,
}

/// At most `capacity` values in stable slots.
///
/// The memory is reserved at construction and never moves; slots are touched only when first used; free slots are
/// reused last in, first out, while they are warm in the cache.
///
/// A key comes round again after its slot was reused 2^32 - 1 times.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    capacity: u32,
    free: u32,
    taken: u32,
}

impl<T> Slab<T> {
    /// A slab for `capacity` values. Reserves address space for all of them.
    ///
    /// # Panics
    /// If `capacity` is `u32::MAX`, or if the memory can't be reserved.
    pub fn with_capacity(capacity: u32) -> Slab<T> {
        assert!(capacity < NONE, "a slab holds less than 2^32 - 1 values");
        Slab { slots: Vec::with_capacity(capacity as usize), capacity, free: NONE, taken: 0 }
    }

    /// Puts a value into a free slot. Gives it back when all `capacity` slots are taken.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.free != NONE {
            let index = self.free;
            let slot = &mut self.slots[index as usize];
            let State::Free { next } = slot.state else { unreachable!("a slot of the free list is taken") };
            self.free = next;
            slot.state = State::Taken(value);
            self.taken += 1;
            return Ok(Key { index, generation: slot.generation });
        }
        if self.slots.len() == self.capacity as usize {
            assert_eq!(self.taken, self.capacity);
            return Err(value);
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot { generation: 1, state: State::Taken(value) });
        self.taken += 1;
        Ok(Key { index, generation: 1 })
    }

    /// The value of a key, unless the key is stale.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot { generation, state: State::Taken(value) }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The value of a key, unless the key is stale.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot { generation, state: State::Taken(value) }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Asks the processor to fetch a slot that is used soon, without waiting for any of it.
    #[inline]
    pub fn fetch(&self, index: u32) {
        if (index as usize) < self.slots.len() {
            let slot = self.slots.as_ptr().wrapping_add(index as usize);
            crate::ahead::fetch_near(slot.addr(), size_of::<Slot<T>>());
        }
    }

    /// By index alone, for keys whose generation was checked in the same turn.
    pub fn at(&self, index: u32) -> Option<&T> {
        match self.slots.get(index as usize) {
            Some(Slot { state: State::Taken(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// By index alone, for keys whose generation was checked in the same turn.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slots.get_mut(index as usize) {
            Some(Slot { state: State::Taken(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// The key of the slot's present holder.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        match self.slots.get(index as usize) {
            Some(Slot { generation, state: State::Taken(_) }) => Some(Key { index, generation: *generation }),
            _ => None,
        }
    }

    /// Takes the value out; the key is stale from now on. None when it was stale already.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation || matches!(slot.state, State::Free { .. }) {
            return None;
        }
        let State::Taken(value) = std::mem::replace(&mut slot.state, State::Free { next: self.free }) else {
            unreachable!("checked above")
        };
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.free = key.index;
        assert!(self.taken > 0);
        self.taken -= 1;
        Some(value)
    }

    /// Values in the slab.
    pub fn len(&self) -> u32 {
        self.taken
    }

    /// No values in the slab.
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Every insert would be refused.
    pub fn is_full(&self) -> bool {
        self.taken == self.capacity
    }

    /// Most values that it holds.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All values in the order of their slots. Costs as much as the most slots that were ever in use.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match &slot.state {
            State::Taken(value) => Some((Key { index: index as u32, generation: slot.generation }, value)),
            State::Free { .. } => None,
        })
    }

    /// All values in the order of their slots. Costs as much as the most slots that were ever in use.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| match &mut slot.state {
            State::Taken(value) => Some((Key { index: index as u32, generation: slot.generation }, value)),
            State::Free { .. } => None,
        })
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn any_index_may_be_fetched() {
        let mut slab = Slab::with_capacity(4);
        slab.fetch(0);
        let key = slab.insert(7).unwrap();
        for index in [0, 1, 4, u32::MAX] {
            slab.fetch(index);
        }
        assert_eq!(slab.get(key), Some(&7));
    }

    #[test]
    fn a_full_slab_gives_the_value_back() {
        let mut slab = Slab::with_capacity(2);
        slab.insert("a").unwrap();
        slab.insert("b").unwrap();
        assert!(slab.is_full());
        assert_eq!(slab.insert("c"), Err("c"));
        assert_eq!(Slab::with_capacity(0).insert("d"), Err("d"));
    }

    #[test]
    fn a_stale_key_finds_nothing_in_a_reused_slot() {
        let mut slab = Slab::with_capacity(1);
        let old = slab.insert(1).unwrap();
        assert_eq!(slab.remove(old), Some(1));
        let new = slab.insert(2).unwrap();
        assert_eq!(old.index, new.index);
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&2));
    }

    #[test]
    fn generations_skip_zero_when_they_wrap() {
        let mut slab = Slab::with_capacity(1);
        let key = slab.insert(1).unwrap();
        slab.slots[0].generation = u32::MAX;
        assert_eq!(slab.get(key), None);
        slab.remove(Key { index: 0, generation: u32::MAX }).unwrap();
        assert_eq!(slab.insert(2).unwrap().generation, 1);
    }

    #[test]
    fn values_never_move() {
        let mut slab = Slab::with_capacity(1000);
        let first = slab.insert(0).unwrap();
        let address = std::ptr::from_ref(slab.get(first).unwrap());
        for n in 1..1000 {
            slab.insert(n).unwrap();
        }
        assert_eq!(address, std::ptr::from_ref(slab.get(first).unwrap()));
    }

    #[test]
    fn the_last_freed_slot_is_used_first() {
        let mut slab = Slab::with_capacity(8);
        let keys: Vec<Key> = (0..4).map(|n| slab.insert(n).unwrap()).collect();
        slab.remove(keys[1]);
        slab.remove(keys[3]);
        assert_eq!(slab.insert(9).unwrap().index, 3);
        assert_eq!(slab.insert(9).unwrap().index, 1);
        assert_eq!(slab.insert(9).unwrap().index, 4);
    }

    #[test]
    fn values_are_dropped_once() {
        let token = std::rc::Rc::new(());
        let mut slab = Slab::with_capacity(4);
        let key = slab.insert(token.clone()).unwrap();
        slab.insert(token.clone()).unwrap();
        drop(slab.remove(key));
        assert_eq!(std::rc::Rc::strong_count(&token), 2);
        drop(slab);
        assert_eq!(std::rc::Rc::strong_count(&token), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn packing_is_lossless(raw: u64) {
            prop_assert_eq!(Key::unpack(raw).pack(), raw);
        }

        #[test]
        fn behaves_as_a_map_of_keys(capacity in 0u32..12, steps in prop::collection::vec((0u8..4, any::<usize>()), 0..200)) {
            let mut slab = Slab::with_capacity(capacity);
            let mut model: HashMap<u64, usize> = HashMap::new();
            let mut known: Vec<Key> = Vec::new();
            for (what, n) in steps {
                if what < 2 {
                    match slab.insert(n) {
                        Ok(key) => {
                            prop_assert!(model.insert(key.pack(), n).is_none());
                            prop_assert_ne!(key.generation, 0);
                            known.push(key);
                        }
                        Err(back) => {
                            prop_assert_eq!(back, n);
                            prop_assert_eq!(model.len() as u32, capacity);
                        }
                    }
                } else if !known.is_empty() {
                    let key = known[n % known.len()];
                    if what == 2 {
                        prop_assert_eq!(slab.remove(key), model.remove(&key.pack()));
                    } else if let Some(value) = slab.get_mut(key) {
                        *value ^= 1;
                        *model.get_mut(&key.pack()).unwrap() ^= 1;
                    }
                }
                for key in &known {
                    prop_assert_eq!(slab.get(*key), model.get(&key.pack()));
                    if model.contains_key(&key.pack()) {
                        prop_assert_eq!(slab.key_at(key.index), Some(*key));
                        prop_assert_eq!(slab.at(key.index), slab.get(*key));
                    }
                }
                prop_assert_eq!(slab.len() as usize, model.len());
                prop_assert_eq!(slab.is_empty(), model.is_empty());
                let listed: HashMap<u64, usize> = slab.iter().map(|(key, value)| (key.pack(), *value)).collect();
                prop_assert_eq!(&listed, &model);
                prop_assert_eq!(slab.iter_mut().count(), model.len());
            }
        }
    }
}
