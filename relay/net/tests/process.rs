//! What concerns a whole process: each test runs itself again as a child, in a network namespace or under
//! limits of its own.

use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use sluice_base::io::{Event, Io, OpenSpec, Opened, SendOptions, Slot, SocketRole};
use sluice_base::limits::SLOT_BYTES;
use sluice_base::pii::Pii;
use sluice_base::time::Mono;
use sluice_net::{Epoll, EpollOptions, Packet, Ring, RingBuilder, RingOptions, buffers_granted, os, probe};

const CHILD: &str = "SLUICE_TEST_CHILD";

/// Runs `body` in a child process after `prepare`. Says in the parent whether it went well.
fn in_child(test: &str, prepare: fn() -> std::io::Result<()>, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture"]).env(CHILD, "1");
    // SAFETY: `prepare` only makes system calls.
    unsafe { child.pre_exec(prepare) };
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn answer(result: libc::c_int) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn ring(sockets_max: u32) -> Result<Ring, sluice_base::io::DriverError> {
    RingBuilder::new(&RingOptions { sockets_max, slots: 64, wait_budget: Duration::ZERO }, &probe(&[])?)?.enable()
}

fn open(io: &mut impl Io, local: &str) -> Opened {
    let local = local.parse().unwrap();
    io.open(&OpenSpec { local, role: SocketRole::Relay, receive_buffer_bytes: 0, send_buffer_bytes: 0 }).unwrap()
}

/// A network namespace of its own, where the loopback is up and carries 1400 bytes.
fn small_loopback() -> std::io::Result<()> {
    // SAFETY: a call without pointers; the child has one thread.
    answer(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
    // SAFETY: a call without pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
    answer(socket)?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as _;
    request.ifr_name[1] = b'o' as _;
    request.ifr_ifru.ifru_mtu = 1400;
    // SAFETY: the kernel reads an ifreq.
    answer(unsafe { libc::ioctl(socket, libc::SIOCSIFMTU, &request) })?;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as _;
    // SAFETY: as above.
    answer(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &request) })?;
    // SAFETY: the descriptor is this function's.
    answer(unsafe { libc::close(socket) })
}

fn nothing() -> std::io::Result<()> {
    Ok(())
}

#[test]
fn dont_fragment_is_obeyed_packet_by_packet() {
    in_child("dont_fragment_is_obeyed_packet_by_packet", small_loopback, || {
        fragments(&mut ring(4).unwrap());
        let options = EpollOptions { sockets_max: 4, slots: 64, udp_gro: true, udp_segment: true };
        fragments(&mut Epoll::new(&options).unwrap());
    });
}

fn fragments(io: &mut impl Io<Slot = Packet>) {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let opened = open(io, local);
        let peer = UdpSocket::bind(local).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let to = Pii::new(peer.local_addr().unwrap());
        let failed = io.stats().send_failed;
        // Longer than the loopback carries, with and without leave to fragment; short ones go either way.
        for (len, dont_fragment) in
            [(1500, false), (1500, true), (100, true), (1501, false), (1500, true), (200, false)]
        {
            let mut slot = io.blank().unwrap();
            assert!(len <= SLOT_BYTES);
            slot.set_len(len);
            io.send(opened.socket, to, slot, SendOptions { dont_fragment });
        }
        let mut batch = vec![];
        io.wait(Mono::default(), &mut batch).unwrap();
        let mut bytes = [0; 2048];
        let lens: Vec<_> = (0..4).map(|_| peer.recv(&mut bytes).unwrap()).collect();
        assert_eq!(lens, [1500, 100, 1501, 200], "{local}");
        while io.stats().send_failed < failed + 2 {
            io.wait(Mono::default(), &mut batch).unwrap();
        }
        let stats = io.stats();
        assert_eq!((stats.send_failed, stats.slots_free), (failed + 2, stats.slots));
    }
}

#[test]
fn no_ring_is_made_after_the_last_one() {
    in_child("no_ring_is_made_after_the_last_one", nothing, || {
        let mut io = ring(4).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let before = std::thread::spawn(move || {
            wait.recv().unwrap();
            ring(4).unwrap_err().errno
        });
        os::deny_new_rings().unwrap();
        let error = ring(4).unwrap_err();
        assert_eq!(error.errno, libc::EPERM);
        assert!(error.what.contains("io_uring_disabled") && error.what.contains("seccomp"), "{error}");
        go.send(()).unwrap();
        assert_eq!(before.join().unwrap(), libc::EPERM, "a thread that was there before");
        // The ring that exists works, new sockets included.
        let opened = open(&mut io, "127.0.0.1:0");
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"ping", opened.local).unwrap();
        let mut batch = vec![];
        while batch.is_empty() {
            io.wait(Mono::NEVER, &mut batch).unwrap();
        }
        assert!(matches!(batch[0], Event::Datagram { .. }));
    });
}

#[test]
fn a_table_beyond_the_limit_on_files_is_an_error_in_words() {
    fn few_files() -> std::io::Result<()> {
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: the kernel reads an rlimit.
        answer(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
    }
    in_child("a_table_beyond_the_limit_on_files_is_an_error_in_words", few_files, || {
        let error = ring(1000).unwrap_err();
        assert!(error.what.contains("1000 sockets") && error.what.contains("LimitNOFILE"), "{error}");
        ring(32).unwrap();
    });
}

#[test]
fn sockets_beyond_the_limit_on_files_are_refused() {
    fn few_files() -> std::io::Result<()> {
        let limit = libc::rlimit { rlim_cur: 40, rlim_max: 40 };
        // SAFETY: the kernel reads an rlimit.
        answer(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
    }
    in_child("sockets_beyond_the_limit_on_files_are_refused", few_files, || {
        let local = "127.0.0.1:0".parse().unwrap();
        let spec = OpenSpec { local, role: SocketRole::Relay, receive_buffer_bytes: 0, send_buffer_bytes: 0 };
        let mut io = ring(40).unwrap();
        let mut sockets = vec![];
        let error = loop {
            match io.open(&spec) {
                Ok(opened) => sockets.push(opened.socket),
                Err(error) => break error,
            }
        };
        assert_eq!(error, sluice_base::io::OpenError::NoSockets);
        io.close(sockets.pop().unwrap());
        io.wait(Mono::default(), &mut vec![]).unwrap();
        io.wait(Mono::default(), &mut vec![]).unwrap();
        io.open(&spec).unwrap();
    });
}

#[test]
fn dumps_are_forbidden() {
    in_child("dumps_are_forbidden", nothing, || {
        os::forbid_dumps().unwrap();
        // SAFETY: a call without pointers.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }, 0);
    });
}

#[test]
fn the_size_of_a_buffer_is_told_as_granted() {
    let local = "127.0.0.1:0".parse().unwrap();
    let spec = OpenSpec { local, role: SocketRole::Relay, receive_buffer_bytes: 100_000, send_buffer_bytes: 1 << 30 };
    let granted = buffers_granted(&spec).unwrap();
    assert_eq!(granted.receive_bytes, 100_000);
    assert!(granted.send_bytes < 1 << 30);
}
