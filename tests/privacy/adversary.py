"""Whoever has a copy of everything, and what they make of it.

Takes copies of the relay's disk as it was on each day, whatever was shipped, and a directory of keys of the day; and a
list of addresses. Says which of them it found in clear in any form, and which it could read by the keys that it found
anywhere, by tenant and day, or as `hold TENANT` where a legal hold keeps them. It shares no code with the relay: what
it knows of formats it reads in docs/records.md.

Commands come on standard input, one a line, and are answered on standard output, one line of JSON each:

    take DIRECTORY    looks at a copy of the disk, or a part of it, and remembers it
    judge DIRECTORY   looks at a directory of keys, and says what can be read with what was ever found
    force DIRECTORY   the same, and believes no header: every key is tried on everything
"""

import argparse
import base64
import binascii
import collections
import datetime
import hashlib
import hmac
import ipaddress
import json
import math
import pathlib
import re
import shutil
import sqlite3
import sys
import tempfile
import urllib.parse

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

COOKIE = bytes.fromhex("2112a442")
PAGE = 4096
# A piece of a file is looked at together with so much of the one before it.
OVERLAP = 512
# So many bytes on either side tell one meeting of an address from the same one in another version of its page.
AROUND = 8
# What of a page was in an earlier version of it already is known by blocks of so many bytes.
BLOCK = 64
MEMORY = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None


class Formats:
    """What docs/records.md says of bytes."""

    def __init__(self, text):
        sealed = self.table(text, "## What is sealed")
        self.magic = self.quoted(sealed[0])
        self.algorithm = int(re.search(r"algorithm: (\d+), AES-256-GCM-SIV", text)[1])
        self.at = {
            "algorithm": self.offset(sealed, "algorithm:"),
            "class": self.offset(sealed, "the number of the class"),
            "length": self.offset(sealed, "n, the bytes of the tenant's name"),
            "day": self.offset(sealed, "the day of the key"),
            "id": self.offset(sealed, "the id of the key"),
            "nonce": self.offset(sealed, "the nonce"),
            "name": self.offset(sealed, "the tenant's name"),
        }
        key = self.table(text, "## Key files")
        self.key_magic = self.quoted(key[0])
        self.key_at = self.offset(key, "the key")
        self.key_bytes = sum(int(row[1]) for row in key)
        derived = {row[0]: row[1].strip("`").encode() for row in self.table(text, "## Keys that are derived")}
        self.seal, self.key_id = derived["sealing"], derived["a key's id"]
        self.index, self.pseudonym = derived["blind indexes"], derived["addresses' pseudonyms"]
        self.class_ip = int(re.search(r"^\| ip \| (\d+) \|", text, re.MULTILINE)[1])
        self.class_hold = int(re.search(r"^\| legal-hold \| (\d+) \|", text, re.MULTILINE)[1])

    @staticmethod
    def table(text, title):
        lines = text.split(title, 1)[1].splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
        rows = []
        for line in lines[start + 1 :]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        return rows

    @staticmethod
    def quoted(row):
        return re.search(r"`(.*)`", row[2])[1].encode()

    @staticmethod
    def offset(rows, meaning):
        return next(int(row[0]) for row in rows if row[2].startswith(meaning))


def derive(key, purpose):
    return hmac.digest(key, purpose, "sha256")


class Sealed:
    """A sealed record as anybody sees it."""

    def __init__(self, formats, data):
        at = formats.at
        end = at["name"] + data[at["length"]]
        self.header, self.text = data[:end], data[end:]
        self.tenant = data[at["name"] : end].decode()
        self.day = int.from_bytes(data[at["day"] : at["id"]])
        self.key_id = data[at["id"] : at["nonce"]]
        self.nonce = data[at["nonce"] : at["name"]]
        of_class, is_known = data[at["class"]], data[at["algorithm"]] == formats.algorithm
        self.is_address = of_class in (formats.class_ip, formats.class_hold) and is_known
        # Whatever a legal hold keeps is of no day.
        self.epoch = f"hold {self.tenant}" if of_class == formats.class_hold else f"{self.tenant} {self.day}"

    def open(self, keys, ids):
        """The plaintext under any of the keys, for any of the records that it may belong to."""
        for key in keys:
            cipher = AESGCMSIV(key)
            for record in ids:
                try:
                    return cipher.decrypt(self.nonce, self.text, self.header + record)
                except InvalidTag:
                    continue
        return None


