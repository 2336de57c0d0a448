//! A bounded slab with generations.
// INTERFACE SKETCH

/// Index and generation of an entry: a stale key finds nothing. Packs into a u64 (generation in the upper half).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key { pub index: u32, pub generation: u32 }
impl Key { pub fn pack(self) -> u64 { todo!() } pub fn unpack(raw: u64) -> Key { todo!() } }

/// At most `capacity` values in stable slots. Capacity is reserved at construction; slots are touched only when
/// first used; free slots are reused last in, first out.
pub struct Slab<T> { _t: Vec<T> }
impl<T> Slab<T> {
    pub fn with_capacity(capacity: u32) -> Slab<T> { todo!() }
    pub fn insert(&mut self, value: T) -> Result<Key, T> { todo!() }
    pub fn get(&self, key: Key) -> Option<&T> { todo!() }
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> { todo!() }
    /// By index alone, for keys whose generation was checked in the same turn.
    pub fn at(&self, index: u32) -> Option<&T> { todo!() }
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> { todo!() }
    pub fn key_at(&self, index: u32) -> Option<Key> { todo!() }
    pub fn remove(&mut self, key: Key) -> Option<T> { todo!() }
    pub fn len(&self) -> u32 { todo!() }
    pub fn is_empty(&self) -> bool { todo!() }
    pub fn capacity(&self) -> u32 { todo!() }
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> { std::iter::empty() }
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> { std::iter::empty() }
}
