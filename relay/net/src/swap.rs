//! Whether the kernel may write what is in memory to a swap, where it outlives whatever destroys it in memory.

use std::io;
use std::mem::zeroed;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whether this process's memory may be written to a swap: one is in use, and no control group of the process forbids
/// it (memory.swap.max is 0). `None` where the kernel does not say.
pub fn has_swap() -> Option<bool> {
    Some(is_swap_in_use()? && !is_forbidden())
}

/// Whether what is written at `path` is written to no swap, whatever else is: it is on a ramfs, or on a tmpfs that was
/// mounted with `noswap` (Linux 6.4).
///
/// # Errors
/// The kernel's: nothing is there, or its mounts are not shown.
pub fn is_never_swapped(path: &Path) -> io::Result<bool> {
    let device = std::fs::metadata(path)?.dev();
    Ok(keeps_in_memory(&std::fs::read_to_string("/proc/self/mountinfo")?, libc::major(device), libc::minor(device)))
}

/// Asked by a system call: /proc does not show it to a unit with ProcSubset=pid.
fn is_swap_in_use() -> Option<bool> {
    // SAFETY: all-zero bytes are a valid sysinfo.
    let mut about: libc::sysinfo = unsafe { zeroed() };
    // SAFETY: the kernel writes a sysinfo.
    let is_told = unsafe { libc::sysinfo(&mut about) } == 0;
    is_told.then_some(about.totalswap > 0)
}

/// Whether a control group that this process is in lets nothing of it be written to a swap. What is not shown forbids
/// nothing.
fn is_forbidden() -> bool {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(group) = unified(&groups) else { return false };
    let limit = |group: &Path| {
        let below = group.strip_prefix("/").unwrap_or(group);
        std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(below).join("memory.swap.max"))
    };
    Path::new(group).ancestors().any(|group| limit(group).is_ok_and(|limit| limit.trim() == "0"))
}

/// The process's control group of version 2 (cgroups(7)); none where it is not below what is mounted.
fn unified(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::")).filter(|group| !group.contains(".."))
}

/// Whether a file system, by its numbers and the text of /proc/self/mountinfo (proc_pid_mountinfo(5)), is one that is
/// never swapped.
fn keeps_in_memory(mounts: &str, major: u32, minor: u32) -> bool {
    let device = format!("{major}:{minor}");
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(device.as_str());
    let kept = |line: &str| {
        let mut about = line.split_once(" - ")?.1.split(' ');
        let (kind, options) = (about.next()?, about.nth(1)?);
        Some(kind == "ramfs" || (kind == "tmpfs" && options.split(',').any(|option| option == "noswap")))
    };
    mounts.lines().find(of_device).and_then(kept).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
25 24 0:23 / /dev/shm rw,nosuid shared:2 - tmpfs tmpfs rw,size=24684096k
26 24 0:24 / /run/a\\040b/noswap rw,noswap shared:3 master:4 - tmpfs noswap rw,size=4k,inode64
27 24 0:25 / /run/keys rw,nosuid - tmpfs tmpfs rw,size=4k,noswap,inode64
28 24 0:26 / /run/ram rw - ramfs ramfs rw,mode=700
29 24 0:27 / /run/torn rw,noswap
";

    #[test]
    fn a_ramfs_and_a_tmpfs_that_says_noswap_are_kept_in_memory_and_nothing_else_is() {
        let kept = |minor| keeps_in_memory(MOUNTS, 0, minor);
        assert_eq!([23, 24, 25, 26, 27, 28].map(kept), [false, false, true, true, false, false]);
        assert!(!keeps_in_memory(MOUNTS, 254, 0) && !keeps_in_memory("", 0, 25));
    }

    #[test]
    fn the_control_group_is_that_of_version_2_and_lies_below_what_is_mounted() {
        assert_eq!(unified("9:name=systemd:/a\n4:memory:/b\n0::/c/d\n"), Some("/c/d"));
        assert_eq!(unified("0::/../../other\n"), None);
        assert_eq!(unified("4:memory:/b\n"), None);
    }

    #[test]
    fn this_machine_says_whether_it_has_swap() {
        let is_in_use = is_swap_in_use().unwrap();
        if let Ok(said) = std::fs::read_to_string("/proc/swaps") {
            assert_eq!(is_in_use, said.lines().count() > 1);
        }
        assert_eq!(has_swap(), Some(is_in_use && !is_forbidden()));
        assert!(!is_never_swapped(Path::new("/proc")).unwrap());
        assert!(is_never_swapped(Path::new("/nowhere/at/all")).is_err());
    }
}
