//! The store of one plugin for one tenant: bounded, in memory, and nothing in it lasts for ever.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sluice_base::limits::{
    KV_BYTES_MAX, KV_ENTRIES_MAX, KV_KEY_BYTES_MAX, KV_LIFETIME_MAX, KV_SUBJECTS_MAX, KV_VALUE_BYTES_MAX,
};

use crate::bindings::sluice::policy::kv::KvError;

/// Entries and counters, apart from each other.
#[derive(Debug, Default)]
pub(crate) struct Store {
    entries: HashMap<String, Kept<Vec<u8>>>,
    counters: HashMap<String, Kept<i64>>,
    bytes: usize,
    /// Nothing ends before.
    earliest: Option<Instant>,
}

#[derive(Debug)]
struct Kept<T> {
    value: T,
    until: Instant,
    subjects: Vec<String>,
    bytes: usize,
}

impl<T> Kept<T> {
    fn new(value: T, bytes: usize, until: Instant, subjects: Vec<String>) -> Self {
        let bytes = bytes + subjects.iter().map(String::len).sum::<usize>();
        Kept { value, until, subjects, bytes }
    }
}

impl Store {
    pub(crate) fn get(&self, now: Instant, key: &str) -> Option<Vec<u8>> {
        self.entries.get(key).filter(|kept| now < kept.until).map(|kept| kept.value.clone())
    }

    pub(crate) fn put(
        &mut self,
        now: Instant,
        key: String,
        value: Vec<u8>,
        ttl_seconds: u32,
        subjects: Vec<String>,
    ) -> Result<(), KvError> {
        check(&key, value.len(), &subjects)?;
        let kept = Kept::new(value, 0, until(now, ttl_seconds), subjects);
        let kept = Kept { bytes: kept.bytes + key.len() + kept.value.len(), ..kept };
        self.clear_if_full(now, kept.bytes);
        let former = self.entries.get(&key).map_or(0, |former| former.bytes);
        self.bytes = self.room(kept.bytes, former)?;
        self.ends(kept.until);
        self.entries.insert(key, kept);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &str) {
        let entry = self.entries.remove(key).map_or(0, |kept| kept.bytes);
        let counter = self.counters.remove(key).map_or(0, |kept| kept.bytes);
        self.bytes -= entry + counter;
    }

    /// The new value; a counter that has ended starts again.
    pub(crate) fn increment(
        &mut self,
        now: Instant,
        key: String,
        delta: i64,
        ttl_seconds: u32,
        subjects: Vec<String>,
    ) -> Result<i64, KvError> {
        if let Some(kept) = self.counters.get_mut(&key).filter(|kept| now < kept.until) {
            kept.value = kept.value.saturating_add(delta);
            return Ok(kept.value);
        }
        check(&key, 0, &subjects)?;
        let kept = Kept::new(delta, key.len() + size_of::<i64>(), until(now, ttl_seconds), subjects);
        self.clear_if_full(now, kept.bytes);
        let former = self.counters.get(&key).map_or(0, |former| former.bytes);
        self.bytes = self.room(kept.bytes, former)?;
        self.ends(kept.until);
        self.counters.insert(key, kept);
        Ok(delta)
    }

    /// Deletes all that names this person; how much that was.
    pub(crate) fn erase(&mut self, subject: &str) -> usize {
        let before = self.len();
        self.retain(|subjects, _| subjects.iter().all(|named| named != subject));
        before - self.len()
    }

    /// Deletes all; how much that was.
    pub(crate) fn empty(&mut self) -> usize {
        std::mem::take(self).len()
    }

    /// Deletes what has ended.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if self.earliest.is_some_and(|earliest| earliest <= now) {
            self.retain(|_, until| now < until);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.counters.len()
    }

    fn ends(&mut self, until: Instant) {
        self.earliest = Some(self.earliest.map_or(until, |earliest| earliest.min(until)));
    }

    /// Lets go what has ended, where so many bytes more would be too many.
    fn clear_if_full(&mut self, now: Instant, bytes: usize) {
        if self.room(bytes, 0).is_err() {
            self.retain(|_, until| now < until);
        }
    }

    /// All bytes once there are so many more in place of `former`, if there is room.
    fn room(&self, bytes: usize, former: usize) -> Result<usize, KvError> {
        let all = self.bytes - former + bytes;
        let entries = self.len() + usize::from(former == 0);
        if entries > KV_ENTRIES_MAX || all > KV_BYTES_MAX { Err(KvError::QuotaExceeded) } else { Ok(all) }
    }

    fn retain(&mut self, stays: impl Fn(&[String], Instant) -> bool) {
        self.entries.retain(|_, kept| stays(&kept.subjects, kept.until));
        self.counters.retain(|_, kept| stays(&kept.subjects, kept.until));
        let entries = self.entries.values().map(|kept| kept.bytes).sum::<usize>();
        self.bytes = entries + self.counters.values().map(|kept| kept.bytes).sum::<usize>();
        let ends = self.entries.values().map(|kept| kept.until);
        self.earliest = ends.chain(self.counters.values().map(|kept| kept.until)).min();
    }
}

