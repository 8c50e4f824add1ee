//! Making a ring: what the kernel can do, what the operator switched off, and the order that seals it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use sluice_base::io::{DriverError, IoStats};
use sluice_base::limits::BURST_SLOTS;
use sluice_base::pii::Pii;
use sluice_base::time::Mono;

use super::buffers::{BURST_TARGET_MIN, Buffers, TARGET_MIN};
use super::guard::Guard;
use super::{Group, Handle, INDEX_LIMIT, Message, NAME_BYTES, Ring, State};
use crate::arena::{Arena, RECEIVE_END};
use crate::inet::{BURST_CONTROL_BYTES, CONTROL_BYTES, Cut, Name};
use crate::os;
use crate::run::Run;
use crate::waker::Bell;

pub(super) const ENTER_GETEVENTS: u32 = 1;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
pub(super) const ENTER_NO_IOWAIT: u32 = 1 << 7;

// Numbers of linux/io_uring.h that the crate keeps to itself.
const REGISTER_FILES_UPDATE: u8 = 6;
const REGISTER_RING_FDS: u8 = 20;
const UNREGISTER_RING_FDS: u8 = 21;

/// Submissions between two calls. Few, since the kernel walks through all of them in turn: they stay in
/// a core's first caches.
const SUBMISSIONS: u32 = 256;

/// Pieces of memory that the sends between two calls are made of.
const PIECES: usize = 1024;

const _: () = assert!(PIECES >= 2 * Run::ROOM);

/// The groups of provided buffers: for packets, and for bursts.
const SINGLE_GROUP: u16 = 0;
const BURST_GROUP: u16 = 1;
const PROBE_GROUP: u16 = 0;

/// Completions between two calls: a burst on many sockets at once.
const COMPLETIONS: u32 = 4096;

/// What `io.disable` can switch off, each with what then happens.
pub const FEATURES: &[(&str, &str)] = &[
    ("op_send_addr", "IORING_OP_SEND with an address (Linux 6.1); without it IORING_OP_SENDMSG"),
    ("defer_taskrun", "IORING_SETUP_DEFER_TASKRUN (Linux 6.1); without it IORING_SETUP_COOP_TASKRUN"),
    ("direct_descriptors", "a registered table of files; without it plain descriptors"),
    ("registered_ring", "the ring's own descriptor registered (Linux 5.18); without it a plain one"),
    ("no_sqarray", "IORING_SETUP_NO_SQARRAY (Linux 6.6); without it one indirection per submission"),
    (
        "no_iowait",
        "IORING_ENTER_NO_IOWAIT (Linux 6.15); without it a worker that waits for packets counts as one that waits for \
         a disk (iowait, /proc/pressure/io)",
    ),
    ("udp_gro", "UDP_GRO: a burst is received as one datagram; without it packet by packet"),
    ("udp_segment", "UDP_SEGMENT: a burst leaves by one send; without it packet by packet"),
    (
        "connected_sockets",
        "a connected socket for the flow of a busy relay socket; without it a route look-up per send",
    ),
];

/// What a ring of this process uses, after a look at the kernel and at `io.disable`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features {
    /// IORING_OP_SEND carries the address.
    pub(super) op_send_addr: bool,
    /// Completions run only in the worker's own call.
    pub(super) defer_taskrun: bool,
    /// Sockets in a registered table.
    pub(super) direct_descriptors: bool,
    /// The ring's descriptor is registered.
    pub(super) registered_ring: bool,
    /// Submissions without an index array.
    pub(super) no_sqarray: bool,
    /// A wait for packets is not one for a disk.
    pub(super) no_iowait: bool,
    /// Bursts are received as such.
    pub(super) udp_gro: bool,
    /// Bursts are sent as such.
    pub(super) udp_segment: bool,
    /// Busy relay sockets have a connected twin.
    pub(super) connected_sockets: bool,
    disabled: Vec<&'static str>,
}

