#!/usr/bin/env python3
"""Fresh receipts, right and tampered with, before three verifiers: all must judge alike.

    receipts.py SCRIBE WORK

Takes what grow.py left in WORK, makes changed receipts in WORK/cases, and asks examples/verify_receipt.py (an independent
one) and `scribe verify`. WORK/cases.json then holds the same cases for the web page (interop/browser/check.py). Prints
a line per check; exit 1 at the first verifier that says otherwise.
"""
import base64
import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Somebody's public key: RFC 8032, 7.1, test 1.
STRANGER = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def shown(key):
    """A key as `scribe` shows it."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = None
    plain = text is not None and not text.startswith("base64:") and all(ord(c) >= 32 and not 127 <= ord(c) < 160 for c in text)
    return text if plain else "base64:" + base64.b64encode(key).decode()


def other_character(line, at):
    return line[:at] + ("A" if line[at] != "A" else "B") + line[at + 1:]


def flip(extra, at):
    data = bytearray(base64.b64decode(extra))
    data[at] ^= 1
    return base64.b64encode(bytes(data)).decode()


def verifier_key(name, kind):
    """The stranger's key under this name."""
    raw = bytes([kind]) + STRANGER
    key_id = hashlib.sha256(name.encode() + b"\n" + raw).hexdigest()[:8]
    return f"{name}+{key_id}+{base64.b64encode(raw).decode()}"


def tampered(text, nodes_needed):
    """The receipt with one thing changed each time."""
    lines = text.split("\n")
    blank = lines.index("")
    extra = lines[1].removeprefix("extra ")
    raw = base64.b64decode(extra)

    def changed(line, new):
        return "\n".join(lines[:line] + ([new] if new is not None else []) + lines[line + 1:])

    def signature(line, at):
        dash, name, encoded = lines[line].split(" ")
        return changed(line, f"{dash} {name} {flip(encoded, at)}")

    signatures = [at for at in range(blank + 5, len(lines)) if lines[at]]
    yield "another time in the leaf", changed(1, "extra " + flip(extra, 3 + 11))
    yield "another kind in the leaf", changed(1, "extra " + flip(extra, 3 + 1))
    yield "another byte of the leaf's key", changed(1, "extra " + flip(extra, 3 + 58))
    yield "another commitment", changed(1, "extra " + flip(extra, 3 + 24))
    yield "a cut leaf", changed(1, "extra " + base64.b64encode(raw[:20]).decode())
    yield "bytes after the end", changed(1, "extra " + base64.b64encode(raw + b"\0").decode())
    yield "another index", changed(2, f"index {int(lines[2].removeprefix('index ')) ^ 1}")
    yield "another hash in the proof", changed(3, other_character(lines[3], 20))
    yield "a proof hash less", changed(blank - 1, None)
    yield "a proof hash more", changed(blank - 1, lines[blank - 1] + "\n" + lines[blank - 1])
    yield "another origin", changed(blank + 1, lines[blank + 1] + "x")
    yield "another tree size", changed(blank + 2, str(int(lines[blank + 2]) + 1))
    yield "another root hash", changed(blank + 3, other_character(lines[blank + 3], 10))
    yield "another signature by the ledger", signature(signatures[0], 40)
    yield "no signature by the ledger", changed(signatures[0], None)
    yield "another cosignature", signature(signatures[1], 40)
    yield "another time of a cosignature", signature(signatures[1], 11)
    few = [line for at, line in enumerate(lines) if at not in signatures[nodes_needed:]]
    yield "too few cosignatures", "\n".join(few)
    yield "Windows line ends", text.replace("\n", "\r\n")
    yield "no last line end", text.rstrip("\n")
    yield "an added empty line", text + "\n"


def opening_tampered(text):
    """Changes of salt and metadata: only a value brings them to light."""
    lines = text.split("\n")
    extra = lines[1].removeprefix("extra ")
    leaf_length = int.from_bytes(base64.b64decode(extra)[1:3], "big")
    yield "another salt", "\n".join([lines[0], "extra " + flip(extra, 3 + leaf_length), *lines[2:]])
    yield "a redacted receipt", "\n".join(
        [lines[0], "extra " + base64.b64encode(base64.b64decode(extra)[:3 + leaf_length]).decode(), *lines[2:]])


