#!/usr/bin/env python3
"""Compute the ledger's roots with pymerkle, a Merkle tree library that is not ours.

    roots.py TILES [CHECKPOINT...]

TILES is what `scribe export --tiles` wrote. Compares the root at the size of its checkpoint and of the earlier ones given.
Signatures are not looked at. Also lets pymerkle check its own inclusion and consistency proofs against the checkpoints' roots. pymerkle
hashes as RFC 6962 does (0x00 before a leaf, 0x01 before two hashes) unless told not to.
"""
import base64
import hashlib
import pathlib
import sys
import time

from pymerkle import InmemoryTree, verify_consistency, verify_inclusion


def leaves(directory, size):
    """The leaves of the first `size` entries, from entry bundles: each behind its length in two bytes."""
    for first in range(0, size, 256):
        number, width = first // 256, min(256, size - first)
        groups = [f"{number % 1000:03}"]
        while number >= 1000:
            number //= 1000
            groups.insert(0, f"x{number % 1000:03}")
        path = "/".join(groups) + ("" if width == 256 else f".p/{width}")
        data, at = (directory / "tile/entries" / path).read_bytes(), 0
        for _ in range(width):
            end = at + 2 + int.from_bytes(data[at:at + 2], "big")
            yield data[at + 2:end]
            at = end


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    tiles, started = pathlib.Path(sys.argv[1]), time.monotonic()
    roots = {}
    for file in [tiles / "checkpoint", *map(pathlib.Path, sys.argv[2:])]:
        lines = file.read_text().split("\n")
        size, root = int(lines[1]), base64.b64decode(lines[2])
        if roots.setdefault(size, root) != root:
            sys.exit(f"pymerkle: two roots for size {size}")
    newest = max(roots)
    tree, hashes = InmemoryTree(algorithm="sha256"), {}
    for index, leaf in enumerate(leaves(tiles, newest)):
        tree.append_entry(leaf)
        if index + 1 in roots:
            found = tree.get_root()
            if found != roots[index + 1]:
                sys.exit(f"pymerkle: the root of {index + 1} leaves is {found.hex()}, the checkpoint says "
                         f"{roots[index + 1].hex()}")
        if index % 9973 == 0:
            hashes[index] = leaf
    for index, leaf in hashes.items():
        proof = tree.prove_inclusion(index + 1, newest)
        verify_inclusion(tree.get_leaf(index + 1), roots[newest], proof)
        if hashlib.sha256(b"\0" + leaf).digest() != tree.get_leaf(index + 1):
            sys.exit(f"pymerkle: another leaf at {index}")
    for size in sorted(roots)[:-1]:
        verify_consistency(roots[size], roots[newest], tree.prove_consistency(size, newest))
    print(f"pymerkle: the same root at all {len(roots)} checkpoint sizes up to {newest:,} leaves, {len(hashes)} inclusion and "
          f"{len(roots) - 1} consistency proofs of its own lead to them, in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
