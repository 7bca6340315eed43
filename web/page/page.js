"use strict";
// The page: takes what the user drops, asks the verifier (WebAssembly, from web/src), shows what it said.
//
// It judges nothing itself. Everything from outside is shown as text, never as markup. There is no way out of it: the
// Content-Security-Policy above allows no connection, and the verifier imports no function.
(() => {
  const RECEIPT = 0, TRUST = 1, KEY = 2, PIECE = 3; // web/src/check.rs, `Input`
  const PIECE_BYTES = 1024 * 1024;
  const at = (id) => document.getElementById(id);

  // --- The verifier ---

  let exports;
  async function start() {
    const text = at("verifier").textContent;
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    exports = (await WebAssembly.instantiate(bytes, {})).instance.exports;
  }
  function put(input, bytes) {
    const place = exports.reserve(input, bytes.length) >>> 0;
    if (place === 0) return false;
    new Uint8Array(exports.memory.buffer, place, bytes.length).set(bytes);
    return true;
  }
  function answer() {
    const place = exports.answer() >>> 0;
    const bytes = new Uint8Array(exports.memory.buffer, place, exports.answer_length());
    return JSON.parse(new TextDecoder().decode(bytes));
  }

  // --- What the user gave ---

  const files = {}; // field name -> File; text areas hold the rest
  const encode = (text) => new TextEncoder().encode(text);
  async function read(name) {
    if (files[name]) return new Uint8Array(await files[name].arrayBuffer());
    const text = at(name).value;
    if (text === "") return null;
    if (name !== "receipt") return encode(text);
    // Copying from a terminal loses or adds white space around a text; within it every byte counts.
    return encode(text.trim() + "\n");
  }
  function take(name, file) {
    files[name] = file;
    const field = document.querySelector(`[data-field="${name}"]`);
    const area = at(name);
    area.disabled = Boolean(file);
    area.value = "";
    field.querySelector(".name").textContent = file ? `${file.name}, ${bytesText(file.size)}` : "";
    field.querySelector("button").hidden = !file;
    field.querySelector("label.choose").textContent = file ? "Choose another file" : "Choose a file";
    if (!file) {
      field.querySelector("input").value = "";
    } else if (name !== "value" && file.size < 300000) {
      // Only to be looked at; what is verified are the file's bytes.
      file.text().then((text) => { if (files[name] === file) area.value = text; }, () => {});
    }
    changed();
  }
  // A file that was dropped on no field goes where it looks like it belongs; the page shows where that is.
  async function guess(file) {
    const head = await file.slice(0, 65536).text();
    if (head.startsWith("c2sp.org/tlog-proof")) return "receipt";
    const key = /^\s*[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}=*\s*$/;
    return file.size < 65536 && (key.test(head) || /^quorum[ \t]/m.test(head)) ? "trust" : "value";
  }

  // --- Showing ---

  const bytesText = (count) => `${count.toLocaleString("en")} ${count === 1 ? "byte" : "bytes"}`;
  const grouped = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ",");
  function timeText(milliseconds) {
    const date = new Date(Number(milliseconds));
    return isNaN(date) ? `${milliseconds} ms after 1970` : date.toISOString().replace("T", " ").replace("Z", " UTC");
  }
  const secondsText = (seconds) => timeText(`${seconds}000`).replace(".000", "");
  function element(tag, text, properties) {
    const made = Object.assign(document.createElement(tag), properties);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function verdict(kind, title, text, hint) {
    at("verdict-title").textContent = title;
    at("verdict-text").textContent = text;
    at("verdict-hint").textContent = hint || "";
    at("verdict-hint").hidden = !hint;
    at("verdict").dataset.verdict = kind;
    document.querySelector("main").toggleAttribute("data-waiting", kind === "waiting" && at("trusted").hidden);
  }
  function list(id, pairs) {
    const rows = pairs.filter(([, text]) => text !== null && text !== "");
    at(id).querySelector("dl").replaceChildren(...rows.flatMap(([name, text, code]) =>
      [element("dt", name), element("dd", text, { className: code ? "code" : "" })]));
    at(id).hidden = rows.length === 0;
  }
  const hide = () => ["steps", "entry", "ledger", "trusted"].forEach((id) => { at(id).hidden = true; });

  const STEPS = [
    ["receipt", "The receipt is whole and in its one form"],
    ["inclusion", "The entry’s hash leads to the ledger’s root hash"],
    ["origin", "The checkpoint is of a ledger you trust"],
    ["signature", "The signatures you ask for are there and fit"],
    ["later", "The entry is of a kind this page understands"],
    ["key", "The entry has the key you gave"],
    ["value", "The value is what the entry commits to"],
  ];
  function showSteps(failed, skipped) {
    const stop = STEPS.findIndex(([step]) => step === failed);
    const items = STEPS.map(([step, text], place) => {
      const state = step === failed ? "failed" : stop >= 0 && place > stop ? "unreached"
        : skipped.includes(step) ? "skipped" : "passed";
      const said = { failed: "does not hold", unreached: "not reached", skipped: "not asked for", passed: "holds" }[state];
      const item = element("li");
      item.dataset.step = state;
      const words = element("span", state === "skipped" || state === "unreached" ? `${text} (${said})` : text);
      words.append(element("span", `: ${said}`, { className: "out-of-sight" }));
      item.append(words);
      return item;
    });
    at("steps").querySelector("ol").replaceChildren(...items);
    at("steps").hidden = false;
  }
  function showEntry(entry, metadata) {
    const previous = entry.previous === "none" ? "none: this is the first version of its key"
      : entry.previous === null ? "not asserted" : `index ${grouped(entry.previous)}`;
    const transaction = entry.transaction_length === "1" ? null
      : `${Number(entry.transaction_position) + 1} of ${entry.transaction_length} entries written together`;
    list("entry", [
      ["Key", entry.key || (entry.kind.startsWith("system") ? "none" : ""), true],
      ["Index", grouped(entry.index)],
      ["Kind", { put: "put: the key was given a value", delete: "delete: the key was deleted here" }[entry.kind]
        || `${entry.kind}: the ledger’s own`],
      ["Time", `${timeText(entry.timestamp_ms)}, by the ledger’s clock`],
      ["Author", entry.author, true],
      ["Previous", previous],
      ["Transaction", transaction],
      ["Content type", metadata ? metadata.content_type || "none" : null, true],
      ...(metadata ? metadata.pairs.map((pair) => [`Metadata ${pair.name}`, pair.value || "(empty)", true]) : []),
    ]);
  }
  function showLedger(checkpoint) {
    list("ledger", [
      ["Ledger", checkpoint.origin, true],
      ["Entries", grouped(checkpoint.tree_size)],
      ["Root hash", checkpoint.root_hash, true],
    ]);
  }
  function quorumText(trust) {
    if (trust.kind === "key") {
      return "You trust the ledger’s key alone. Its nodes and witnesses were not asked for; a policy does that.";
    }
    const rule = trust.rules.find((group) => group.name === trust.quorum);
    const needed = trust.quorum === "none" ? "Your policy asks for no cosignature"
      : !rule ? `Your policy asks for a cosignature by ${trust.quorum}`
      : `Your policy asks for cosignatures by ${{ any: "any one", all: "all" }[rule.threshold] || `at least ${rule.threshold}`}`
        + ` of ${rule.members.join(", ")}`;
    const inner = trust.rules.filter((group) => rule && rule.members.includes(group.name))
      .map((group) => `${group.name}: ${group.threshold} of ${group.members.join(", ")}`);
    return `${needed}${inner.length ? ` (${inner.join("; ")})` : ""}.`;
  }
  // `cosigned` is null when no receipt was looked at; `signer` is the ledger key that signed, once all holds.
  function showTrusted(trust, cosigned, signer) {
    at("trusted").querySelector("p").textContent = quorumText(trust);
    const row = (role, name, key, signed, known) => {
      const made = element("tr");
      const who = element("td", `${role} ${name}`);
      who.append(element("code", key, { className: "key" }));
      made.append(who, element("td", signed, { className: known ? "" : "no" }));
      return made;
    };
    const rows = trust.logs.map((log) => row("Ledger", log.name, log.key,
      signer === log.key ? "yes" : cosigned === null || !signer ? "–" : "no", signer === log.key));
    trust.witnesses.forEach((witness, place) => {
      const time = cosigned && cosigned[place];
      rows.push(row("Cosigner", witness.name, witness.key,
        time ? `cosigned ${secondsText(time)}` : cosigned && cosigned.length ? "no" : "–", Boolean(time)));
    });
    at("trusted").querySelector("tbody").replaceChildren(...rows);
    at("trusted").hidden = false;
  }

  // --- Checking ---

  const HINTS = {
    receipt: "This is no receipt, or it was changed or damaged on its way.",
    inclusion: "The receipt was changed: this entry, this index and this proof do not belong to this checkpoint.",
    origin: "Is the key or policy you gave the one of the ledger that made this receipt?",
    signature: "Is the key or policy the one of this ledger? If it is, the checkpoint was not signed by those you trust.",
    later: "Everything held, but the entry is of a later format. A newer version of this page may read it.",
    key: "The receipt is valid, but for the entry shown below and not for the key you gave.",
    value: "The entry is in the ledger, but with another value, or the receipt’s salt or metadata were changed.",
  };
  let runs = 0;
  let last = Promise.resolve();
  function changed() {
    runs += 1;
    const run = runs;
    verdict("checking", "Checking", "One moment.");
    document.body.dataset.settled = "";
    last = last.then(() => (run === runs ? check(run) : undefined)).catch((error) => {
      hide();
      verdict("unreadable", "The check could not be made", String((error && error.message) || error),
        "Nothing is proved. If it happens again, use `scribe verify`.");
    }).then(() => { if (run === runs) document.body.dataset.settled = "yes"; });
  }
  async function check(run) {
    const [receipt, trustText] = [await read("receipt"), await read("trust")];
    const keyText = at("key").value;
    const valueFile = files.value || (at("value").value === "" ? null : new Blob([encode(at("value").value)]));
    hide();
    let trust = null;
    if (trustText) {
      if (!put(TRUST, trustText)) {
        return verdict("unreadable", "Cannot read whom you trust", "That is longer than any key or policy.");
      }
      exports.read_trust();
      trust = answer();
      if (!trust.ok) {
        return verdict("unreadable", "Cannot read whom you trust", sentence(`Whom you trust: ${trust.error}`),
          "A key looks like name+1a2b3c4d+base64; a policy has lines that begin with log, witness, group and quorum.");
      }
    }
    if (!receipt || !trust) {
      if (trust) showTrusted(trust, null, null);
      const missing = [receipt ? null : "the receipt", trust ? null : "whom you trust"].filter(Boolean).join(" and ");
      const nothing = !receipt && !trust && !valueFile;
      return verdict("waiting", nothing ? "Nothing to check yet" : "Something is missing", `Give ${missing}.`);
    }
    if (!put(RECEIPT, receipt)) {
      showSteps("receipt", []);
      return verdict("mismatch", "Does not match", `A receipt has at most ${bytesText(exports.longest(RECEIPT) - 1)}, `
        + `this has ${bytesText(receipt.length)}.`, HINTS.receipt);
    }
    const skipped = [...(keyText === "" ? ["key"] : []), ...(valueFile ? [] : ["value"])];
    const key = encode(keyText);
    if (keyText !== "" && !put(KEY, key)) {
      return verdict("unreadable", "Cannot read the entry key", "That is longer than any key.");
    }
    exports.verify(keyText === "" ? 0 : 1);
    const found = answer();
    showTrusted(trust, found.cosigned || [], found.checkpoint ? found.checkpoint.signed_by : null);
    if (found.entry) {
      showEntry(found.entry, null);
      showLedger(found.checkpoint);
    }
    if (!found.ok) {
      showSteps(found.step, skipped);
      return verdict("mismatch", "Does not match", sentence(found.error), HINTS[found.step]);
    }
    let metadata = null;
    if (valueFile) {
      metadata = await checkValue(valueFile, run);
      if (!metadata) return; // something else is being checked by now
      if (!metadata.ok) {
        showSteps("value", skipped);
        return verdict("mismatch", "Does not match", sentence(metadata.error), HINTS.value);
      }
      showEntry(found.entry, metadata);
    }
    showSteps(null, skipped);
    const what = `${found.entry.key ? `“${found.entry.key}”, ` : ""}index ${grouped(found.entry.index)}, written `
      + `${timeText(found.entry.timestamp_ms)}`;
    const hint = (keyText === "" ? "Is this the entry you mean? A receipt for another entry would be valid, too. " : "")
      + "It does not say that this is the latest version.";
    if (valueFile) return verdict("valid", "Valid: in the ledger, with this value", `${what}.`, hint);
    const why = found.entry.kind === "put" && found.entry.redacted
      ? "The receipt is redacted: it discloses nothing that a value could be checked against." : "No value was checked.";
    verdict("exists", "Valid: in the ledger", `${what}. ${found.entry.kind === "put" ? why : ""}`.trim(), hint);
  }
  async function checkValue(file, run) {
    exports.value_begin(file.size);
    const begun = answer();
    if (!begun.ok) return begun;
    for (let place = 0; place < file.size; place += PIECE_BYTES) {
      const piece = new Uint8Array(await file.slice(place, place + PIECE_BYTES).arrayBuffer());
      if (run !== runs) return null;
      if (!put(PIECE, piece)) throw new Error("a piece of the value is too long");
      exports.value_piece();
      if (file.size > 64 * PIECE_BYTES && place % (16 * PIECE_BYTES) === 0) {
        verdict("checking", "Checking", `The value is read: ${Math.floor(place / file.size * 100)} %.`);
      }
    }
    exports.value_end();
    return answer();
  }
  const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

  // --- Wiring ---

  for (const field of document.querySelectorAll(".field")) {
    const name = field.dataset.field;
    at(name).addEventListener("input", changed);
    if (name === "key") continue;
    const row = element("div", undefined, { className: "file" });
    const input = element("input", undefined, { type: "file", id: `${name}-file` });
    const label = element("label", "Choose a file", { className: "choose", htmlFor: input.id });
    label.append(element("span", ` for ${name}`, { className: "out-of-sight" }));
    const remove = element("button", "Remove", { type: "button", hidden: true });
    input.addEventListener("change", () => { if (input.files[0]) take(name, input.files[0]); });
    remove.addEventListener("click", () => { take(name, null); at(name).focus(); });
    row.append(element("span", "", { className: "name" }), input, label, remove);
    field.append(row);
  }
  at("inputs").addEventListener("submit", (event) => event.preventDefault());
  let inside = 0; // dragenter and dragleave come for every element on the way
  const draggingFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  const dropping = (count) => { inside = count; document.body.classList.toggle("dropping", inside > 0); };
  addEventListener("dragenter", (event) => { if (draggingFiles(event)) dropping(inside + 1); });
  addEventListener("dragleave", (event) => { if (draggingFiles(event)) dropping(Math.max(0, inside - 1)); });
  addEventListener("dragover", (event) => { if (draggingFiles(event)) event.preventDefault(); });
  addEventListener("drop", async (event) => {
    if (!draggingFiles(event)) return;
    event.preventDefault();
    dropping(0);
    const field = event.target.closest && event.target.closest("[data-field]");
    const dropped = [...event.dataTransfer.files];
    for (const file of dropped) {
      const aimed = field && dropped.length === 1 && field.dataset.field !== "key" ? field.dataset.field : null;
      take(aimed || await guess(file), file);
    }
  });
  start().then(changed, (error) => verdict("unreadable", "The verifier does not start", String(error),
    "This browser may be too old, or forbid WebAssembly. Nothing is proved."));
})();
