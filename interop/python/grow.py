#!/usr/bin/env python3
"""Grow a ledger through the HTTP API of a running cluster, and keep what verifiers need.

    grow.py SCRIBE WORK NODE...        NODE is a URL

Writes at least 70,000 entries of every sort through all nodes, keeps the checkpoints on the way and receipts of some
entries. What WORK then holds: `vkey`, `policy`, `cosigners` (verifier keys, one a line), `checkpoints/<size>`,
`receipts/<n>.tlog-proof` with `<n>.value`, and `entries.json`, which says what each receipt is of. Uses the standard
library and, for the receipts, `scribe prove`.
"""
import base64
import concurrent.futures
import http.client
import json
import pathlib
import subprocess
import sys
import time
import urllib.parse

ENTRIES_MIN = 70_000
BULK = 23_000


class Node:
    """One connection to one node."""

    def __init__(self, url):
        self.url = url
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=300)

    def ask(self, method, path, body=None, headers=None, wanted=(200, 201)):
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status not in wanted:
            sys.exit(f"grow: {method} {path}: {answer.status} {data[:500]!r}")
        return data

    def put(self, key, value, wait="appended", **headers):
        name = base64.urlsafe_b64encode(key).decode().rstrip("=")
        path = f"/v1/keys/{name}?key_encoding=base64url&wait={wait}"
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return json.loads(self.ask("PUT", path, value, named))

    def delete(self, key):
        name = base64.urlsafe_b64encode(key).decode().rstrip("=")
        return json.loads(self.ask("DELETE", f"/v1/keys/{name}?key_encoding=base64url"))

    def bulk(self, lines):
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        answer = self.ask("POST", "/v1/entries", body, {"Content-Type": "application/x-ndjson"})
        last = json.loads(answer.rstrip().rsplit(b"\n", 1)[-1])
        if last != {"done": True, "lines": len(lines), "failed": 0}:
            sys.exit(f"grow: the upload ended with {last}")

    def transaction(self, operations):
        body = json.dumps({"operations": operations})
        return json.loads(self.ask("POST", "/v1/transactions", body, {"Content-Type": "application/json"}))


