#!/usr/bin/env python3
"""Run examples/verify_receipt.py over testdata/vectors: what is valid must be taken, what is wrong refused.

Prints one line. Exit 1 with every vector that is judged the other way.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))
sys.dont_write_bytecode = True
import verify_receipt as independent  # noqa: E402


def cases(name):
    return json.loads((ROOT / "testdata/vectors" / name).read_text())["cases"]


def leaf(case):
    parsed = independent.parse_leaf(bytes.fromhex(case["leaf"]))
    independent.check(parsed, "not understood")
    if "leaf_hash" in case:
        found = independent.sha256(b"\0", bytes.fromhex(case["leaf"])).hex()
        independent.check(found == case["leaf_hash"], "leaf hash")
    fields = case.get("fields")
    if fields:
        kind, key, time, commitment = parsed
        wanted = ({1: "put", 2: "delete", 3: "system"}[fields["kind"]], fields["key"], fields["timestamp_ms"])
        independent.check((kind, key.hex(), time) == wanted and commitment.hex() == fields["commitment"], "fields")


def commitment(case):
    metadata, value = bytes.fromhex(case["metadata"]), bytes.fromhex(case["value"])
    independent.check_metadata(metadata)
    lengths = len(metadata).to_bytes(2, "big"), len(value).to_bytes(8, "big")
    salt = bytes.fromhex(case["salt"])
    independent.check(len(salt) == 16, "salt")
    found = independent.sha256(b"scribe/entry/v1\n", salt, lengths[0], metadata, lengths[1], value)
    independent.check(found.hex() == case["commitment"], "commitment")


def inclusion(case):
    hashes = [bytes.fromhex(text) for text in case["proof"]]
    leaf_hash, root = bytes.fromhex(case["leaf_hash"]), bytes.fromhex(case["root"])
    independent.check_inclusion(leaf_hash, case["index"], case["size"], hashes, root)


def checkpoint(case):
    note = independent.Checkpoint(case["note"])
    policy = independent.Policy(f"log {case['key']}\nquorum none\n")
    policy.evaluate(note)
    wanted = (case["origin"], case["size"], case["root"])
    independent.check((note.origin, note.size, note.root.hex()) == wanted, "fields")


def receipt(case, directory):
    """Through the command line, so that exit codes are judged too."""
    files = {name: directory / name for name in ("receipt", "policy", "value")}
    files["receipt"].write_bytes(case["receipt"].encode())
    files["policy"].write_text(case["policy"])
    command = [sys.executable, str(ROOT / "examples/verify_receipt.py"), str(files["receipt"])]
    command += ["--policy", str(files["policy"])]
    if case.get("value") is not None:
        files["value"].write_bytes(bytes.fromhex(case["value"]))
        command += ["--value", str(files["value"])]
    if "key" in case:
        command += ["--entry-key", bytes.fromhex(case["key"]).decode()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if ended.returncode == 3:
        raise ValueError(ended.stderr)
    if ended.returncode != 0:
        sys.exit(f"receipt `{case['name']}`: exit {ended.returncode}: {ended.stderr}")
    if f"index  {case['index']}\n" not in ended.stdout:
        sys.exit(f"receipt `{case['name']}`: index {case['index']} is not printed: {ended.stdout}")


def main():
    taken, refused, wrong = 0, 0, []
    with tempfile.TemporaryDirectory() as directory:
        judges = {
            "leaf.json": leaf,
            "commitment.json": commitment,
            "inclusion.json": inclusion,
            "checkpoint.json": checkpoint,
            "receipt.json": lambda case: receipt(case, pathlib.Path(directory)),
        }
        for name, judge in judges.items():
            for case in cases(name):
                try:
                    judge(case)
                    problem = None
                except ValueError as error:
                    problem = error
                if (problem is None) != case["valid"]:
                    wrong.append(f"{name}, `{case['name']}`: {problem or 'taken'}; should be {case.get('reason', 'valid')}")
                elif case["valid"]:
                    taken += 1
                else:
                    refused += 1
    if wrong or not taken or not refused:
        sys.exit("python: judged differently:\n" + "\n".join(wrong))
    print(f"python: examples/verify_receipt.py takes {taken} valid vectors and refuses {refused} wrong ones")


if __name__ == "__main__":
    main()
