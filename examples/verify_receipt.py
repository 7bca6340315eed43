#!/usr/bin/env python3
"""Verify a receipt of a Scribe ledger without any Scribe software.

Written from docs/format-proof.md and c2sp.org: signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof, tlog-policy.
Needs Python 3.9 and an Ed25519 (`pip install cryptography`). Exit 0: what was checked holds. Exit 1: a file or argument
is wrong. Exit 3: something does not match. A receipt proves that a version is in the ledger, not that it is the latest.
"""
import argparse, base64, datetime, hashlib, os, re, struct, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

def check(condition, message):
    if not condition:
        raise ValueError(message)  # as bad base64 and bad UTF-8 do

def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def unbase64(text):
    data = base64.b64decode(text, validate=True)
    check(base64.b64encode(data).decode() == text, f"`{text}` is not canonical base64")
    return data

def decimal(text, below=2**64, least=0):
    check(re.fullmatch("0|[1-9][0-9]{0,19}", text) and least <= int(text) < below, f"`{text}` is no number for here")
    return int(text)

def sized(data, width):
    """The bytes behind their length, which is a number of `width` bytes; and what follows."""
    end = width + int.from_bytes(data[:width], "big")
    check(width <= len(data) >= end, "leaf, metadata or extra data is cut short")
    return data[width:end], data[end:]

CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")  # Unicode category Cc
NAME = re.compile("[^\\s+\0-\x1f\x7f-\x9f]+")

def small_order(point, p=2**255 - 19):
    """Whether 8 times the point is nothing, so that anybody can sign for it; such are these y of the curve alone."""
    y, d = int.from_bytes(point, "little") % 2**255, -121665 * pow(121666, -1, p)
    return y * (y * y - 1) * (d * y**4 + 2 * y * y - 1) % p == 0

class Key:
    """A verifier key: <name>+<key id>+<base64 of type and public key>."""
    def __init__(self, text, kind):
        self.name, _, rest = text.partition("+")
        raw = unbase64(rest[9:])
        self.kind, self.public, self.id = kind, raw[1:], sha256(self.name.encode(), b"\n", raw)[:4]
        check(NAME.fullmatch(self.name) and rest[:9] == self.id.hex() + "+", f"name or key id of `{text}` do not fit")
        check(len(raw) == 33 and raw[0] == kind and not small_order(raw[1:]), f"`{text}` is no key of type {kind}")

    def find(self, note):
        """When this key signed: seconds since 1970, 0 if it tells no time, None if it did not. All it made must fit."""
        time = None
        for raw in [raw for name, key_id, raw in note.signatures if (name, key_id) == (self.name, self.id)]:
            time, message = 0, note.text
            if self.kind == 4:
                time, raw = int.from_bytes(raw[:8], "big"), raw[8:]
                message = f"cosignature/v1\ntime {time}\n{note.text}"
            try:
                check(time < 2**63 and not small_order(raw[:32]), f"signature: the one of {self.name} is malformed")
                Ed25519PublicKey.from_public_bytes(self.public).verify(raw, message.encode())
            except InvalidSignature:
                raise ValueError(f"signature: the one of {self.name} does not fit") from None
        return time

class Checkpoint:
    """A signed note about a tree. Nothing in it is true before a trusted key was found under it."""
    def __init__(self, note):
        text, separator, block = note.rpartition("\n\n")  # the last empty line separates
        check(separator and block.endswith("\n") and block.count("\n") <= 128, "a note ends in 1 to 128 signatures")
        check(len(note.encode()) <= 65536 and not re.search("[\0-\x09\x0b-\x1f]", note), "too long, or not plain text")
        self.text, self.signatures = text + "\n", []
        for line in block[:-1].split("\n"):
            name, _, raw = line[2:].partition(" ")
            check(line[:2] == "\u2014 " and NAME.fullmatch(name) and len(unbase64(raw)) > 4, "a bad signature line")
            self.signatures.append((name, unbase64(raw)[:4], unbase64(raw)[4:]))
        lines = text.split("\n")
        check(len(lines) >= 3 and all(lines), "a checkpoint has origin, tree size and root hash, and no empty line")
        self.origin, self.size, self.root = lines[0], decimal(lines[1]), unbase64(lines[2])
        check(len(self.root) == 32 and (self.size or self.root == sha256()), "the root hash is of no tree of this size")

