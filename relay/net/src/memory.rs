//! Memory for keys: locked, so that it is never swapped, left out of core dumps, and zeros again when a key goes.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_base::memory::{KeyCell, KeyCells};

const KEY_BYTES: usize = size_of::<[u8; 32]>();

/// Bytes of one mapping: a page, with room for 128 keys. Locked memory is a limited thing.
const PAGE_BYTES: usize = 4096;

/// Whoever has locked memory. Cells keep their page alive, and give their place back when they go.
#[derive(Clone, Debug, Default)]
pub struct LockedMemory(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    pages: Vec<Page>,
    free: Vec<NonNull<[u8; KEY_BYTES]>>,
}

/// One mapping.
#[derive(Debug)]
struct Page(NonNull<u8>);

/// One key.
struct Cell {
    key: NonNull<[u8; KEY_BYTES]>,
    home: Arc<Mutex<Pages>>,
}

impl KeyCells for LockedMemory {
    fn cell(&self, bytes: [u8; KEY_BYTES]) -> Result<Box<dyn KeyCell>, io::Error> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = pages.take()?;
        // SAFETY: `key` is a place of a live page that nobody else has: it came off the free list.
        unsafe { key.write(bytes) };
        drop(pages);
        Ok(Box::new(Cell { key, home: self.0.clone() }))
    }
}

impl Pages {
    fn take(&mut self) -> io::Result<NonNull<[u8; KEY_BYTES]>> {
        if self.free.is_empty() {
            let page = Page::new()?;
            // SAFETY: every offset lies within the page's bytes.
            self.free.extend((0..PAGE_BYTES / KEY_BYTES).map(|i| unsafe { page.0.add(i * KEY_BYTES) }.cast()));
            self.pages.push(page);
        }
        self.free.pop().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

// SAFETY: the pointers are into mappings that the pages own and that any thread may touch; who touches which place
// is decided under the lock around this.
unsafe impl Send for Pages {}

impl Page {
    fn new() -> io::Result<Self> {
        // SAFETY: a new anonymous mapping, wherever the kernel likes.
        let start = unsafe {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), PAGE_BYTES, access, kind, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = Page(NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?);
        // SAFETY: the mapping is ours and that long.
        check(unsafe { libc::mlock(start, PAGE_BYTES) })?;
        for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: as above.
            check(unsafe { libc::madvise(start, PAGE_BYTES, advice) })?;
        }
        Ok(page)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: no cell is left, for each keeps the pages alive.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE_BYTES) };
    }
}

impl KeyCell for Cell {
    fn bytes(&self) -> &[u8; KEY_BYTES] {
        // SAFETY: the place is this cell's alone until it is dropped, and was written before the cell was made.
        unsafe { self.key.as_ref() }
    }
}

// SAFETY: a cell's bytes are only read until it is dropped, which takes it as a whole.
unsafe impl Send for Cell {}
// SAFETY: as above.
unsafe impl Sync for Cell {}

impl Drop for Cell {
    fn drop(&mut self) {
        // SAFETY: the place is this cell's; a volatile write is not left out.
        unsafe { self.key.as_ptr().write_volatile([0; KEY_BYTES]) };
        compiler_fence(Ordering::SeqCst);
        self.home.lock().unwrap_or_else(PoisonError::into_inner).free.push(self.key);
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_zeros_when_its_key_has_gone_and_is_used_again() {
        let memory = LockedMemory::default();
        let cells: Vec<_> = (0..200_u8).map(|n| memory.cell([n; 32]).unwrap()).collect();
        assert!(cells.iter().zip(0..).all(|(cell, n)| *cell.bytes() == [n; 32]));
        assert_eq!(memory.0.lock().unwrap().pages.len(), 2);
        drop(cells);
        let pages = memory.0.lock().unwrap();
        assert_eq!(pages.free.len(), 256);
        // SAFETY: nobody has a place any more, and the pages are there.
        assert!(pages.free.iter().all(|key| unsafe { key.read() } == [0; 32]));
    }

    #[test]
    fn keys_are_locked_and_not_dumped() {
        let memory = LockedMemory::default();
        let cell = memory.cell([7; 32]).unwrap();
        let at = cell.bytes().as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let range = |line: &str| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        };
        let ours = |line: &&str| range(line).is_some_and(|(start, end)| (start..end).contains(&at));
        let flags = maps.lines().skip_while(|line| !ours(line)).find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.contains(" lo ") && flags.contains(" dd ") && flags.contains(" dc "), "{flags}");
    }
}
