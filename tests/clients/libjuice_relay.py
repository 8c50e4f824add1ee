"""Two WebRTC agents of libdatachannel (ICE by libjuice) talk through a relay, and hide their user's name from it.

usage: libjuice_relay.py HOST PORT USERNAME PASSWORD
Exits 0 when a data channel that only relayed candidates can carry has echoed every message, and every signed request
had USERHASH and no USERNAME (RFC 8489, 14.4). libjuice reads PASSWORD-ALGORITHMS in requests only, so as a client it
stays with MD5; sha256_relay.py does not.
"""

import os
import queue
import socket
import sys
import threading

import pylibdatachannel as rtc

MESSAGES = 100
SECONDS = 20
USERNAME, INTEGRITY, USERHASH = 0x0006, 0x0008, 0x001E


def attributes(message):
    """Which attributes a STUN message has (RFC 8489, 5)."""
    found, at = set(), 20
    while at + 4 <= len(message):
        kind, length = int.from_bytes(message[at : at + 2], "big"), int.from_bytes(message[at + 2 : at + 4], "big")
        found.add(kind)
        at += 4 + (length + 3) // 4 * 4
    return found


class Wire:
    """Passes datagrams on between clients and the relay, and reads along."""

    def __init__(self, relay):
        self.relay, self.ways, self.signed = relay, {}, []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.up, daemon=True).start()

    def up(self):
        while True:
            datagram, client = self.socket.recvfrom(65535)
            if client not in self.ways:
                way = self.ways[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                way.connect(self.relay)
                threading.Thread(target=self.down, args=(way, client), daemon=True).start()
            self.read(datagram)
            self.ways[client].send(datagram)

    def down(self, way, client):
        while True:
            self.socket.sendto(way.recv(65535), client)

    def read(self, datagram):
        is_request = len(datagram) >= 20 and datagram[4:8] == b"\x21\x12\xa4\x42" and datagram[0] & 0xC1 == 0
        if is_request and datagram[1] & 0x10 == 0:
            found = attributes(datagram)
            if INTEGRITY in found:
                self.signed.append(found)


def agent(port, username, password):
    server = rtc.IceServer("127.0.0.1", port, username, password, rtc.IceServerRelayType.TURN_UDP)
    return rtc.PeerConnection(rtc.Configuration([server]))


def echo(port, username, password):
    """Messages that came back. What the library's threads tell is done by this one: they hold locks meanwhile."""
    caller, callee = agent(port, username, password), agent(port, username, password)
    events, returned, kept = queue.Queue(), [], []

    def hear(connection, candidate):
        if " typ relay" in candidate.candidate:
            connection.add_remote_candidate(candidate)

    def tell(one, other):
        one.on_local_description(lambda d: events.put(lambda: other.set_remote_description(d)))
        one.on_local_candidate(lambda c: events.put(lambda: hear(other, c)))

    def accept(channel):
        kept.append(channel)
        channel.on_message(lambda text: events.put(lambda: channel.send(text)))

    def send_all(channel):
        for number in range(MESSAGES):
            channel.send(f"message {number}")

    tell(caller, callee)
    tell(callee, caller)
    callee.on_data_channel(lambda channel: events.put(lambda: accept(channel)))
    channel = caller.create_data_channel("echo")
    channel.on_open(lambda: events.put(lambda: send_all(channel)))
    channel.on_message(lambda text: events.put(lambda: returned.append(text)))
    try:
        while len(returned) < MESSAGES:
            events.get(timeout=SECONDS)()
    except queue.Empty:
        print(f"nothing more within {SECONDS} s")
    return returned


def run(host, port, username, password):
    wire = Wire((host, port))
    returned = echo(wire.port, username, password)
    hidden = sum(USERHASH in found and USERNAME not in found for found in wire.signed)
    print(f"echoed {len(returned)} of {MESSAGES}, {hidden} of {len(wire.signed)} signed requests hid the name")
    as_sent = returned == [f"message {number}" for number in range(MESSAGES)]
    return as_sent and hidden == len(wire.signed) > 0


if __name__ == "__main__":
    _, host, port, username, password = sys.argv
    passed = run(host, int(port), username, password)
    sys.stdout.flush()
    # The library's threads call back into an interpreter that ends, and abort it.
    os._exit(0 if passed else 1)