class Needles:
    """The addresses, in every form that one may take."""

    def __init__(self, lines):
        pairs = [line.split() for line in lines if line.strip()]
        self.ports = {}
        for ip, port in pairs:
            self.ports.setdefault(ipaddress.ip_address(ip), set()).add(int(port))
        v4 = [ip for ip in self.ports if ip.version == 4]
        self.v4 = {ip.packed: ip for ip in v4}
        self.v6 = {ip.packed: ip for ip in self.ports if ip.version == 6}
        self.v6_back = {ip.packed[::-1]: ip for ip in self.v6.values()}
        self.numbers = {int(ip): ip for ip in v4} | {int.from_bytes(ip.packed, "little"): ip for ip in v4}
        self.xored = {bytes(a ^ b for a, b in zip(ip.packed, COOKIE)): ip for ip in v4}
        # Where one may begin; with its bytes the other way round it ends there.
        self.first = self.one_of({ip.packed[0] for ip in v4})
        self.first_xored = self.one_of({packed[0] for packed in self.xored})
        # The chance that the three bytes behind such a one make it an address, of which each has about as many.
        self.three = len(v4) / max(len({ip.packed[0] for ip in v4}), 1) / 2**24
        heads = {ip.packed[:2] for ip in self.v6.values()}
        self.heads = re.compile(b"|".join(re.escape(head) for head in sorted(heads)) or b"(?!)")
        self.tails = re.compile(b"|".join(re.escape(head[::-1]) for head in sorted(heads)) or b"(?!)")

    @staticmethod
    def one_of(values):
        if not values:
            return re.compile(b"(?!)")
        return re.compile(b"[" + b"".join(re.escape(bytes([value])) for value in sorted(values)) + b"]")


# Whatever is written in digits, and looked at more closely.
DIGITS = re.compile(rb"[0-9a-fA-F:.]{7,}")
QUAD = re.compile(rb"\d{1,3}(?:\.\d{1,3}){3}")
NUMBER = re.compile(rb"(?<!\d)\d{8,10}(?!\d)")
NIBBLES = re.compile(rb"(?:[0-9a-fA-F]\.){15,}[0-9a-fA-F]")
HEX = re.compile(rb"[0-9a-fA-F]{8,}")
HEX_APART = re.compile(rb"[0-9a-fA-F]{2}(?:[:\-. ,]+(?:0x)?[0-9a-fA-F]{2}){3,}")
PERCENT = re.compile(rb"[\w.:%\-]{4,}")
WIDE = re.compile(rb"(?:[0-9a-fA-F.:]\x00){7,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/_\-]{6,}")
PSEUDONYM = re.compile(rb"ip-[0-9a-f]{16}")
DATE = re.compile(r"\d{4}-\d\d-\d\d")