class Policy:
    """Whose signatures are needed. Units are witnesses and groups by name, each a rule over who cosigned."""
    def __init__(self, text):
        self.logs, self.witnesses, self.units, self.quorum, grouped = [], {}, {"none": lambda _: True}, [], ["none"]
        for line in text.split("\n"):
            check(not re.search("[\0-\x08\x0a-\x1f\x7f]", line), "control character")
            word, *args = [item for item in re.split("[ \t]+", line) if item] or ["#"]
            if word == "log" and len(args) in (1, 2):
                self.logs.append(Key(args[0], 1))
            elif word == "witness" and len(args) in (2, 3) and args[0] not in self.units:
                self.witnesses[args[0]] = Key(args[1], 4)
                self.units[args[0]] = lambda signers, name=args[0]: name in signers
            elif word == "group" and len(args) > 2 and args[0] not in self.units and self.units.keys() >= {*args[2:]}:
                need = {"any": 1, "all": len(args) - 2}.get(args[1]) or decimal(args[1], len(args) - 1, 1)
                rules, grouped = [self.units[name] for name in args[2:]], grouped + args[2:]
                self.units[args[0]] = lambda signers, n=need, rules=rules: sum(rule(signers) for rule in rules) >= n
            elif word == "quorum" and len(args) == 1 and args[0] in self.units:
                self.quorum += args
            else:
                check(word.startswith("#"), f"`{line}` is not understood: each name is defined once, before its use")
        known = grouped + [(key.kind, key.public) for key in [*self.logs, *self.witnesses.values()]]
        check(len(self.quorum) == 1 and len(set(known)) == len(known), "one quorum line; no key or member twice")

    def evaluate(self, note):
        """Who cosigned, and when. Raises unless a key that the origin has here signed and the quorum cosigned."""
        logs = [key for key in self.logs if key.name == note.origin]
        check(logs, f"origin: the checkpoint is of `{note.origin}`, which is not trusted")
        check(any([key.find(note) is not None for key in logs]), "signature: there is none by the ledger")
        times = {name: time for name, key in self.witnesses.items() if (time := key.find(note)) is not None}
        check(self.units[self.quorum[0]](times), f"quorum: {self.quorum} is not met, cosigners are {list(times)}")
        return times

def parse_leaf(leaf):
    """The leaf's kind, key, time and commitment; None if it is of a later format."""
    check(0 < len(leaf) <= 16384, "a leaf has at most 16384 bytes")
    if leaf[0] != 1 or leaf[1:2] not in (b"\1", b"\2", b"\3"):
        return None
    key, rest = sized(leaf[56:], 2)
    author, rest = sized(rest, 1)
    body, rest = sized(rest, 2)
    _, kind, subtype, time, position, length, _prev, commitment = struct.unpack(">BBHQHHQ32s", leaf[:56])
    if subtype not in (range(1, 7) if kind == 3 else [0]):
        return None
    check(not rest and position < length and (kind == 3 or key) and len(key) <= 1024 and len(author) <= 64 and
          (commitment == bytes(32) if kind == 3 else not body), "the leaf is malformed")
    return {1: "put", 2: "delete", 3: "system"}[kind], key, time, commitment

def check_metadata(metadata):
    text, rest = sized(metadata, 1)
    names, count, rest = [], rest[:1], rest[1:]
    while len(names) < int.from_bytes(count, "big"):
        name, rest = sized(rest, 1)
        value, rest = sized(rest, 2)
        names, text = names + [name], text + value
    check(len(metadata) <= 8192 and count and len(names) <= 16 and names == sorted(set(names)) and not rest and
          all(re.fullmatch(rb"[a-z0-9._-]+", name) for name in names) and not CONTROL.search(text.decode()),
          "the metadata is malformed")

