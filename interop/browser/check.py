#!/usr/bin/env python3
"""Judge receipts with the web page in a real Chromium, and see that the page connects to nothing.

    check.py PAGE [--cases FILE] [--screenshots DIR] [--chromium FILE] [--chromedriver FILE]

Without --cases: the receipts of testdata/vectors. With it: a JSON list of {name, receipt, trust, value, key, verdict, says},
where receipt and value are files, trust is text, and verdict is what the page must say: `valid` (with this value),
`exists` (no value was checked), `mismatch`, or `unreadable` (whom the user trusts). Prints a line per part; exit 1 at
the first thing that is not as it must be.
"""
import argparse
import json
import pathlib
import socket
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
from webdriver import Browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETTLED = "document.body.dataset.settled === 'yes'"


def fail(message):
    sys.exit(f"browser: {message}")


class Page:
    """The page, as a user has it: every way of giving it something."""

    def __init__(self, browser, path):
        self.browser, self.url = browser, path.resolve().as_uri()

    def open(self):
        self.browser.open(self.url)
        self.browser.wait(SETTLED)

    def choose(self, name, path):
        self.browser.type(f"#{name}-file", str(path))

    def write(self, name, text):
        self.browser.type(f"#{name}", text)

    def paste(self, name, text):
        """At once, as a clipboard does."""
        self.browser.run("const area = document.getElementById(arguments[0]); area.value = arguments[1];"
                         "area.dispatchEvent(new Event('input', {bubbles: true}));", name, text)

    def drop(self, paths, target="h1"):
        """Files dropped on an element, by name and bytes."""
        files = [{"name": path.name, "bytes": list(path.read_bytes())} for path in paths]
        count = self.browser.run("return [...document.querySelectorAll('.name')].filter((n) => n.textContent).length")
        self.browser.run("""
            const transfer = new DataTransfer();
            for (const file of arguments[1]) transfer.items.add(new File([new Uint8Array(file.bytes)], file.name));
            const event = (type) => new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: transfer});
            const target = document.querySelector(arguments[0]);
            for (const type of ['dragenter', 'dragover', 'drop']) target.dispatchEvent(event(type));
            """, target, files)
        if target == "h1":
            self.browser.wait("[...document.querySelectorAll('.name')].filter((n) => n.textContent).length "
                              f">= {count + len(paths)}")

    def verdict(self):
        """What the page says in the end, and all its text."""
        self.browser.wait(SETTLED)
        return self.browser.run("return [document.getElementById('verdict').dataset.verdict,"
                                "document.getElementById('verdict').innerText, document.body.innerText]")

    def expect(self, case, verdict, says=()):
        found, text, everything = self.verdict()
        if found != verdict:
            fail(f"{case}: the page says {found}, must say {verdict}:\n{text}")
        for words in says:
            if words not in everything:
                fail(f"{case}: the page must say `{words}`:\n{everything}")
        return everything


def vectors(directory):
    """The receipts of testdata/vectors as cases; values and receipts become files."""
    cases = []
    for at, case in enumerate(json.loads((ROOT / "testdata/vectors/receipt.json").read_text())["cases"]):
        receipt, value = directory / f"{at}.tlog-proof", None
        receipt.write_bytes(case["receipt"].encode())
        if case.get("value") is not None:
            value = directory / f"{at}.value"
            value.write_bytes(bytes.fromhex(case["value"]))
        verdict = "mismatch" if not case["valid"] else "exists" if value is None else "valid"
        key = bytes.fromhex(case["key"]).decode() if "key" in case else None
        cases.append({"name": case["name"], "receipt": str(receipt), "trust": case["policy"], "key": key,
                      "value": value and str(value), "verdict": verdict, "says": case.get("error", "")})
    return cases


