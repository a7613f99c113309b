//! Places for things that come and go, with keys that never name a later tenant.

/// Names one thing for as long as it is there: 31 bits of the place's generation, 32 of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// As a number below 2⁶³.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The key whose number this is.
    pub const fn of(number: u64) -> Self {
        Self(number)
    }
}

struct Place<T> {
    generation: u32,
    tenant: Option<T>,
}

/// All places.
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many are there.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Puts something into a free place.
    pub fn insert(&mut self, tenant: T) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                tenant: None,
            });
            self.places.len() as u32 - 1
        });
        let mut generation = 0;
        if let Some(place) = self.places.get_mut(place as usize) {
            place.tenant = Some(tenant);
            generation = place.generation;
        }
        Key(u64::from(generation) << 32 | u64::from(place))
    }

    /// What the key names, if it is still there.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.0 as u32 as usize)?;
        place
            .tenant
            .as_mut()
            .filter(|_| u64::from(place.generation) == key.0 >> 32)
    }

    /// Takes it out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        let number = key.0 as u32;
        let place = self.places.get_mut(number as usize)?;
        place.generation = place.generation.wrapping_add(1) & 0x7fff_ffff;
        self.free.push(number);
        place.tenant.take()
    }

    /// The keys of all that are there.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let there = (0..).zip(&self.places).filter(|(_, place)| place.tenant.is_some());
        there.map(|(number, place)| Key(u64::from(place.generation) << 32 | number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_nothing_once_its_tenant_has_gone() {
        let mut slab = Slab::new();
        let (first, second) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(first), Some('a'));
        let third = slab.insert('c');
        assert_eq!(slab.len(), 2);
        assert_ne!(first, third);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(Key::of(third.number())), Some(&mut 'c'));
        let keys: Vec<_> = slab.keys().collect();
        assert!(keys.len() == 2 && keys.contains(&second) && keys.contains(&third));
    }
}