impl Features {
    /// One sentence for the start banner: what is used, what the kernel lacks, what is switched off.
    pub fn describe(&self) -> String {
        let names = |state: bool| {
            let all = FEATURES.iter().map(|(name, _)| *name);
            all.filter(move |name| self.has(name) == state && (state || !self.disabled.contains(name)))
        };
        let list = |names: Vec<&str>| {
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let mut sentence = format!("io_uring with {}", list(names(true).collect()));
        let missing: Vec<_> = names(false).collect();
        if !missing.is_empty() {
            sentence += &format!("; this kernel lacks {}", list(missing));
        }
        if !self.disabled.is_empty() {
            sentence += &format!("; switched off by io.disable: {}", self.disabled.join(", "));
        }
        sentence
    }

    /// Whether this kernel has timers that go on firing (IORING_TIMEOUT_MULTISHOT, Linux 6.4).
    pub fn can_wait_longer(&self) -> bool {
        os::kernel_version() >= (6, 4)
    }

    fn has(&self, name: &str) -> bool {
        match name {
            "op_send_addr" => self.op_send_addr,
            "defer_taskrun" => self.defer_taskrun,
            "direct_descriptors" => self.direct_descriptors,
            "registered_ring" => self.registered_ring,
            "no_iowait" => self.no_iowait,
            "udp_gro" => self.udp_gro,
            "udp_segment" => self.udp_segment,
            "connected_sockets" => self.connected_sockets,
            _ => self.no_sqarray,
        }
    }
}

/// What a ring is made for.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Sockets at most. The table of direct descriptors has this size, and RLIMIT_NOFILE bounds it.
    pub sockets_max: u32,
    /// Packet slots; brought within what `limits` allows.
    pub slots: u32,
    /// How long a busy worker may wait for a second socket to have something; needs
    /// [`Features::can_wait_longer`]. Zero adds no latency.
    pub wait_budget: Duration,
}

/// Looks at what the kernel can do, by doing it over loopback; `disable` names [`FEATURES`] to leave out.
///
/// # Errors
/// A sentence for the operator: io_uring is forbidden, the kernel is too old, memory is short, or a name
/// in `disable` is not one of the features.
pub fn probe(disable: &[String]) -> Result<Features, DriverError> {
    let disabled = disabled(disable)?;
    let on = |name| !disabled.contains(&name);
    let mut features = Features {
        op_send_addr: on("op_send_addr"),
        defer_taskrun: on("defer_taskrun"),
        direct_descriptors: on("direct_descriptors"),
        registered_ring: on("registered_ring"),
        no_sqarray: on("no_sqarray"),
        no_iowait: on("no_iowait"),
        udp_gro: on("udp_gro"),
        udp_segment: on("udp_segment"),
        connected_sockets: on("connected_sockets"),
        disabled,
    };
    let mut ring = first_ring(&mut features)?;
    features.no_iowait &= ring.params().is_feature_no_iowait();
    let buffers = Buffers::new(PROBE_GROUP, 16, TARGET_MIN).map_err(|error| memory_error(&error))?;
    register_buffers(&ring, &buffers)?;
    let seen = exchange(&mut ring, buffers);
    match seen {
        Ok(Exchange { multishot: false, .. }) => Err(too_old(libc::EINVAL)),
        Ok(Exchange { send_address, .. }) => {
            features.op_send_addr &= send_address;
            Ok(features)
        }
        // A machine without loopback: its version has to answer.
        Err(_) if os::kernel_version() >= (6, 1) => Ok(features),
        Err(_) => Err(too_old(libc::EINVAL)),
    }
}

fn disabled(names: &[String]) -> Result<Vec<&'static str>, DriverError> {
    let known = |name: &String| {
        let found = FEATURES.iter().find(|(feature, _)| feature == name);
        found.map(|(feature, _)| *feature).ok_or_else(|| {
            let features: Vec<_> = FEATURES.iter().map(|(feature, _)| *feature).collect();
            let what = format!("io.disable: no feature is called \"{name}\"; there are {}", features.join(", "));
            DriverError { what, errno: libc::EINVAL }
        })
    };
    names.iter().map(known).collect()
}