def run_cases(page, cases):
    counts = {}
    for case in cases:
        page.open()
        page.choose("receipt", case["receipt"])
        page.paste("trust", case["trust"])
        if case.get("value"):
            page.choose("value", case["value"])
        if case.get("key") is not None:
            page.paste("key", case["key"])
        # The page begins sentences with a capital letter.
        page.expect(case["name"], case["verdict"], [case["says"][1:]] if case.get("says") else [])
        counts[case["verdict"]] = counts.get(case["verdict"], 0) + 1
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def behaviour(page, good, directory, shots):
    """Every way in, and verdicts that change with what is given. `good` is a case with value and key."""
    browser = page.browser
    receipt, value = pathlib.Path(good["receipt"]), pathlib.Path(good["value"])
    trust, garbage = directory / "trust.txt", directory / "garbage.bin"
    trust.write_text(good["trust"])
    garbage.write_bytes(bytes(range(256)) * 40)

    page.open()
    page.expect("nothing given", "waiting", ["Nothing to check yet"])
    shots("1-empty")
    page.drop([value, trust, receipt])
    page.expect("three files dropped anywhere", "valid", ["Is this the entry you mean?"])
    page.paste("key", good["key"])
    everything = page.expect("with the key", "valid", ["What it does not prove", "latest"])
    if "Is this the entry you mean?" in everything:
        fail("with the key: the page still asks which entry is meant")
    shots("2-valid")
    page.paste("key", good["key"] + "x")
    page.expect("another key", "mismatch", ["entry shown below and not for the key"])
    page.paste("key", good["key"])

    tampered = directory / "tampered.bin"
    tampered.write_bytes(value.read_bytes() + b"!")
    page.choose("value", tampered)
    page.expect("tampered value", "mismatch", ["alue does not match"])
    shots("3-tampered-value")
    page.choose("value", value)
    page.expect("the value again", "valid")
    browser.run("document.querySelector('[data-field=value] button').click()")
    page.expect("no value", "exists", ["No value was checked"])

    # Verdicts never outlive what they were about.
    text = receipt.read_text()
    lines = text.split("\n")
    lines[3] = ("A" if lines[3][0] != "A" else "B") + lines[3][1:]
    page.drop([(directory / "changed.tlog-proof")] if (directory / "changed.tlog-proof").write_text("\n".join(lines))
              else [], target="[data-field=receipt]")
    page.expect("tampered proof", "mismatch", ["nclusion does not match"])
    shots("4-tampered-proof")
    browser.run("document.querySelector('[data-field=receipt] button').click()")
    page.expect("no receipt", "waiting", ["Give the receipt"])
    page.paste("receipt", "\n  " + text.rstrip("\n"))
    page.expect("pasted receipt, its ends lost", "exists")
    page.drop([garbage], target="[data-field=receipt]")
    page.expect("garbage for a receipt", "mismatch", ["is no receipt"])
    page.choose("receipt", receipt)
    page.drop([garbage], target="[data-field=trust]")
    page.expect("garbage for a policy", "unreadable", ["Cannot read whom you trust"])
    page.choose("trust", trust)
    page.expect("all in order again", "exists")
    page.drop([garbage], target="[data-field=value]")
    page.expect("garbage for a value", "mismatch", ["alue does not match"])

    # A wrong key: the same name, another ledger.
    other = "example.com/other+0f6bd1bc+Adj5v2e7XnTq9RpO0B1pX1mJ7y0y1m3b1q0zZ9t3e9aY"
    page.choose("value", value)
    browser.run("document.querySelector('[data-field=trust] button').click()")
    page.paste("trust", other)
    page.expect("a key whose id is not its own", "unreadable", ["key"])

    # A value of many pieces, whose last byte is wrong, takes the same way through memory.
    big = directory / "big.bin"
    big.write_bytes(b"\0" * (3 * 1024 * 1024 + 17))
    page.choose("trust", trust)
    page.choose("value", big)
    page.expect("a value of several pieces", "mismatch", ["alue does not match"])
    page.choose("value", value)
    page.expect("the right one after it", "valid", ["latest version"])


def keyboard_and_names(browser, shots):
    """Everything that can be operated has a name and can be reached, and colours are not all that tells."""
    unnamed = browser.run("""
        return [...document.querySelectorAll('input, textarea, button')].filter((e) =>
            !(e.labels && e.labels.length) && !e.textContent.trim()).map((e) => e.outerHTML);""")
    if unnamed:
        fail(f"without a name: {unnamed}")
    for width in (1280, 700, 360):
        browser.chromium("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        if browser.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            fail(f"the page does not fit a window {width} wide")
        shots(f"5-{width}-wide")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.chromium("Emulation.clearDeviceMetricsOverride")
    browser.chromium("Emulation.setEmulatedMedia", features=dark)
    shots("6-dark")
    browser.chromium("Emulation.setEmulatedMedia", features=[])


class Listener:
    """Remembers what is asked of a port of this machine.

    Connections over which nothing is said do not count: Chromium opens one ahead for a frame, before it looks at the
    rules and refuses to load it.
    """

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.asked = self.socket.getsockname()[1], []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._hear, args=[connection], daemon=True).start()

    def _hear(self, connection):
        with connection:
            try:
                said = connection.recv(4096)
            except OSError:
                return
            if said:
                self.asked.append(said.split(b"\r\n")[0].decode("latin-1"))


