"use strict";
// Fresh receipts before Sigstore's own transparency-log code (npm @sigstore/verify): checkpoint signature and inclusion.
//
//   node verify.js VKEY RECEIPT...
//
// VKEY is a file with the ledger's verifier key. Each receipt must hold, and fail with one thing changed. Sigstore's verifier is given what it expects of any log: a body (here the
// leaf), index, hashes and checkpoint, and the log's key. Prints one line; throws at the first receipt judged wrongly.
const crypto = require("node:crypto");
const fs = require("node:fs");
const { verifyTLogInclusion } = require("@sigstore/verify/dist/tlog");

const [vkeyFile, ...files] = process.argv.slice(2);

// The verifier key as the trusted log of Sigstore's verifier: name and key id select it, Node's OpenSSL checks.
function trustedLog(vkey) {
  const [name, id, ...rest] = vkey.trim().split("+");
  const raw = Buffer.from(rest.join("+"), "base64");
  if (raw.length !== 33 || raw[0] !== 1) throw new Error(`${vkey} is no ledger key`);
  const prefix = Buffer.from("302a300506032b6570032100", "hex"); // SubjectPublicKeyInfo of Ed25519
  const publicKey = crypto.createPublicKey({ key: Buffer.concat([prefix, raw.subarray(1)]), format: "der", type: "spki" });
  return { logID: Buffer.from(id, "hex"), baseURL: name, publicKey, validFor: { start: new Date(0), end: new Date(8.64e15) } };
}

function parse(text) {
  const end = text.indexOf("\n\n");
  const [, extra, index, ...hashes] = text.slice(0, end).split("\n");
  const data = Buffer.from(extra.slice("extra ".length), "base64");
  return {
    leaf: data.subarray(3, 3 + data.readUInt16BE(1)),
    index: index.slice("index ".length),
    hashes: hashes.map((hash) => Buffer.from(hash, "base64")),
    note: text.slice(end + 2),
  };
}

function judge(receipt, logs) {
  verifyTLogInclusion({
    canonicalizedBody: receipt.leaf,
    inclusionProof: {
      logIndex: receipt.index,
      hashes: receipt.hashes,
      treeSize: receipt.note.split("\n")[1],
      rootHash: Buffer.from(receipt.note.split("\n")[2], "base64"),
      checkpoint: { envelope: receipt.note },
    },
  }, logs);
}

function flipped(bytes, at) {
  const changed = Buffer.from(bytes);
  changed[at] ^= 1;
  return changed;
}

const logs = [trustedLog(fs.readFileSync(vkeyFile, "utf8"))];
const stranger = { ...logs[0], publicKey: crypto.generateKeyPairSync("ed25519").publicKey };
let taken = 0;
let refused = 0;
for (const name of files) {
  const receipt = parse(fs.readFileSync(name, "utf8"));
  judge(receipt, logs);
  taken += 1;
  const wrong = {
    "another leaf": [{ ...receipt, leaf: flipped(receipt.leaf, 11) }, logs],
    "a longer leaf": [{ ...receipt, leaf: Buffer.concat([receipt.leaf, Buffer.from([0])]) }, logs],
    "another index": [{ ...receipt, index: String(BigInt(receipt.index) ^ 1n) }, logs],
    "another proof": [{ ...receipt, hashes: receipt.hashes.map((hash, at) => (at ? hash : flipped(hash, 0))) }, logs],
    "a shorter proof": [{ ...receipt, hashes: receipt.hashes.slice(1) }, logs],
    "another size": [{ ...receipt, note: receipt.note.replace(/\n(\d+)\n/, "\n1$1\n") }, logs],
    "another key": [receipt, [stranger]],
    "no key": [receipt, []],
  };
  for (const [what, [changed, trusted]] of Object.entries(wrong)) {
    let problem = null;
    try {
      judge(changed, trusted);
    } catch (error) {
      if (error.name !== "VerificationError") throw error;
      problem = error;
    }
    if (!problem) throw new Error(`${name} with ${what} was taken`);
    refused += 1;
  }
}
if (!taken) throw new Error("there is no receipt");
const { version } = require("@sigstore/verify/package.json");
console.log(`sigstore: @sigstore/verify ${version} verifies signature and inclusion of ${taken} receipts, refuses ${refused} wrong ones`);