class Search:
    """Looks for the addresses in bytes. Four bytes are also met by chance: those are counted, and told when they are
    more than chance explains. Everything longer is a finding.

    The same bytes stand in many versions of a page of a store. So four of them are counted once for the bytes around
    them, otherwise one meeting by chance counts as often as its page is written; and no more is expected of bytes that
    were there before. What is expected are the first bytes that were met, times the chance of the other three: text,
    which has no such bytes, does not hide what is in binary."""

    def __init__(self, needles):
        self.needles = needles
        self.found = {}
        self.chance = collections.defaultdict(set)
        self.expected = collections.Counter()
        self.pseudonyms = set()
        self.runs = set()
        self.blocks = set()

    def look(self, data, where, depth=0):
        self.binary(data, where)
        self.text(data, where)
        if depth < 2:
            for decoded in self.decoded(data):
                self.look(decoded, where, depth + 1)

    def hit(self, ip, form, where):
        self.found.setdefault((str(ip), form), where)

    def binary(self, data, where):
        n = self.needles
        is_new = [self.is_new(data[at : at + BLOCK], self.blocks) for at in range(0, len(data), BLOCK)]
        self.four(data, where, is_new, n.first, n.v4, "bytes", lambda port: port)
        cookie = int.from_bytes(COOKIE[:2])
        self.four(data, where, is_new, n.first_xored, n.xored, "XOR-MAPPED", lambda port: port ^ cookie)
        for match in n.heads.finditer(data):
            at = match.start()
            if ip := n.v6.get(data[at : at + 16]):
                self.hit(ip, "bytes", where)
        for match in n.tails.finditer(data):
            if ip := n.v6_back.get(data[max(match.end() - 16, 0) : match.end()]):
                self.hit(ip, "bytes, little-endian", where)
        at = data.find(COOKIE)
        while at >= 0:
            mask = data[at : at + 16]
            for start in range(at + 16, min(at + 316, len(data) - 15)):
                if ip := n.v6.get(bytes(a ^ b for a, b in zip(data[start : start + 16], mask))):
                    self.hit(ip, "XOR-MAPPED", where)
            at = data.find(COOKIE, at + 1)

    def four(self, data, where, is_new, first, known, form, masked):
        back = form + ", little-endian"
        starts = 0
        for match in first.finditer(data):
            at = match.start()
            starts += is_new[at // BLOCK]
            if ip := known.get(data[at : at + 4]):
                self.maybe(ip, form, where, data, at, masked)
            if at >= 3 and (ip := known.get(data[at - 3 : at + 1][::-1])):
                self.maybe(ip, back, where, data, at - 3, masked)
        self.expected[form] += starts * self.needles.three
        self.expected[back] += starts * self.needles.three

    def maybe(self, ip, form, where, data, at, masked):
        before, after = data[max(at - AROUND, 0) : at], data[at + 4 : at + 4 + AROUND]
        ports = {masked(port) for port in self.needles.ports[ip]}
        beside = {int.from_bytes(part, order) for part in (before[-2:], after[:2]) for order in ("big", "little")}
        if ports & beside:
            self.hit(ip, form + " with its port", where)
        else:
            self.chance[form].add((ip, before, after))

    def text(self, data, where):
        for match in DIGITS.finditer(data):
            digits = match[0]
            if b"." in digits:
                self.dots(digits, where)
            if digits.count(b":") >= 2:
                self.colons(digits.decode().strip("."), where)
            for number in NUMBER.finditer(digits):
                if ip := self.needles.numbers.get(int(number[0])):
                    self.hit(ip, "a number", where)
        self.pseudonyms.update(PSEUDONYM.findall(data))

    def dots(self, text, where):
        n = self.needles
        for match in QUAD.finditer(text):
            numbers = [int(part) for part in match[0].split(b".")]
            if max(numbers) < 256:
                for order, form in ((numbers, "dotted"), (numbers[::-1], "dotted, backwards")):
                    if ip := n.v4.get(bytes(order)):
                        self.hit(ip, form, where)
        for match in NIBBLES.finditer(text):
            digits = match[0].replace(b".", b"")[::-1]
            for start in range(len(digits) - 31):
                if ip := n.v6.get(bytes.fromhex(digits[start : start + 32].decode())):
                    self.hit(ip, "ip6.arpa", where)

    def colons(self, text, where):
        for part in {text, text.rstrip(":"), text.rpartition(":")[0]}:
            try:
                packed = ipaddress.IPv6Address(part).packed
            except ValueError:
                continue
            if ip := self.needles.v6.get(packed):
                self.hit(ip, "with colons", where)
            # v4-mapped, NAT64 and their like; 6to4.
            for inner in (packed[12:], packed[2:6]):
                if (ip := self.needles.v4.get(inner)) and any(packed):
                    self.hit(ip, "inside an IPv6 address", where)

    def decoded(self, data):
        """What is written in digits or letters that stand for bytes."""
        for match in HEX.finditer(data):
            if self.is_new(match[0], self.runs):
                for start in (0, 1):
                    digits = match[0][start:]
                    yield binascii.unhexlify(digits[: len(digits) // 2 * 2])
        for match in HEX_APART.finditer(data):
            yield binascii.unhexlify(re.sub(rb"[:\-. ,]+(?:0x)?", b"", match[0]))
        if b"%" in data:
            for match in PERCENT.finditer(data):
                if b"%" in match[0]:
                    yield urllib.parse.unquote_to_bytes(match[0])
        if b".\0" in data or b":\0" in data:
            for match in WIDE.finditer(data):
                yield match[0][::2]
        for match in BASE64.finditer(data):
            if self.is_new(match[0], self.runs):
                letters = match[0].translate(bytes.maketrans(b"-_", b"+/"))
                for start in range(4):
                    part = letters[start:]
                    part = part[: len(part) - (len(part) % 4 == 1)]
                    yield base64.b64decode(part + b"=" * (-len(part) % 4))

    @staticmethod
    def is_new(part, known):
        if part in known:
            return False
        known.add(part)
        return True

    def more_than_chance(self):
        told = {}
        for form, met in self.chance.items():
            count, expected = len(met), self.expected[form]
            if count > expected + 6 * math.sqrt(expected) + 6:
                told[form] = {"met": count, "expected": round(expected, 1)}
        return told


class Adversary:
    def __init__(self, formats, needles):
        self.formats = formats
        self.needles = needles
        self.search = Search(needles)
        self.pieces = set()
        self.lines = set()
        self.seen_rows = set()
        # Sealed records by nonce, with the ids of the records that they may belong to.
        self.sealed = {}
        self.indexes = set()
        # By the id that they would have; and those that are in the form of a key file.
        self.keys = {}
        self.from_files = set()
        self.bytes = 0

    def take(self, directory):
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            name = str(path.relative_to(directory))
            data = path.read_bytes()
            for piece in self.split(data, name):
                digest = hashlib.blake2b(piece, digest_size=16).digest()
                if digest not in self.pieces:
                    self.pieces.add(digest)
                    self.bytes += len(piece)
                    self.search.look(piece, name)
                    self.keys_in(piece, name)
            if data.startswith(b"SQLite format 3\0"):
                self.rows(path)
            elif not name.endswith(("-wal", "-shm")):
                self.json_lines(data, name)

    @staticmethod
    def split(data, name):
        """Pieces that stay the same from day to day where the file does."""
        if name.endswith("-wal"):
            # A header of 32 bytes; 24 bytes before each page.
            return [data[at + 24 : at + 24 + PAGE] for at in range(32, len(data), PAGE + 24)]
        overlap = 0 if data.startswith(b"SQLite format 3\0") else OVERLAP
        return [data[max(at - overlap, 0) : at + PAGE] for at in range(0, len(data), PAGE)]

    def keys_in(self, data, where):
        """A whole key file anywhere, or a small file that may be a key in any form."""
        at = data.find(self.formats.key_magic)
        while at >= 0:
            start = at + self.formats.key_at
            self.key(data[start : start + 32], where)
            self.from_files.add(data[start : start + 32])
            at = data.find(self.formats.key_magic, at + 1)
        if len(data) < 1024:
            for start in range(len(data) - 31):
                self.key(data[start : start + 32], where)
        for match in re.finditer(rb"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])", data):
            self.key(bytes.fromhex(match[0].decode()), where)
        for match in re.finditer(rb"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=", data):
            self.key(base64.b64decode(match[0]), where)

    def key(self, key, where):
        if len(key) == 32:
            self.keys.setdefault(derive(key, self.formats.key_id)[:8], (key, where))

    def rows(self, path):
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            # Opening changes files; what was given stays as it is.
            for part in path.parent.glob(path.name + "*"):
                shutil.copy(part, folder)
            store = sqlite3.connect(pathlib.Path(folder) / path.name)
            tables = [row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                for row in store.execute(f'SELECT * FROM "{table}"'):
                    if (mark := hash((table, row))) not in self.seen_rows:
                        self.seen_rows.add(mark)
                        self.row(row, path.name)
            store.close()

    def row(self, row, where):
        blobs = [value for value in row if isinstance(value, bytes)]
        sealed = [blob for blob in blobs if blob.startswith(self.formats.magic)]
        self.indexes.update(blob for blob in blobs if len(blob) == 16)
        for blob in blobs:
            if len(blob) == 32:
                self.key(blob, where)
        if sealed:
            numbers = [value.to_bytes(16) for value in row if isinstance(value, int) and value >= 0]
            ids = [blob for blob in blobs if len(blob) == 16] or numbers
            for blob in sealed:
                self.remember(blob, ids)

    def json_lines(self, data, where):
        for line in data.split(b"\n"):
            digest = hashlib.blake2b(line, digest_size=16).digest()
            if not line.startswith(b"{") or digest in self.lines:
                continue
            self.lines.add(digest)
            try:
                record = json.loads(line)
            except ValueError:
                continue
            texts = [value for value in record.values() if isinstance(value, str)]
            ids = [bytes.fromhex(text) for text in texts if re.fullmatch("[0-9a-f]{32}", text)]
            self.indexes.update(ids)
            for text in texts:
                try:
                    blob = base64.b64decode(text, validate=True)
                except ValueError:
                    continue
                if blob.startswith(self.formats.magic):
                    self.remember(blob, ids)

    def remember(self, blob, ids):
        record = Sealed(self.formats, blob)
        if record.is_address:
            _, known = self.sealed.setdefault((record.nonce, record.key_id), (record, set()))
            known.update(ids)

    def judge(self, directory, is_forced=False):
        """What can be read with the keys of this directory and all that were found elsewhere."""
        kept = dict(self.keys), set(self.from_files)
        day_keys = []
        for path in sorted(directory.glob("*")):
            data = path.read_bytes()
            self.keys_in(data, path.name)
            if data.startswith(self.formats.key_magic) and len(data) == self.formats.key_bytes:
                # The key of a hold has an id in place of both.
                date, _, tenant = path.name.removesuffix(".key").partition(".")
                start = self.formats.key_at
                if DATE.fullmatch(date):
                    day_keys.append((tenant, date, data[start : start + 32]))
        recovered, unreadable = {}, collections.Counter()
        # The id in a header is only what the relay says.
        tried = self.from_files if is_forced else ()
        others = [trial for key in tried for trial in (derive(key, self.formats.seal), key)]
        for record, ids in self.sealed.values():
            key = self.keys.get(record.key_id)
            keys = [derive(key[0], self.formats.seal)] if key else others
            epoch = record.epoch
            if text := record.open(keys, ids):
                recovered.setdefault(epoch, set()).update(self.addresses(text))
            else:
                unreadable[epoch] += 1
        for tenant, date, key in day_keys:
            epoch = f"{tenant} {(self.days(date))}"
            recovered.setdefault(epoch, set()).update(self.guessed(key))
        self.keys, self.from_files = kept
        return {
            "recovered": {epoch: len(found) for epoch, found in recovered.items() if found},
            "unreadable": dict(unreadable),
            "in_clear": [[ip, form, where] for (ip, form), where in self.search.found.items()],
            "more_than_chance": self.search.more_than_chance(),
            "bytes": self.bytes,
            "keys": len(self.keys),
        }

    def force(self, directory):
        return self.judge(directory, is_forced=True)

    @staticmethod
    def days(date):
        return (datetime.date.fromisoformat(date) - datetime.date(1970, 1, 1)).days

    def addresses(self, text):
        """The known addresses in a plaintext."""
        search = Search(self.needles)
        search.text(text, "")
        return {ip for ip, _ in search.found}

    def guessed(self, key):
        """Addresses whose index or pseudonym was written down: whoever has the key tries them all."""
        index, pseudonym = derive(key, self.formats.index), derive(key, self.formats.pseudonym)
        for ip in self.needles.ports:
            if hmac.digest(index, ip.packed, "sha256")[:16] in self.indexes:
                yield str(ip)
            elif b"ip-" + hmac.digest(pseudonym, ip.packed, "sha256")[:8].hex().encode() in self.search.pseudonyms:
                yield str(ip)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", type=pathlib.Path, required=True, help="docs/records.md")
    parser.add_argument("--addresses", type=pathlib.Path, required=True, help="lines of an address and a port")
    args = parser.parse_args()
    needles = Needles(args.addresses.read_text().splitlines())
    adversary = Adversary(Formats(args.formats.read_text()), needles)
    for line in sys.stdin:
        command, directory = line.rstrip("\n").split(" ", 1)
        does = {"take": adversary.take, "judge": adversary.judge, "force": adversary.force}[command]
        answer = does(pathlib.Path(directory))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
