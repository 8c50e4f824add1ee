//! What else a relay asks of the operating system: cores, limits, addresses, sealing.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sluice_base::time::{Mono, Now};

pub use crate::swap::{has_swap, is_never_swapped};

/// Both clocks, as the drivers read them.
pub fn now() -> Now {
    crate::clock::now()
}

/// Seconds since the Unix epoch, and the clock that nobody sets and that goes on while the machine sleeps.
pub fn moment() -> (u64, Mono) {
    (crate::clock::wall_seconds(), crate::clock::boot())
}

/// Whether what is written at `path` is in memory alone. A tmpfs may be swapped out all the same: see
/// [`is_never_swapped`].
///
/// # Errors
/// The kernel's: nothing is there.
pub fn is_tmpfs(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero bytes are a valid statfs.
    let mut about: libc::statfs = unsafe { zeroed() };
    // SAFETY: the path ends with a zero byte, and the kernel writes a statfs.
    check(unsafe { libc::statfs(path.as_ptr(), &mut about) })?;
    Ok(about.f_type == libc::TMPFS_MAGIC || about.f_type == RAMFS_MAGIC)
}

/// The kernel's number of ramfs (linux/magic.h).
const RAMFS_MAGIC: libc::__fsword_t = 0x8584_58f6;

/// What tells one start of the machine from another; `None` where /proc does not show it (ProcSubset=pid).
pub fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

/// The cores that this process may run on, in ascending order.
///
/// # Errors
/// The kernel's, on machines with more cores than a `cpu_set_t` has bits.
pub fn cores() -> io::Result<Vec<usize>> {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: the kernel writes a set of the size given.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) })?;
    // SAFETY: `core` is below the number of bits of the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Keeps the calling thread on one core.
///
/// # Errors
/// EINVAL when the process may not run there.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: `core` is below the number of bits of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the kernel reads a set of the size given.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })
}

/// Denies io_uring_setup (EPERM) to every thread of the process for good: called when its last ring
/// exists, so that nothing can make one that is not restricted.
///
/// # Errors
/// Seccomp is not to be had.
pub fn deny_new_rings() -> io::Result<()> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let rules = [(libc::SYS_io_uring_setup, vec![])].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}

/// Raises the limit on open files to `wanted` where the hard limit allows; the limit that holds then.
///
/// # Errors
/// The kernel's.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes an rlimit.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    if limit.rlim_cur >= wanted {
        return Ok(limit.rlim_cur);
    }
    // A privileged process may raise the hard limit too.
    let raised = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
    // SAFETY: the kernel reads an rlimit.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
        return Ok(wanted);
    }
    limit.rlim_cur = limit.rlim_max.min(wanted);
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// The addresses of this machine's interfaces that are up, without duplicates.
///
/// # Errors
/// The kernel's.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: the library writes the head of a list, which is freed below.
    check(unsafe { libc::getifaddrs(&mut first) })?;
    let mut addresses = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: `next` is a node of the list that getifaddrs made.
        let node = unsafe { &*next };
        if node.ifa_flags & libc::IFF_UP as u32 != 0 {
            addresses.extend(interface_address(node));
        }
        next = node.ifa_next;
    }
    // SAFETY: the list came from getifaddrs and is not used any more.
    unsafe { libc::freeifaddrs(first) };
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn interface_address(node: &libc::ifaddrs) -> Option<IpAddr> {
    if node.ifa_addr.is_null() {
        return None;
    }
    // SAFETY: the address is not null, and its family says how long it is.
    unsafe {
        match i32::from((*node.ifa_addr).sa_family) {
            libc::AF_INET => {
                let address = &*node.ifa_addr.cast::<libc::sockaddr_in>();
                Some(IpAddr::V4(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes())))
            }
            libc::AF_INET6 => {
                let address = &*node.ifa_addr.cast::<libc::sockaddr_in6>();
                Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

/// No core dump holds what users said, and no other process of the same user attaches.
///
/// # Errors
/// The kernel's.
pub fn forbid_dumps() -> io::Result<()> {
    // SAFETY: a call without pointers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })
}

/// The running kernel's first two numbers; zeros when it does not say.
pub fn kernel_version() -> (u32, u32) {
    // SAFETY: all-zero bytes are a valid utsname.
    let mut name: libc::utsname = unsafe { zeroed() };
    // SAFETY: the kernel writes a utsname.
    if unsafe { libc::uname(&mut name) } != 0 {
        return (0, 0);
    }
    // SAFETY: the kernel ends the text with a zero byte.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) }.to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_answers() {
        assert!(!cores().unwrap().is_empty());
        assert!(local_addresses().unwrap().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(kernel_version() >= (5, 0));
        let limit = raise_open_files(64).unwrap();
        assert!(limit >= 64);
    }

    #[test]
    fn a_file_system_in_memory_is_told_from_others() {
        assert!(is_tmpfs(Path::new("/dev/shm")).unwrap());
        assert!(!is_tmpfs(Path::new("/proc")).unwrap());
        assert!(is_tmpfs(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn what_the_machine_does_not_say_is_none_and_no_error() {
        assert_eq!(boot_id(), boot_id());
    }

    #[test]
    fn a_moment_has_both_clocks() {
        let (now, (wall, boot)) = (now(), moment());
        assert!(wall.abs_diff(now.unix_seconds) <= 1 && boot >= now.mono);
    }

    #[test]
    fn a_thread_stays_where_it_is_pinned() {
        let core = *cores().unwrap().last().unwrap();
        std::thread::spawn(move || {
            pin(core).unwrap();
            assert_eq!(cores().unwrap(), [core]);
        })
        .join()
        .unwrap();
    }
}