/// A small ring with all features that the kernel takes; the others are cleared.
fn first_ring(features: &mut Features) -> Result<IoUring, DriverError> {
    loop {
        match builder(features).build(8) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && features.no_sqarray => {
                features.no_sqarray = false;
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && features.defer_taskrun => {
                features.defer_taskrun = false;
            }
            Err(error) => return Err(setup_error(&error)),
        }
    }
}

fn builder(features: &Features) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_submit_all().setup_single_issuer().dontfork();
    if features.defer_taskrun {
        builder.setup_defer_taskrun();
    } else {
        builder.setup_coop_taskrun();
    }
    if features.no_sqarray {
        builder.setup_no_sqarray();
    }
    builder
}

fn register_buffers(ring: &IoUring, buffers: &Buffers) -> Result<(), DriverError> {
    let (address, entries) = buffers.region();
    // SAFETY: the region is a mapping of that many entries, and outlives the ring: it is dropped after it, or
    // leaked.
    let registered = unsafe { ring.submitter().register_buf_ring_with_flags(address, entries, buffers.group(), 0) };
    registered.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOMEM) => memory_error(&error),
        errno => too_old(errno.unwrap_or(0)),
    })
}

struct Exchange {
    multishot: bool,
    send_address: bool,
}

/// Sends a datagram over loopback, from SEND with an address to a multishot RECVMSG.
fn exchange(ring: &mut IoUring, mut buffers: Buffers) -> io::Result<Exchange> {
    const RECEIVE: u64 = 1;
    const SEND: u64 = 2;
    let receiver = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let sender = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let mut arena = Arena::new(16, 0)?;
    if let Some(index) = arena.take_for_receive() {
        buffers.provide(index, arena.address(index), RECEIVE_END as u32);
        buffers.publish();
    }
    let header = receive_header(CONTROL_BYTES);
    let mut name = Name::empty();
    let name_len = name.set(&Pii::new(receiver.local_addr()?));
    let payload = [0_u8; 8];
    let receive = opcode::RecvMsgMulti::new(Fd(receiver.as_raw_fd()), &raw const header, PROBE_GROUP);
    let send = opcode::Send::new(Fd(sender.as_raw_fd()), payload.as_ptr(), payload.len() as u32)
        .flags(libc::MSG_DONTWAIT)
        .dest_addr((&raw const name).cast())
        .dest_addr_len(name_len);
    for entry in [receive.build().user_data(RECEIVE), send.build().user_data(SEND)] {
        // SAFETY: what the entries point to lives until `cancel_all` has returned.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    }
    let second = Timespec::from(Duration::from_secs(1));
    let waited = ring.submitter().submit_with_args(2, &SubmitArgs::new().timespec(&second));
    let mut seen = Exchange { multishot: true, send_address: true };
    for completion in ring.completion() {
        let refused = completion.result() == -libc::EINVAL;
        match completion.user_data() {
            RECEIVE => seen.multishot &= !refused,
            _ => seen.send_address &= !refused,
        }
    }
    if !cancel_all(ring) {
        arena.leak();
        buffers.leak();
    }
    match waited {
        Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error),
        _ => Ok(seen),
    }
}

/// Ends every operation of a ring; false when the kernel does not answer.
fn cancel_all(ring: &mut IoUring) -> bool {
    let cancel = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
    // SAFETY: the entry points to nothing.
    let pushed = unsafe { ring.submission().push(&cancel) }.is_ok();
    let done = pushed && ring.submit_and_wait(1).is_ok();
    ring.completion().for_each(drop);
    done
}

/// The shape of a multishot receive: only the two lengths are read.
fn receive_header(control_bytes: usize) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = NAME_BYTES as u32;
    header.msg_controllen = control_bytes as _;
    header
}

/// A ring that is made, sealed, and not yet enabled: the one state in which it may change threads.
#[derive(Debug)]
pub struct RingBuilder(Ring);

// SAFETY: a ring that is not enabled has no operation in flight and no thread that it belongs to; the
// pointers inside are to memory that it owns.
unsafe impl Send for RingBuilder {}

