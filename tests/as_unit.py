"""Run by `xtask as-unit`: tries what the unit forbids and what the relay needs. Exits with 0 when all is well."""

import ctypes
import errno
import os
import resource
import socket

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
PRIVATE_ANONYMOUS = 0x22
FAILED = ctypes.c_void_p(-1).value


def fails(what, wanted, result, failed):
    assert result == failed, f"{what}: allowed"
    got = ctypes.get_errno()
    assert got == wanted, f"{what}: {errno.errorcode.get(got, got)} in place of {errno.errorcode[wanted]}"


def mmap(protection):
    return libc.mmap(None, ctypes.c_size_t(4096), protection, PRIVATE_ANONYMOUS, -1, ctypes.c_long(0))


status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
for caps in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    assert int(status[caps], 16) == 0, f"{caps} {status[caps]}"
assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
if open("/proc/self/uid_map").read().split()[2] != "1":
    assert os.getuid() != 0 and os.getgid() != 0 and os.getgroups() == [], "still root"
# A machine that allows less keeps its own limits.
for limit, most in ((resource.RLIMIT_MEMLOCK, 512 << 20), (resource.RLIMIT_NOFILE, 32_768)):
    assert 0 <= resource.getrlimit(limit)[1] <= most, resource.getrlimit(limit)
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)

page = mmap(3)
assert page != FAILED
fails("mprotect to executable", errno.EPERM, libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(4096), 5), -1)
fails("writable and executable memory", errno.EPERM, mmap(7), FAILED)
fails("a namespace", errno.EPERM, libc.unshare(0x1000_0000), -1)
fails("a mount", errno.EPERM, libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), -1)
fails("ptrace", errno.EPERM, libc.ptrace(0, 0, None, None), -1)
for family in (socket.AF_PACKET, socket.AF_VSOCK, socket.AF_BLUETOOTH):
    fails(f"a socket of {family.name}", errno.EAFNOSUPPORT, libc.socket(family, socket.SOCK_DGRAM, 0), -1)

for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    socket.socket(family, socket.SOCK_DGRAM).close()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
os.sched_setaffinity(0, os.sched_getaffinity(0))
IO_URING_SETUP = 425
# Neither a size nor parameters: EINVAL or EFAULT says that it was let in.
assert libc.syscall(IO_URING_SETUP, 0, None) == -1 and ctypes.get_errno() in (errno.EINVAL, errno.EFAULT, errno.ENOSYS)