def build(work):
    """All cases, with files for receipts and values."""
    entries = json.loads((work / "entries.json").read_text())
    policy, vkey = (work / "policy").read_text(), (work / "vkey").read_text().strip()
    # The ledger's signature and a majority of three nodes.
    needed = next(int(line.split()[2]) for line in policy.splitlines() if line.startswith("group "))
    directory = work / "cases"
    directory.mkdir()
    cases = []

    def add(name, receipt, verdict, key, value=None, trust=policy):
        file = directory / f"{len(cases):03}.tlog-proof"
        file.write_bytes(receipt if isinstance(receipt, bytes) else receipt.encode())
        cases.append({"name": name, "receipt": str(file), "trust": trust, "key_base64": base64.b64encode(key).decode(),
                      "key": shown(key), "value": value, "verdict": verdict})

    for number, entry in enumerate(entries):
        key, value = base64.b64decode(entry["key_base64"]), entry.get("value")
        text, name = pathlib.Path(entry["receipt"]).read_text(), f"{shown(key)[:30]}, index {entry['index']}"
        add(name, text, "valid" if value else "exists", key, value)
        add(f"{name}, by the ledger's key alone", text, "valid" if value else "exists", key, value, vkey)
        other = entries[(number + 1) % len(entries)]
        other_key = base64.b64decode(other["key_base64"])
        if other_key != key:
            add(f"{name}: another key", text, "mismatch", other_key, value)
        if value:
            wrong = directory / f"{len(cases):03}.value"
            data = bytearray(pathlib.Path(value).read_bytes() or b"x")
            data[len(data) // 2] ^= 1
            wrong.write_bytes(bytes(data))
            add(f"{name}: another value", text, "mismatch", key, str(wrong))
    full = next(entry for entry in entries if base64.b64decode(entry["key_base64"]).startswith(b"tx/"))
    key, value = base64.b64decode(full["key_base64"]), full["value"]
    text = pathlib.Path(full["receipt"]).read_text()
    for what, changed in tampered(text, needed):
        assert changed != text, what
        # Without a value, so that the receipt alone must give it away.
        add(what, changed, "mismatch", key)
    for what, changed in opening_tampered(text):
        assert changed != text, what
        add(what, changed, "mismatch", key, value)
    # Signed by all who must, for another size.
    head, note = text.split("\n\n", 1)
    older = next(file.read_text() for file in sorted((work / "checkpoints").iterdir())
                 if int(file.read_text().split("\n")[1]) > full["index"])
    if older.split("\n")[1] == note.split("\n")[1]:
        sys.exit("receipts: there is no other checkpoint that covers the entry")
    add("the checkpoint of another size", f"{head}\n\n{older}", "mismatch", key)
    for what, garbage in {"nothing": b"", "no text": bytes(range(256)), "another text": b"hello\n\nworld\n"}.items():
        add(what, garbage, "mismatch", key)
    add("a stranger's key", text, "mismatch", key, value, verifier_key("scribe.invalid/other", 1))
    add("a stranger's key of the ledger's name", text, "mismatch", key, value, verifier_key(vkey.split("+")[0], 1))
    # What the policy asks for, and a witness that did not sign.
    lines = [line for line in policy.splitlines() if not line.startswith("quorum ")]
    group = next(line.split()[1] for line in lines if line.startswith("group "))
    lines += [f"witness absent {verifier_key('witness.invalid', 4)}", f"group both all {group} absent", "quorum both"]
    add("a policy that asks for one more", text, "mismatch", key, value, "\n".join(lines) + "\n")
    return cases


WANTED = {"valid": 0, "exists": 0, "mismatch": 3}


def ask(command, case, work):
    trust = ["--vkey", case["trust"]] if "\n" not in case["trust"] else ["--policy", str(policy_file(case["trust"], work))]
    key = base64.b64decode(case["key_base64"])
    arguments = [case["receipt"], *trust]
    if b"\0" not in key:  # no command line can hold it
        arguments += ["--entry-key", os.fsdecode(key)]
    if case["value"]:
        arguments += ["--value", case["value"]]
    ended = subprocess.run([*command, *arguments], capture_output=True, timeout=120)
    return ended.returncode, ended.stdout.decode(errors="replace") + ended.stderr.decode(errors="replace")


def policy_file(text, work):
    file = work / "cases" / f"policy-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not file.exists():
        # Another thread may do the same: whole or not at all.
        own = file.with_suffix(f".{os.getpid()}-{id(text)}")
        own.write_text(text)
        own.replace(file)
    return file


def main():
    scribe, work = sys.argv[1], pathlib.Path(sys.argv[2])
    cases = build(work)
    (work / "cases.json").write_text(json.dumps(cases, indent=1))
    verifiers = {
        "examples/verify_receipt.py": [sys.executable, str(ROOT / "examples/verify_receipt.py")],
        "scribe verify": [scribe, "verify"],
    }
    for name, command in verifiers.items():
        counts = {"valid": 0, "exists": 0, "mismatch": 0}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for case, (code, said) in zip(cases, pool.map(lambda case: ask(command, case, work), cases)):
                # Another key is given on the command line; one that no command line holds was not given.
                unasked = "another key" in case["name"] and b"\0" in base64.b64decode(case["key_base64"])
                wanted = 0 if unasked else WANTED[case["verdict"]]
                if code != wanted:
                    sys.exit(f"receipts: {name}, `{case['name']}` ({case['receipt']}): exit {code}, must be {wanted}: {said}")
                if wanted == 0 and "index " not in said:
                    sys.exit(f"receipts: {name}, `{case['name']}`: no index in {said}")
                counts[case["verdict"]] += 1
        print(f"receipts: {name} takes {counts['valid']} fresh receipts with and {counts['exists']} without a value, "
              f"refuses {counts['mismatch']} changed or foreign ones")


if __name__ == "__main__":
    main()
