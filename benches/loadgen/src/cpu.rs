//! CPU time of the server, of this process and of everybody else.

use std::fs;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Keeps this process on one core.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| format!("--cpu {core}: the kernel refuses this core: {errno}"))
}

/// The CPU clock of a process: all threads, the ended ones too, user and system time, to the nanosecond.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuClock(ClockId);

impl CpuClock {
    /// The clock of the process `pid`.
    pub(crate) fn of(pid: i32) -> Result<Self, String> {
        clock_getcpuclockid(Pid::from_raw(pid))
            .map(Self)
            .map_err(|errno| format!("--server-pid {pid}: no CPU time can be read: {errno}"))
    }

    /// Nanoseconds so far.
    pub(crate) fn nanos(self) -> Result<u64, String> {
        let time = clock_gettime(self.0).map_err(|errno| match errno {
            Errno::EINVAL => "the server ended during the measurement".to_owned(),
            other => format!("the server's CPU time cannot be read: {other}"),
        })?;
        Ok(nanos_of(time.tv_sec(), time.tv_nsec()))
    }
}

/// CPU nanoseconds of this process so far.
pub(crate) fn own_nanos() -> u64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(0, |time| nanos_of(time.tv_sec(), time.tv_nsec()))
}

/// Nanoseconds that all cores of the machine spent on anything, interrupts and stolen time included.
///
/// The kernel keeps idle time exactly (the rest of /proc/stat is sampled by the tick), so busy is what is not idle;
/// `wall_nanos` is the caller's monotonic clock.
pub(crate) fn busy_nanos(wall_nanos: u64) -> Result<i128, String> {
    let text = fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
    let (cores, idle_ticks) = idle_of(&text).ok_or("/proc/stat: no idle column")?;
    Ok(i128::from(wall_nanos) * i128::from(cores) - i128::from(idle_ticks) * NANOS_PER_TICK)
}

/// Packets that the kernel dropped at sockets of this UDP port.
pub(crate) fn socket_drops(is_ipv4: bool, port: u16) -> u64 {
    let table = if is_ipv4 { "/proc/self/net/udp" } else { "/proc/self/net/udp6" };
    fs::read_to_string(table).map_or(0, |text| drops_of(&text, port))
}

/// USER_HZ is 100 on every architecture that this runs on.
const NANOS_PER_TICK: i128 = 10_000_000;

fn nanos_of(seconds: i64, nanos: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanos).unwrap_or(0)
}

/// Number of cores, and their idle and iowait ticks.
fn idle_of(stat: &str) -> Option<(u32, u64)> {
    let mut cores = 0;
    let mut ticks = 0;
    for line in stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")) {
        let mut columns = line.split_ascii_whitespace().skip(4);
        ticks += columns.next()?.parse::<u64>().ok()?;
        ticks += columns.next()?.parse::<u64>().ok()?;
        cores += 1;
    }
    (cores > 0).then_some((cores, ticks))
}

fn drops_of(table: &str, port: u16) -> u64 {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter(|line| line.split_ascii_whitespace().nth(1).is_some_and(|local| local.ends_with(&suffix)))
        .filter_map(|line| line.split_ascii_whitespace().last()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_summed_over_cores_without_the_total() {
        let stat = "cpu  10 0 10 300 30 0 0 0 0 0\ncpu0 5 0 5 100 10 0 0 0 0 0\ncpu1 5 0 5 200 20 0 0 0 0 0\nintr 5\n";
        assert_eq!(idle_of(stat), Some((2, 330)));
        assert_eq!(idle_of("intr 5\n"), None);
    }

    #[test]
    fn drops_are_those_of_the_port() {
        let table = "  sl  local_address rem_address st drops\n\
                     1: 00000000:0D96 00000000:0000 07 7\n\
                     2: 00000000:0D97 00000000:0000 07 9\n";
        assert_eq!(drops_of(table, 0x0d96), 7);
    }

    #[test]
    fn own_time_passes() {
        let clock = CpuClock::of(i32::try_from(std::process::id()).expect("pid")).expect("clock");
        let before = clock.nanos().expect("nanos");
        let mut sum = 0u64;
        for number in 0..1_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(clock.nanos().expect("nanos") > before);
        assert!(own_nanos() > 0);
    }
}
