//! Records in one growing array, named by `u32` and reused after removal.
//!
//! Invariant: a name is handed out by `add` and read only until `remove`; the index's own links are
//! the only holders of names, and its tests walk them all. So reading a record cannot fail.

use std::mem::size_of;
use std::ops::{Index, IndexMut};

/// The name of no record. Names stay below, since the index bounds its records.
pub(super) const NONE: u32 = u32::MAX;

/// Growing array with a list of free places.
#[derive(Debug)]
pub(super) struct Slab<T> {
    records: Vec<T>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self {
            records: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Records in use.
    pub(super) fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }

    pub(super) fn add(&mut self, record: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self[place] = record;
            return place;
        }
        let place = u32::try_from(self.records.len()).unwrap_or(NONE);
        self.records.push(record);
        place
    }

    /// All records with their places, those of free places among them as they were left.
    pub(super) fn records(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.records)
    }

    /// Frees the place; the record stays there unread until the place is used again.
    pub(super) fn remove(&mut self, place: u32) {
        self.free.push(place);
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        &self.records[place as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.records[place as usize]
    }
}
