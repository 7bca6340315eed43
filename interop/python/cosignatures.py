#!/usr/bin/env python3
"""Check every signature of checkpoints with an Ed25519 that is not ours (Python's `cryptography`, by OpenSSL).

    cosignatures.py KEYS CHECKPOINT...

KEYS is a file with verifier keys, one a line: the ledger's, then its nodes'. Each checkpoint must be signed by the ledger
and cosigned by a majority of the nodes. As little code as c2sp.org/tlog-cosignature allows. Prints one line; exit 1 at the first signature that does not fit, and
if a changed one does.
"""
import base64
import pathlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def fits(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except InvalidSignature:
        return False


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    keys = {}
    for vkey in pathlib.Path(sys.argv[1]).read_text().split():
        name, key_id, encoded = vkey.split("+", 2)
        keys[name, bytes.fromhex(key_id)] = base64.b64decode(encoded)
    by_ledger = by_nodes = refused = 0
    for file in map(pathlib.Path, sys.argv[2:]):
        text, _, lines = file.read_text().rpartition("\n\n")
        text, times, before = text + "\n", [], by_ledger
        for line in lines.splitlines():
            _, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded)
            key = keys.get((name, raw[:4]))
            if not key:
                continue  # somebody we do not know
            if key[0] == 1:
                signature, message = raw[4:], text
                by_ledger += 1
            else:
                seconds = int.from_bytes(raw[4:12], "big")
                times.append(seconds)
                signature, message = raw[12:], f"cosignature/v1\ntime {seconds}\n{text}"
                by_nodes += 1
            if not fits(key[1:], signature, message.encode()):
                sys.exit(f"cosignatures: {file}: the signature of {name} does not fit")
            # Another size, another time, another signer.
            changes = [message.replace("\n", "\n1", 1), message + "\n", message.replace("time ", "time 1")]
            for changed in changes:
                if changed != message and fits(key[1:], signature, changed.encode()):
                    sys.exit(f"cosignatures: {file}: the signature of {name} fits another text")
                refused += changed != message
        if by_ledger == before or (len(keys) > 1 and len(times) * 2 <= len(keys) - 1):
            sys.exit(f"cosignatures: {file}: {by_ledger - before} signatures by the ledger, cosigned by {len(times)} of "
                     f"{len(keys) - 1} nodes; the ledger's and a majority are needed")
    print(f"cosignatures: {by_ledger} signatures by the ledger and {by_nodes} cosignature/v1 by its nodes fit their "
          f"checkpoints (OpenSSL's Ed25519), {refused} changed texts refused")


if __name__ == "__main__":
    main()
