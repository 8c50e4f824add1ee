"""A TURN client that speaks what RFC 8489 added only: SHA-256 in place of MD5 and SHA-1, USERHASH in place of a name.

usage: sha256_relay.py HOST PORT USERNAME PASSWORD PEER_HOST PEER_PORT
Made from the RFC and its test vector, with nothing of the relay's own code. Prints one line per question; exits 0 when
every answer was the RFC's, signed answers were signed with SHA-256, and the peer has echoed every packet.
"""

import base64
import hashlib
import hmac
import os
import socket
import sys

MAGIC = bytes.fromhex("2112a442")
ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND = 0x003, 0x004, 0x008, 0x009
ERROR_CODE, CHANNEL_NUMBER, LIFETIME, XOR_PEER_ADDRESS = 0x0009, 0x000C, 0x000D, 0x0012
REALM, NONCE, XOR_RELAYED_ADDRESS, REQUESTED_TRANSPORT = 0x0014, 0x0015, 0x0016, 0x0019
INTEGRITY, INTEGRITY_SHA256, ALGORITHM, USERHASH, ALGORITHMS = 0x0008, 0x001C, 0x001D, 0x001E, 0x8002
MD5, SHA256 = bytes.fromhex("00010000"), bytes.fromhex("00020000")
CHANNEL = 0x4000
PACKETS = 100
SECONDS = 1.0
ATTEMPTS = 5

# RFC 8489, appendix B.1, with erratum 6268.
VECTOR = bytes.fromhex(
    "00010090 2112a442 78ad3433c6ad72c029da412e"
    "001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704"
    "00150029 6f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c39465354767936347341000000"
    "0014000b 6578616d706c652e6f726700"
    "001d0004 00020000"
    "001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
)


def userhash(name, realm):
    return hashlib.sha256(f"{name}:{realm}".encode()).digest()


def long_term_key(name, realm, password, digest="sha256"):
    return hashlib.new(digest, f"{name}:{realm}:{password}".encode()).digest()


def attribute(kind, value):
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)


def message(method, transaction, attributes):
    """A request. No method here needs more than the lowest four bits (RFC 8489, 5)."""
    body = b"".join(attribute(kind, value) for kind, value in attributes)
    return method.to_bytes(2, "big") + len(body).to_bytes(2, "big") + MAGIC + transaction + body


def with_length(text, length):
    return text[:2] + length.to_bytes(2, "big") + text[4:]


def signed(text, key, tag_bytes=32):
    """The message with MESSAGE-INTEGRITY-SHA256, which covers its own end in the length (RFC 8489, 14.6)."""
    text = with_length(text, len(text) - 20 + 4 + tag_bytes)
    return text + attribute(INTEGRITY_SHA256, hmac.digest(key, text, "sha256")[:tag_bytes])


def attributes_of(text):
    """Number, value and place of each attribute."""
    found, at = [], 20
    while at < len(text):
        kind, length = int.from_bytes(text[at : at + 2], "big"), int.from_bytes(text[at + 2 : at + 4], "big")
        found.append((kind, text[at + 4 : at + 4 + length], at))
        at += 4 + (length + 3) // 4 * 4
    return found


def is_signed(text, key):
    """Whether a message has this integrity, and no other."""
    kinds = [kind for kind, _, _ in attributes_of(text)]
    for kind, tag, at in attributes_of(text):
        if kind == INTEGRITY_SHA256:
            covered = with_length(text[:at], at - 20 + 4 + len(tag))
            return INTEGRITY not in kinds and hmac.digest(key, covered, "sha256")[: len(tag)] == tag
    return False


def xor_address(host, port):
    """XOR-PEER-ADDRESS of an IPv4 address (RFC 8489, 14.2)."""
    octets = bytes(a ^ b for a, b in zip(socket.inet_aton(host), MAGIC))
    return b"\0\1" + (port ^ 0x2112).to_bytes(2, "big") + octets


def vector_holds():
    """This client's own arithmetic against the RFC's."""
    name, realm, password = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9", "example.org", "TheMatrIX"
    at = len(VECTOR) - 36
    unsigned = with_length(VECTOR[:at], at - 20)
    hashed = dict((kind, value) for kind, value, _ in attributes_of(VECTOR))[USERHASH]
    return userhash(name, realm) == hashed and signed(unsigned, long_term_key(name, realm, password)) == VECTOR