def check_inclusion(leaf_hash, index, size, proof, root):
    """RFC 9162, 2.1.3.2: the way up from the leaf, beside the way up from the tree's last leaf."""
    check(index < size, f"inclusion: index {index} is outside a tree of {size}")
    at, last, found = index, size - 1, leaf_hash
    for sibling in proof:
        check(last > 0 and len(sibling) == 32, "inclusion: the proof is too long, or has no hashes")
        found = sha256(b"\1", sibling, found) if at % 2 or at == last else sha256(b"\1", found, sibling)
        while at == last and at and not at % 2:  # on these levels the last subtree has no sibling
            at, last = at // 2, last // 2
        at, last = at // 2, last // 2
    check(last == 0 and found == root, "inclusion: the proof does not lead to the root hash of the checkpoint")

def verify(text, policy):
    """All but key and value. Returns index, leaf, what opens its commitment if told, checkpoint, cosigners."""
    match = re.fullmatch("c2sp\\.org/tlog-proof@v1\nextra (.*)\nindex (.*)((?:\n.+){0,64})\n\n((?s:.*))", text)
    check(match and len(text.encode()) <= 131072, "a receipt has the line c2sp.org/tlog-proof@v1, then extra, index, "
          "up to 64 hashes, an empty line, a checkpoint, and at most 131072 bytes")
    extra, index, proof = unbase64(match[1]), decimal(match[2]), [unbase64(line) for line in match[3].split("\n")[1:]]
    check(extra[:1] == b"\1", "the extra data has a version other than 1")
    leaf_bytes, opening = sized(extra[1:], 2)
    leaf = parse_leaf(leaf_bytes)
    if opening:
        metadata, rest = sized(opening[16:], 2)
        check(not rest and (not leaf or leaf[0] != "system"), "there is more in the extra data than belongs there")
        check_metadata(metadata)
    note = Checkpoint(match[4])
    check_inclusion(sha256(b"\0", leaf_bytes), index, note.size, proof, note.root)
    cosigners = policy.evaluate(note)
    check(leaf, "the leaf is included but not understood: it is of a later format")
    return index, leaf, opening, note, cosigners

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    [parser.add_argument(name) for name in ("receipt", "--vkey", "--policy", "--value", "--entry-key")]
    parser.error = lambda message: (print(f"error: {message}", file=sys.stderr), sys.exit(1))
    args = parser.parse_args()
    try:
        read = lambda path: open(path, "rb").read()
        check(bool(args.vkey) != bool(args.policy), "pass --vkey or --policy: what do you trust?")
        receipt, value = read(args.receipt), None if args.value is None else read(args.value)
        policy = Policy(read(args.policy).decode() if args.policy else f"log {args.vkey}\nquorum none\n")
    except (OSError, ValueError) as error:
        parser.error(error)
    try:
        index, (kind, key, time, commitment), opening, note, cosigners = verify(receipt.decode(), policy)
        shown = key.decode() if re.fullmatch(b"[ -~]*", key) else "base64:" + base64.b64encode(key).decode()
        date = datetime.datetime.fromtimestamp(min(time, 2**47) // 1000, datetime.timezone.utc)
        print(f"key    {shown}\nindex  {index}\nkind   {kind}\ntime   {date} ({time} ms since 1970)")
        print(f"ledger {note.origin} (tree size {note.size}; cosigners {cosigners})")
        check(args.entry_key is None or os.fsencode(args.entry_key) == key, "entry key: the receipt is for another key")
        if value is not None:
            check(kind == "put" and opening, f"value: cannot be checked, the receipt is redacted or of a {kind}")
            found = sha256(b"scribe/entry/v1\n", opening, struct.pack(">Q", len(value)), value)
            check(found == commitment, "value: it, the salt or the metadata is not what the leaf commits to")
        print("valid" if value is not None else "valid (existence only: no value was checked)")
    except ValueError as error:
        print(f"error: verification failed: {error}", file=sys.stderr)
        sys.exit(3)

if __name__ == "__main__":
    main()