impl RingBuilder {
    /// Makes a ring: disabled, restricted, with its table and buffers.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn new(options: &RingOptions, features: &Features) -> Result<Self, DriverError> {
        let sockets_max = options.sockets_max.min(INDEX_LIMIT);
        let mut builder = builder(features);
        builder.setup_r_disabled().setup_cqsize(COMPLETIONS);
        let uring = builder.build(SUBMISSIONS).map_err(|error| setup_error(&error))?;
        seal(&uring)?;
        if features.direct_descriptors {
            register_table(&uring, sockets_max)?;
        }
        let long = if features.udp_gro { BURST_SLOTS } else { 0 };
        let arena = Arena::new(options.slots, long).map_err(|error| memory_error(&error))?;
        let single = Group::new(&uring, SINGLE_GROUP, arena.slots(), TARGET_MIN, CONTROL_BYTES, sockets_max)?;
        // A group cannot be without an entry; this one is given none then.
        let long = arena.long_slots().max(1);
        let grouped = Group::new(&uring, BURST_GROUP, long, BURST_TARGET_MIN, BURST_CONTROL_BYTES, long)?;
        let places = uring.params().sq_entries() as usize;
        let enter_flags = if features.no_iowait { ENTER_NO_IOWAIT } else { 0 };
        let handle = Handle { enter_fd: uring.as_raw_fd(), enter_flags, uring };
        let state = State {
            features: features.clone(),
            arena,
            single,
            grouped,
            sockets: Vec::with_capacity(sockets_max as usize),
            free_sockets: Vec::with_capacity(sockets_max as usize),
            sockets_max,
            arming: Vec::with_capacity(sockets_max as usize),
            closing: Vec::new(),
            cancelling: Vec::new(),
            pushed: 0,
            names: vec![Name::empty(); places].into(),
            messages: (0..places).map(|_| Message::empty()).collect(),
            pieces: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES].into(),
            pieces_used: 0,
            run: Run::default(),
            running: Vec::with_capacity(PIECES),
            sending: Vec::with_capacity(PIECES),
            bell: Bell::new().map_err(|error| setup_error(&error))?,
            bell_armed: false,
            timer_at: Mono::NEVER,
            timer: Box::new(Timespec::new()),
            guard: Guard::new(options.wait_budget),
            grouped_sockets: 0,
            relay_spec: None,
            enabled: false,
            failed: None,
            stats: IoStats::default(),
        };
        Ok(RingBuilder(Ring { ring: handle, state }))
    }

    /// Enables the ring on this thread, which thereby becomes the only one that may use it.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn enable(self) -> Result<Ring, DriverError> {
        let mut ring = self.0;
        if ring.state.features.registered_ring {
            register_descriptor(&mut ring.ring);
        }
        let enabled = ring.ring.uring.submitter().register_enable_rings();
        enabled.map_err(|error| setup_error(&error))?;
        ring.state.enabled = true;
        Ok(ring)
    }

    /// A handle by which another thread ends a wait.
    pub fn waker(&self) -> sluice_base::io::Waker {
        self.0.state.bell.waker()
    }
}

impl Message {
    fn empty() -> Self {
        // SAFETY: all-zero bytes are a valid msghdr.
        Message { header: unsafe { std::mem::zeroed() }, cut: Cut::new() }
    }
}

impl Group {
    fn new(
        uring: &IoUring,
        group: u16,
        slots: u32,
        target_min: u32,
        control_bytes: usize,
        starved: u32,
    ) -> Result<Self, DriverError> {
        let buffers = Buffers::new(group, slots, target_min).map_err(|error| memory_error(&error))?;
        register_buffers(uring, &buffers)?;
        let receive = Box::new(receive_header(control_bytes));
        let starved = std::collections::VecDeque::with_capacity(starved as usize);
        Ok(Group { buffers, receive, starved, short: false })
    }
}