class Client:
    def __init__(self, server, name, password):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(SECONDS)
        self.socket.connect(server)
        self.name, self.password, self.wrong = name, password, []
        self.realm = self.nonce = self.algorithms = b""

    def expect(self, what, expected, got):
        print(f"{what}: {got}, expected {expected}")
        if got != expected:
            self.wrong.append(what)

    def ask(self, text):
        """The answer to a request, which is sent again until there is one."""
        for _ in range(ATTEMPTS):
            self.socket.send(text)
            try:
                while True:
                    answer = self.socket.recv(2048)
                    if answer[8:20] == text[8:20]:
                        return answer
            except TimeoutError:
                continue
        raise SystemExit("the relay does not answer")

    def request(self, method, *attributes, **changed):
        """The code of the answer to a signed request: 200 for a success, which has to be signed as well."""
        answer = self.ask(self.text(method, *attributes, **changed))
        values = dict((kind, value) for kind, value, _ in attributes_of(answer))
        if answer[0] & 0x01 and answer[1] & 0x10:
            error = values[ERROR_CODE]
            return error[2] * 100 + error[3]
        self.answer = values
        return 200 if is_signed(answer, self.key()) else "unsigned"

    def text(self, method, *attributes, algorithms=None, chosen=SHA256, name=None, key=None, nonce=None, tag_bytes=32):
        """A signed request; what is given is changed on the way to the relay, or by whoever is in between."""
        offered = self.algorithms if algorithms is None else algorithms
        fields = [*attributes, (USERHASH, userhash(name or self.name, self.realm.decode()))]
        fields += [(REALM, self.realm), (NONCE, nonce or self.nonce)]
        fields += [(ALGORITHMS, offered)] if offered else []
        fields += [(ALGORITHM, chosen)] if chosen else []
        return signed(message(method, os.urandom(12), fields), key or self.key(), tag_bytes)

    def key(self, digest="sha256"):
        return long_term_key(self.name, self.realm.decode(), self.password, digest)

    def challenge(self):
        """The 401 to an unsigned request, and what its nonce promises (RFC 8489, 9.2 and 18.1)."""
        answer = self.ask(message(ALLOCATE, os.urandom(12), [(REQUESTED_TRANSPORT, b"\x11\0\0\0")]))
        values = dict((kind, value) for kind, value, _ in attributes_of(answer))
        self.realm, self.nonce, self.algorithms = values[REALM], values[NONCE], values[ALGORITHMS]
        self.expect("the nonce has the cookie", b"obMatJos2", self.nonce[:9])
        features = int.from_bytes(base64.b64decode(self.nonce[9:13]), "big")
        self.expect("it promises password algorithms and anonymity", 0b11, features)
        self.expect("SHA-256 is offered before MD5", SHA256 + MD5, self.algorithms)

    def bid_downs(self):
        """What somebody on the way would change to get a weaker key."""
        udp = (REQUESTED_TRANSPORT, b"\x11\0\0\0")
        weak = self.key("md5")
        ask = lambda **changed: self.request(ALLOCATE, udp, **changed)
        self.expect("MD5, the list without SHA-256", 400, ask(algorithms=MD5, chosen=MD5, key=weak))
        self.expect("MD5, the list stripped", 400, ask(algorithms=b"", chosen=MD5, key=weak))
        self.expect("SHA-256, the list stripped", 400, ask(algorithms=b""))
        self.expect("the list, and nothing chosen", 400, ask(chosen=b""))
        self.expect("the list in another order", 400, ask(algorithms=MD5 + SHA256))
        without_features = self.nonce[:9] + b"AAAA" + self.nonce[13:]
        self.expect("a nonce that promises less", 438, ask(nonce=without_features))
        self.expect("MD5's key under SHA-256", 401, ask(key=weak))
        self.expect("the hash of nobody", 401, ask(name="nobody"))

    def relay(self, peer):
        address = (XOR_PEER_ADDRESS, xor_address(*peer))
        number = (CHANNEL_NUMBER, CHANNEL.to_bytes(2, "big") + b"\0\0")
        self.expect("an allocation", 200, self.request(ALLOCATE, (REQUESTED_TRANSPORT, b"\x11\0\0\0")))
        self.expect("with a relayed address", True, XOR_RELAYED_ADDRESS in self.answer)
        self.expect("a permission", 200, self.request(CREATE_PERMISSION, address))
        self.expect("a channel", 200, self.request(CHANNEL_BIND, number, address))
        self.expect(f"{PACKETS} packets echoed", PACKETS, self.echo())
        self.expect("a refresh with half a tag", 200, self.request(REFRESH, (LIFETIME, b"\0\0\2\x58"), tag_bytes=16))
        self.expect("its end", 200, self.request(REFRESH, (LIFETIME, bytes(4))))

    def echo(self):
        """Packets of one channel that came back as they were sent."""
        back = 0
        for number in range(PACKETS):
            data = os.urandom(4 + number)
            packet = CHANNEL.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
            self.socket.send(packet)
            try:
                back += self.socket.recv(2048) == packet
            except TimeoutError:
                pass
        return back


def run(server, name, password, peer):
    if not vector_holds():
        print("this client does not compute what the RFC computes")
        return False
    client = Client(server, name, password)
    client.challenge()
    client.bid_downs()
    client.relay(peer)
    return not client.wrong


if __name__ == "__main__":
    _, host, port, name, password, peer_host, peer_port = sys.argv
    sys.exit(0 if run((host, int(port)), name, password, (peer_host, int(peer_port))) else 1)
