"""Drive a headless Chromium through chromedriver with the standard library alone (W3C WebDriver).

As much of the protocol as interop/browser/check.py needs; no retries, no comfort.
"""
import base64
import http.client
import json
import pathlib
import re
import subprocess
import tempfile
import time

# What keeps the browser itself quiet and able to run as root in a container.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One browser with a fresh profile; use it as a context."""

    def __init__(self, chromium, chromedriver, width=1280, height=1000):
        self.profile = tempfile.TemporaryDirectory(prefix="scribe-browser-")
        self.log = open(pathlib.Path(self.profile.name) / "driver.log", "w+")
        self.driver = subprocess.Popen([chromedriver, "--port=0"], stdout=self.log, stderr=subprocess.STDOUT)
        self.session = None
        try:
            self.port = self._port()
            arguments = FLAGS + [f"--user-data-dir={self.profile.name}/user", f"--window-size={width},{height}"]
            options = {
                "binary": chromium,
                "args": arguments,
                "perfLoggingPrefs": {"enableNetwork": True, "enablePage": False},
            }
            wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                      "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
            made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.session = f"/session/{made['sessionId']}"
            self.version = made["capabilities"]["browserVersion"]
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.session:
            try:
                self.call("DELETE", self.session)
            except (OSError, RuntimeError, http.client.HTTPException):
                pass  # it ends with the driver
            self.session = None
        self.driver.terminate()
        try:
            self.driver.wait(20)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            self.driver.wait()
        self.log.close()
        # Chromium's helpers may write into the profile for a moment longer.
        for _ in range(50):
            try:
                self.profile.cleanup()
                return
            except OSError:
                time.sleep(0.1)

    def _port(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.log.seek(0)
            found = re.search(r"started successfully on port (\d+)", self.log.read())
            if found:
                return int(found[1])
            if self.driver.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("chromedriver did not start")

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, None if method != "POST" else json.dumps(body or {}),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            value = json.loads(answer.read())["value"]
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"webdriver: {method} {path}: {value.get('error')}: {value.get('message')}")
        return value

    def open(self, url):
        self.call("POST", f"{self.session}/url", {"url": url})

    def run(self, script, *arguments):
        """Runs JavaScript; `return` gives its result."""
        return self.call("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script, *arguments):
        """Runs JavaScript, whose last argument is the function that takes the result."""
        return self.call("POST", f"{self.session}/execute/async", {"script": script, "args": list(arguments)})

    def type(self, selector, text):
        """Types into an element; into a file input: a path."""
        found = self.call("POST", f"{self.session}/element", {"using": "css selector", "value": selector})
        self.call("POST", f"{self.session}/element/{found[ELEMENT]}/value", {"text": text})

    def wait(self, condition, seconds=60):
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.run(f"return Boolean({condition})"):
                return
            time.sleep(0.02)
        raise RuntimeError(f"not within {seconds} s: {condition}")

    def messages(self, kind):
        """What was logged since the last call: `performance` (what the network did) or `browser` (the console)."""
        return self.call("POST", f"{self.session}/se/log", {"type": kind})

    def requests(self):
        """Every address that was asked for since the last call."""
        found = []
        for line in self.messages("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                parameters = message["params"]
                found.append(parameters.get("url") or parameters["request"]["url"])
        return found

    def chromium(self, command, **parameters):
        """A command of Chromium's own protocol."""
        return self.call("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path):
        """The whole page as PNG, not only what fits the window."""
        shot = self.chromium("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))
