//! Nothing is allocated per packet: a driver that is warm relays without the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::UdpSocket;
use std::time::Duration;

use sluice_base::io::{Event, Io, OpenSpec, SendOptions, Slot, SocketRole};
use sluice_net::{Epoll, EpollOptions, Packet, RingBuilder, RingOptions, probe};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_ring_relays_without_the_allocator() {
    let options = RingOptions { sockets_max: 16, slots: 256, wait_budget: Duration::ZERO };
    relay(&mut RingBuilder::new(&options, &probe(&[]).unwrap()).unwrap().enable().unwrap());
}

#[test]
fn epoll_relays_without_the_allocator() {
    let options = EpollOptions { sockets_max: 16, slots: 256, udp_gro: true, udp_segment: true };
    relay(&mut Epoll::new(&options).unwrap());
}

fn relay(io: &mut impl Io<Slot = Packet>) {
    let local = "127.0.0.1:0".parse().unwrap();
    let spec = OpenSpec { local, role: SocketRole::Relay, receive_buffer_bytes: 0, send_buffer_bytes: 0 };
    let sockets: Vec<_> = (0..16).map(|_| io.open(&spec).unwrap()).collect();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut batch = Vec::with_capacity(64);
    let mut relayed = 0_u64;
    let mut before = 0;
    for round in 0..2000 {
        if round == 1000 {
            before = ALLOCATIONS.get();
            relayed = 0;
        }
        for opened in &sockets {
            peer.send_to(&[7; 172], opened.local).unwrap();
        }
        for _ in 0..8 {
            peer.send_to(&[8; 100], sockets[0].local).unwrap();
        }
        let until = io.now().mono.after(Duration::from_millis(5));
        io.wait(until, &mut batch).unwrap();
        for event in batch.drain(..) {
            if let Event::Datagram { socket, from, mut slot } = event {
                slot.frame(4, 0).unwrap().fill(1);
                io.send(socket, from, slot, SendOptions { dont_fragment: relayed.is_multiple_of(100) });
                relayed += 1;
            }
        }
        std::hint::black_box(io.stats());
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(relayed > 10_000, "{relayed}");
}
