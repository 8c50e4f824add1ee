"""Two WebRTC agents of libdatachannel (ICE by libjuice) talk through a relay, and hide their user's name from it.

usage: libjuice_relay.py HOST PORT USERNAME PASSWORD
Exits 0 when a data channel that only relayed candidates can carry has echoed every message, and every signed request
had USERHASH and no USERNAME (RFC 8489, 14.4). libjuice reads PASSWORD-ALGORITHMS in requests only, so as a client it
stays with MD5; sha256_relay.py does not.
"""

import queue
import socket
import sys
import threading

import pylibdatachannel as rtc

MESSAGES = 100
SECONDS = 30
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


class Agent:
    """One end. Candidates that are not relayed are kept from the other."""

    def __init__(self, port, username, password):
        server = rtc.IceServer("127.0.0.1", port, username, password, rtc.IceServerRelayType.TURN_UDP)
        self.connection = rtc.PeerConnection(rtc.Configuration([server]))

    def tell(self, other):
        self.connection.on_local_description(lambda d: other.connection.set_remote_description(d))
        self.connection.on_local_candidate(lambda c: other.hear(c))

    def hear(self, candidate):
        if " typ relay" in candidate.candidate:
            self.connection.add_remote_candidate(candidate)


def echo(port, username, password):
    """Messages that came back."""
    caller, callee = Agent(port, username, password), Agent(port, username, password)
    caller.tell(callee)
    callee.tell(caller)
    back, kept = queue.Queue(), []

    def accept(channel):
        kept.append(channel)
        channel.on_message(lambda text: channel.send(text))

    callee.connection.on_data_channel(accept)
    channel = caller.connection.create_data_channel("echo")
    channel.on_open(lambda: back.put(None))
    channel.on_message(back.put)
    try:
        back.get(timeout=SECONDS)
        for number in range(MESSAGES):
            channel.send(f"message {number}")
        return [back.get(timeout=SECONDS) for _ in range(MESSAGES)]
    except queue.Empty:
        return []


def run(host, port, username, password):
    wire = Wire((host, port))
    returned = echo(wire.port, username, password)
    hidden = sum(USERHASH in found and USERNAME not in found for found in wire.signed)
    print(f"echoed {len(returned)} of {MESSAGES}, {hidden} of {len(wire.signed)} signed requests hid the name")
    as_sent = returned == [f"message {number}" for number in range(MESSAGES)]
    return as_sent and hidden == len(wire.signed) > 0


if __name__ == "__main__":
    _, host, port, username, password = sys.argv
    sys.exit(0 if run(host, int(port), username, password) else 1)