class Growth:
    def __init__(self, scribe, work, urls):
        self.scribe, self.work, self.urls = scribe, work, urls
        self.nodes = [Node(url) for url in urls]
        self.sizes = []
        self.kept = []  # what receipts are fetched of
        for name in ("checkpoints", "receipts"):
            (work / name).mkdir()

    def keep(self, key, answer, value, kind="put"):
        index = answer["index"]
        self.kept.append({"key_base64": base64.b64encode(key).decode(), "index": index, "kind": kind, "value": value})

    def checkpoint(self):
        """Writes an entry that must be published, and keeps the checkpoint that covers it, as every node shows it."""
        node = self.nodes[len(self.sizes) % len(self.nodes)]
        key = f"marks/{len(self.sizes)}".encode()
        answer = node.put(key, b"published", wait="published")
        self.keep(key, answer, b"published")
        for one in self.nodes:
            note = wait_for(lambda: checkpoint_of(one, answer["tree_size"]))
            size = int(note.split(b"\n")[1])
            (self.work / "checkpoints" / f"{size:09}-{urllib.parse.urlsplit(one.url).port}").write_bytes(note)
        self.sizes.append(size)

    def singles(self, count):
        """Puts of every sort, through all nodes at once."""
        def one(part):
            node, answers = Node(self.urls[part]), []
            for number in range(part, count, len(self.urls)):
                key = bytes([0xFF, number >> 8, number & 0xFF, 0]) if number % 3 == 0 else f"single/{number % 90}".encode()
                value = bytes(range(256)) * (number % 7)
                headers = {"Content_Type": "text/plain; charset=utf-8", "Scribe_Meta_Number": str(number)}
                answers.append((key, value, node.put(key, value, **(headers if number % 2 else {}))))
            return answers
        with concurrent.futures.ThreadPoolExecutor(len(self.urls)) as pool:
            done = [answer for part in pool.map(one, range(len(self.urls))) for answer in part]
        for key, value, answer in (done[1], done[-1], next(d for d in done if d[0][0] == 0xFF and d[1])):
            self.keep(key, answer, value)

    def special(self):
        node = self.nodes[1 % len(self.nodes)]
        large = bytes((at * 7 + (at >> 8)) & 0xFF for at in range(1_500_000))
        self.keep(b"large", node.put(b"large", large), large)
        self.keep(b"empty", node.put(b"empty", b""), b"")
        key = "schlüssel/🦀".encode()
        self.keep(key, node.put(key, "wert".encode(), Content_Type="text/plain"), b"wert")
        node.put(b"doomed", b"soon gone")
        self.keep(b"doomed", node.delete(b"doomed"), None, "delete")
        longest = b"k" * 1024
        self.keep(longest, node.put(longest, b"longest key"), b"longest key")

    def transactions(self, count):
        for number in range(count):
            operations = [{"put": {"key": f"tx/{number}/{part}", "value": f"{number}.{part}"}} for part in range(24)]
            operations.append({"delete": {"key": f"single/{number + 1}"}})
            operations.append({"check": {"key": f"tx/{number}/none", "if_absent": True}})
            answer = self.nodes[number % len(self.nodes)].transaction(operations)
        self.keep(f"tx/{number}/7".encode(), answer["entries"][7], f"{number}.7".encode())

    def bulk(self, part, count):
        lines = []
        for number in range(count):
            if number % 50 == 7:
                line = {"key": f"bulk/{part}/{number - 1}", "delete": True}
            elif number % 10 == 3:
                raw = bytes([0, part, number & 0xFF, number >> 8, 0xFE])
                line = {"key_base64": base64.b64encode(raw).decode(),
                        "value_base64": base64.b64encode(raw * 9).decode()}
            else:
                line = {"key": f"bulk/{part}/{number}", "value": f"value {number} of part {part}, " * (1 + number % 5)}
                if number % 4 == 0:
                    line["content_type"], line["metadata"] = "text/plain", {"part": str(part)}
            lines.append(line)
        self.nodes[part % len(self.nodes)].bulk(lines)

    def receipts(self):
        """One receipt per kept entry, by `scribe prove`, each from another node."""
        entries = []
        for number, entry in enumerate(self.kept):
            file = self.work / "receipts" / f"{number:02}.tlog-proof"
            command = [self.scribe, "prove", "--base64", entry["key_base64"], "--index", str(entry["index"])]
            command += ["--out", str(file), "--server", self.urls[number % len(self.urls)]]
            subprocess.run(command, check=True, stderr=subprocess.PIPE)
            value = entry.pop("value")
            if value is not None:
                file.with_suffix(".value").write_bytes(value)
                entry["value"] = str(file.with_suffix(".value"))
            entries.append(entry | {"receipt": str(file)})
        (self.work / "entries.json").write_text(json.dumps(entries, indent=1))


def checkpoint_of(node, size):
    """The node's checkpoint if it covers `size` entries."""
    note = node.ask("GET", "/checkpoint", wanted=(200, 503))
    return note if note.count(b"\n") > 3 and int(note.split(b"\n")[1]) >= size else None


def ledger_of(node):
    return json.loads(node.ask("GET", "/v1/ledger"))


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    sys.exit(f"grow: not within {seconds} s")


def main():
    scribe, work, urls = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    started = time.monotonic()
    growth = Growth(scribe, work, urls)
    # Cosignatures count once the node's key is announced in the ledger; a new cluster is ready a moment earlier.
    wait_for(lambda: len(ledger_of(growth.nodes[0])["verifier_keys"]) == 1 + len(urls))
    growth.checkpoint()
    growth.singles(600)
    growth.special()
    growth.checkpoint()
    growth.transactions(30)
    growth.bulk(0, BULK)
    growth.checkpoint()
    growth.bulk(1, BULK)
    growth.checkpoint()
    growth.bulk(2, BULK)
    growth.checkpoint()
    growth.singles(300)
    growth.checkpoint()
    ledger = ledger_of(growth.nodes[0])
    (work / "vkey").write_text(ledger["verifier_keys"][0] + "\n")
    (work / "cosigners").write_text("\n".join(ledger["verifier_keys"][1:]) + "\n")
    (work / "policy").write_text(ledger["policy"])
    growth.receipts()
    if growth.sizes[-1] < ENTRIES_MIN:
        sys.exit(f"grow: {growth.sizes[-1]} entries, {ENTRIES_MIN} are needed")
    print(f"ledger: {growth.sizes[-1]:,} entries through the HTTP API of {len(urls)} nodes, {len(growth.sizes)} checkpoints "
          f"kept at {', '.join(f'{size:,}' for size in growth.sizes)}, {len(growth.kept)} receipts, "
          f"in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