fn check(key: &str, value_bytes: usize, subjects: &[String]) -> Result<(), KvError> {
    let named = subjects.len() <= KV_SUBJECTS_MAX && subjects.iter().all(|subject| subject.len() <= KV_KEY_BYTES_MAX);
    let fits = key.len() <= KV_KEY_BYTES_MAX && value_bytes <= KV_VALUE_BYTES_MAX && named;
    if fits { Ok(()) } else { Err(KvError::TooLarge) }
}

fn until(now: Instant, ttl_seconds: u32) -> Instant {
    now + Duration::from_secs(u64::from(ttl_seconds)).min(KV_LIFETIME_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Store, now: Instant, key: &str, ttl: u32, subject: &str) -> Result<(), KvError> {
        store.put(now, key.to_owned(), b"value".to_vec(), ttl, vec![subject.to_owned()])
    }

    #[test]
    fn an_entry_ends() {
        let (mut store, now) = (Store::default(), Instant::now());
        put(&mut store, now, "k", 10, "a").unwrap();
        assert!(store.get(now + Duration::from_secs(9), "k").is_some());
        assert!(store.get(now + Duration::from_secs(10), "k").is_none());
        put(&mut store, now, "k", u32::MAX, "a").unwrap();
        assert!(store.get(now + KV_LIFETIME_MAX, "k").is_none());
    }

    #[test]
    fn a_counter_counts_apart_from_entries_until_it_ends() {
        let (mut store, now) = (Store::default(), Instant::now());
        put(&mut store, now, "k", 10, "a").unwrap();
        for expected in [2, 4] {
            assert_eq!(store.increment(now, "k".to_owned(), 2, 10, vec![]).unwrap(), expected);
        }
        assert_eq!(store.increment(now + Duration::from_secs(10), "k".to_owned(), 2, 10, vec![]).unwrap(), 2);
    }

    #[test]
    fn what_has_ended_is_deleted_and_nothing_else() {
        let (mut store, now) = (Store::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        put(&mut store, now, "a", 10, "alice").unwrap();
        put(&mut store, now, "b", 20, "bob").unwrap();
        store.increment(now, "c".to_owned(), 1, 5, vec!["alice".to_owned()]).unwrap();
        let lengths = [4, 5, 10, 19, 20].map(|seconds| {
            store.sweep(after(seconds));
            store.len()
        });
        assert_eq!((lengths, store.bytes), ([3, 2, 1, 1, 0], 0));
    }

    #[test]
    fn erasing_a_person_erases_all_that_names_them() {
        let (mut store, now) = (Store::default(), Instant::now());
        put(&mut store, now, "a", 10, "alice").unwrap();
        put(&mut store, now, "b", 10, "bob").unwrap();
        store.increment(now, "c".to_owned(), 1, 10, vec!["bob".to_owned(), "alice".to_owned()]).unwrap();
        assert_eq!(store.erase("alice"), 2);
        assert!(store.get(now, "b").is_some() && store.get(now, "a").is_none());
        store.delete("b");
        assert_eq!((store.bytes, store.len()), (0, 0));
    }

    #[test]
    fn it_is_bounded_and_what_has_ended_makes_room() {
        let (mut store, now) = (Store::default(), Instant::now());
        for i in 0..KV_ENTRIES_MAX {
            put(&mut store, now, &i.to_string(), 10, "a").unwrap();
        }
        assert!(matches!(put(&mut store, now, "more", 10, "a"), Err(KvError::QuotaExceeded)));
        put(&mut store, now + Duration::from_secs(10), "more", 10, "a").unwrap();
        assert_eq!(store.len(), 1);
        let large = store.put(now, "k".to_owned(), vec![0; KV_VALUE_BYTES_MAX + 1], 1, vec![]);
        assert!(matches!(large, Err(KvError::TooLarge)));
    }
}
