"""The adversary finds an address in each form that it may take, and none where there is none.

Prints one line per form that it missed; exits 0 when it missed none.
"""

import base64
import ipaddress
import random
import sys
import urllib.parse

import adversary

PORT = 40123
COOKIE = adversary.COOKIE


def mapped(packed, transaction):
    """The value of XOR-MAPPED-ADDRESS."""
    mask = COOKIE + transaction
    port = (PORT ^ 0x2112).to_bytes(2)
    return b"\0" + bytes([1 if len(packed) == 4 else 2]) + port + bytes(a ^ b for a, b in zip(packed, mask))


def forms(ip, chance):
    packed, text = ip.packed, str(ip).encode()
    port = PORT.to_bytes(2)
    transaction = chance.randbytes(12)
    yield "sockaddr", port + packed
    yield "address and port", packed + port
    yield "address and port, little-endian", packed[::-1] + port[::-1]
    yield "text", text
    yield "text in JSON", b'{"client":"' + text + b'","n":1}'
    yield "SDP", b"c=IN IP4 " + text + b"\r\n"
    yield "candidate", b"a=candidate:1 1 UDP 1 " + text + b" 40123 typ host\r\n"
    yield "UTF-16", text.decode().encode("utf-16-le")
    yield "percent-encoded text", urllib.parse.quote(text, safe="").replace(".", "%2E").encode()
    yield "XOR-MAPPED-ADDRESS", COOKIE + transaction + mapped(packed, transaction)
    beside = packed + port
    for name, data in (("binary", beside), ("text", text)):
        yield f"{name} in hexadecimal", b"x" + data.hex().encode() + b"x"
        yield f"{name} in upper-case hexadecimal", b"x" + data.hex().upper().encode() + b"x"
        for apart in ":- .":
            yield f"{name} in hexadecimal apart", data.hex(apart).encode()
        yield f"{name} percent-encoded", b"".join(b"%%%02x" % byte for byte in data)
        for shift in range(3):
            padded = bytes(range(0xF0, 0xF0 + shift)) + data + b"\xfe\xff"
            # Letters before it that are none of it.
            glued = b"key"[shift:]
            yield f"{name} in Base64, alignment {shift}", glued + base64.b64encode(padded)
            yield f"{name} in URL-safe Base64, alignment {shift}", glued + base64.urlsafe_b64encode(padded).rstrip(b"=")
        yield f"{name} in Base64 of hexadecimal", base64.b64encode(data.hex().encode())
    if ip.version == 4:
        yield "with zeros in front", b".".join(b"%03d" % byte for byte in packed)
        yield "in-addr.arpa", b".".join(b"%d" % byte for byte in packed[::-1]) + b".in-addr.arpa"
        yield "a number", b" %d " % int(ip)
        yield "v4-mapped", b"::ffff:" + text
        for prefix in ("::ffff:0:0", "64:ff9b::"):
            inside = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(ip))
            yield f"inside of {prefix}", b"[" + inside.compressed.encode() + b"]:443"
            yield f"inside of {prefix}, in full", inside.exploded.encode()
            yield f"inside of {prefix}, binary", inside.packed + port
    else:
        yield "in full", ip.exploded.encode()
        yield "in capitals", ip.exploded.upper().encode()
        yield "with its port", b"[" + text + b"]:443"
        yield "ip6.arpa", ip.reverse_pointer.encode()
        yield "binary alone", packed
        yield "binary alone, little-endian", packed[::-1]


def missed():
    chance = random.Random(1)
    for address in ("198.18.58.187", "2001:db8:7:9::c5"):
        ip = ipaddress.ip_address(address)
        for name, data in forms(ip, chance):
            search = adversary.Search(adversary.Needles([f"{address} {PORT}"]))
            search.look(chance.randbytes(100) + b"\n" + data + b"\n" + chance.randbytes(100), "here")
            if (address, "here") not in {(found, where) for (found, _), where in search.found.items()}:
                yield f"{address}: {name}: {data}"
    # Four bytes without the port: one may be chance, a dozen are not.
    search = adversary.Search(adversary.Needles([f"198.18.58.187 {PORT}"]))
    for _ in range(12):
        search.look(chance.randbytes(50) + ipaddress.ip_address("198.18.58.187").packed + b"\0\0", "here")
    if not search.more_than_chance():
        yield "four bytes, again and again"
    search = adversary.Search(adversary.Needles([f"198.18.58.187 {PORT}"]))
    page = chance.randbytes(50) + ipaddress.ip_address("198.18.58.187").packed + chance.randbytes(74)
    search.look(page, "here")
    expected = dict(search.expected)
    for version in range(34):
        search.look(page + bytes([version]), "here")
    if search.more_than_chance():
        yield "one meeting by chance, in 34 versions of its page, counts as more"
    if search.expected != expected:
        yield "bytes that were there before add to what is expected"
    search = adversary.Search(adversary.Needles([f"198.18.{n}.187 {PORT}" for n in range(250)] + ["2001:db8::1 1"]))
    for _ in range(500):
        search.look(chance.randbytes(4096), "nowhere")
    if search.found or search.more_than_chance():
        yield f"found in noise: {search.found} {search.more_than_chance()}"


if __name__ == "__main__":
    FAULTS = list(missed())
    print("\n".join(FAULTS))
    sys.exit(bool(FAULTS))