/// Only these operations, for the life of the ring: a seccomp filter does not see what a ring does.
fn seal(uring: &IoUring) -> Result<(), DriverError> {
    let operations = [
        opcode::RecvMsgMulti::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::PollAdd::CODE,
        opcode::Timeout::CODE,
        opcode::TimeoutUpdate::CODE,
        opcode::AsyncCancel2::CODE,
    ];
    let flags = Flags::FIXED_FILE | Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
    let mut restrictions: Vec<_> = operations.into_iter().map(Restriction::sqe_op).collect();
    restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
    // Each allocation adds a descriptor; a registered ring is let go when its driver ends.
    restrictions.extend([REGISTER_FILES_UPDATE, UNREGISTER_RING_FDS].map(Restriction::register_op));
    let registered = uring.submitter().register_restrictions(&mut restrictions);
    registered.map_err(|error| setup_error(&error))
}

fn register_table(uring: &IoUring, sockets_max: u32) -> Result<(), DriverError> {
    uring.submitter().register_files_sparse(sockets_max).map_err(|error| match error.raw_os_error() {
        Some(libc::EMFILE) => DriverError {
            what: format!(
                "a table of {sockets_max} sockets exceeds the limit on open files: raise LimitNOFILE \
                 (ulimit -n), or lower the number of allocations"
            ),
            errno: libc::EMFILE,
        },
        _ => setup_error(&error),
    })
}

#[repr(C)]
struct RingDescriptor {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// Saves the kernel a look-up per call; without it everything works alike.
fn register_descriptor(ring: &mut Handle) {
    let fd = ring.uring.as_raw_fd();
    let mut update = RingDescriptor { offset: u32::MAX, reserved: 0, data: fd as u64 };
    if register_one(fd, REGISTER_RING_FDS, &mut update) == 1 {
        ring.enter_fd = update.offset as i32;
        ring.enter_flags |= ENTER_REGISTERED_RING;
    }
}

/// A registered descriptor would keep the ring alive as long as its thread.
pub(super) fn unregister_descriptor(ring: &Handle) {
    if ring.enter_flags & ENTER_REGISTERED_RING != 0 {
        let mut update = RingDescriptor { offset: ring.enter_fd as u32, reserved: 0, data: 0 };
        register_one(ring.uring.as_raw_fd(), UNREGISTER_RING_FDS, &mut update);
    }
}

fn register_one(fd: i32, operation: u8, update: &mut RingDescriptor) -> i64 {
    // SAFETY: the kernel reads and writes one structure of this layout (io_uring_rsrc_update).
    unsafe { libc::syscall(libc::SYS_io_uring_register, fd, libc::c_uint::from(operation), &raw mut *update, 1) }
}

fn setup_error(error: &io::Error) -> DriverError {
    let errno = error.raw_os_error().unwrap_or(0);
    let what = match errno {
        libc::EPERM | libc::EACCES => {
            "io_uring is forbidden here: the sysctl kernel.io_uring_disabled is not 0, or a seccomp profile \
             denies it (containers do by default). Allow it, or set io = \"epoll\""
        }
        libc::ENOMEM => return memory_error(error),
        libc::ENOSYS | libc::EINVAL => return too_old(errno),
        libc::EMFILE | libc::ENFILE => {
            "no descriptor for a ring: the limit on open files is reached. Raise LimitNOFILE (ulimit -n)"
        }
        _ => "the kernel refused to make a ring. Set io = \"epoll\" to do without",
    };
    DriverError { what: what.into(), errno }
}

fn memory_error(error: &io::Error) -> DriverError {
    let what = "not enough memory for a ring and its slots: raise LimitMEMLOCK (ulimit -l) and the unit's \
                MemoryMax, or lower the number of slots";
    DriverError { what: what.into(), errno: error.raw_os_error().unwrap_or(libc::ENOMEM) }
}

fn too_old(errno: i32) -> DriverError {
    let (major, minor) = os::kernel_version();
    let what = format!(
        "this kernel ({major}.{minor}) has no multishot receive over provided buffers: io_uring needs Linux 6.1 \
         here. Set io = \"epoll\" to do without"
    );
    DriverError { what, errno }
}
