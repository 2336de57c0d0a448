//! Initiator task tags: a bounded table from a tag to what waits for an answer under it.
//!
//! A tag carries the slot's index in its low and the slot's generation in its high 16 bits, so that an answer to a
//! task that is gone finds nothing. [`RESERVED_TAG`](wire::RESERVED_TAG) is never given out.

/// The most entries that a table can have.
pub const MAX_ENTRIES: usize = 0xffff;

struct Slot<E> {
    generation: u16,
    entry: Option<E>,
}

/// The table. All memory is taken at construction.
pub struct Tags<E> {
    slots: Vec<Slot<E>>,
    free: Vec<u16>,
}

impl<E> Tags<E> {
    /// A table for `capacity` entries, at most [`MAX_ENTRIES`].
    pub fn new(capacity: usize) -> Tags<E> {
        let capacity = capacity.min(MAX_ENTRIES);
        Tags {
            slots: (0..capacity).map(|_| Slot { generation: 0, entry: None }).collect(),
            free: (0..capacity as u16).rev().collect(),
        }
    }

    /// True when no entry can be added.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Adds what `entry` makes of its tag; `None` when the table is full.
    pub fn insert(&mut self, entry: E) -> Option<u32> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[usize::from(index)];
        slot.entry = Some(entry);
        Some(tag(index, slot.generation))
    }

    fn slot(&self, tag: u32) -> Option<&Slot<E>> {
        self.slots.get((tag & 0xffff) as usize).filter(|slot| u32::from(slot.generation) == tag >> 16)
    }

    fn slot_mut(&mut self, tag: u32) -> Option<&mut Slot<E>> {
        self.slots.get_mut((tag & 0xffff) as usize).filter(|slot| u32::from(slot.generation) == tag >> 16)
    }

    /// The entry of a tag.
    pub fn get(&self, tag: u32) -> Option<&E> {
        self.slot(tag)?.entry.as_ref()
    }

    /// The entry of a tag.
    pub fn get_mut(&mut self, tag: u32) -> Option<&mut E> {
        self.slot_mut(tag)?.entry.as_mut()
    }

    /// Takes an entry out; its tag is dead from now on.
    pub fn remove(&mut self, tag: u32) -> Option<E> {
        let slot = self.slot_mut(tag)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push((tag & 0xffff) as u16);
        Some(entry)
    }

    /// All tags with their entries.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &E)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| slot.entry.as_ref().map(|entry| (tag(index as u16, slot.generation), entry)))
    }
}

/// The index never reaches FFFFh, so no tag is the reserved one.
fn tag(index: u16, generation: u16) -> u32 {
    u32::from(generation) << 16 | u32::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_of_a_finished_task_finds_nothing() {
        let mut tags = Tags::new(1);
        let first = tags.insert("first").unwrap();
        assert_eq!(tags.remove(first), Some("first"));
        let second = tags.insert("second").unwrap();
        assert_ne!(first, second);
        assert_eq!(tags.get(first), None);
        assert_eq!(tags.remove(first), None);
        assert_eq!(tags.get(second), Some(&"second"));
    }

    #[test]
    fn the_table_is_bounded_and_never_gives_out_the_reserved_tag() {
        let mut tags = Tags::new(usize::MAX);
        let mut count = 0;
        while let Some(tag) = tags.insert(()) {
            assert_ne!(tag, wire::RESERVED_TAG);
            count += 1;
        }
        assert_eq!(count, MAX_ENTRIES);
        assert!(tags.is_full());
    }
}