# Everything a page can try to get data out; each settles, whatever becomes of it.
TRIES = """
    const [port, done] = arguments;
    const host = `127.0.0.1:${port}`, url = `http://${host}/`;
    const element = (tag, set) => new Promise((settle) => {
        const made = Object.assign(document.createElement(tag), set);
        made.onload = made.onerror = settle;
        document.body.append(made);
    });
    const tries = [
        () => fetch(url + 'fetch', {mode: 'no-cors'}),
        () => new Promise((settle) => {
            const request = new XMLHttpRequest();
            request.onloadend = settle;
            request.open('POST', url + 'xhr');
            request.send('data');
        }),
        () => navigator.sendBeacon(url + 'beacon', 'data'),
        () => new Promise((settle) => { const s = new WebSocket(`ws://${host}/ws`); s.onclose = settle; }),
        () => new Promise((settle) => { const s = new EventSource(url + 'events'); s.onerror = settle; }),
        () => element('img', {src: url + 'img'}),
        () => element('script', {src: url + 'script'}),
        () => element('link', {rel: 'stylesheet', href: url + 'style'}),
        () => new Promise((settle) => {
            const frame = document.createElement('iframe');
            frame.onload = frame.onerror = settle;
            frame.src = url + 'frame';
            document.body.append(frame);
        }),
        () => new Worker(url + 'worker'),
        () => import(url + 'module'),
    ];
    Promise.all(tries.map((one) => Promise.race([
        Promise.resolve().then(one).catch(() => 0),
        new Promise((settle) => setTimeout(settle, 4000)),
    ]))).then(() => done(tries.length));
"""


def no_connection(page, directory):
    """The page asked for nothing, and cannot even when something in it tries to."""
    browser = page.browser
    asked = [url for url in browser.requests() if not url.startswith("data:") and url != page.url]
    if asked:
        fail(f"the page asked for {asked}")
    listener = Listener()
    page.open()
    tried = browser.run_async(TRIES, listener.port)
    # The same tries from a page without such rules, so that a listener is known to hear.
    control, hearing = directory / "control.html", Listener()
    control.write_text("<!doctype html><title>control</title><body></body>")
    browser.open(control.resolve().as_uri())
    browser.run_async(TRIES, hearing.port)
    if len(hearing.asked) < 8:
        fail(f"a page without rules got only this out, so the test hears nothing: {hearing.asked}")
    # Last, for what a page leaves behind when it is closed.
    if listener.asked:
        fail(f"the page's own rules let this out: {listener.asked}")
    print(f"browser: no request while verifying; of {tried} ways out of the page none leads anywhere "
          f"(without its rules {len(hearing.asked)} do)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--cases", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--chromedriver", default="/usr/bin/chromedriver")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Browser(arguments.chromium, arguments.chromedriver) as browser:
        directory, page = pathlib.Path(name), Page(browser, arguments.page)
        browser.open("about:blank")
        browser.requests()  # the browser's own first tab, which is no page of ours

        def shots(label):
            if arguments.screenshots:
                arguments.screenshots.mkdir(parents=True, exist_ok=True)
                browser.screenshot(arguments.screenshots / f"{label}.png")

        cases = json.loads(arguments.cases.read_text()) if arguments.cases else vectors(directory)
        what = "fresh receipts" if arguments.cases else "vectors"
        print(f"browser: Chromium {browser.version} judges {len(cases)} {what} as it must: {run_cases(page, cases)}")
        if not arguments.cases:
            good = next(case for case in cases if case["verdict"] == "valid" and case["key"] and "quorum none" not in case["trust"])
            behaviour(page, good, directory, shots)
            keyboard_and_names(browser, shots)
            no_connection(page, directory)
        problems = [line["message"] for line in browser.messages("browser")
                    if line["level"] == "SEVERE" and "Content Security Policy" not in line["message"]
                    and "127.0.0.1" not in line["message"]]
        if problems:
            fail(f"the console says {problems}")


if __name__ == "__main__":
    main()
