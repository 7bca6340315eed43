"""The systems under test: how each is started, asked who leads, put under load, and stopped."""

import contextlib
import glob
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from urllib.parse import urlsplit

from tools import Failure, tied

READY_SECONDS = 60
# A node may finish its requests, hand over its leadership and seal; then it is killed.
STOP_SECONDS = 20


def free_ports(count):
    """Ports that are free now: all held at once, so that none is given twice."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def ask(method, url, body=None):
    """The JSON that a server answers, or None. Not urllib, which would ask a proxy."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2)
    try:
        connection.request(method, urlsplit(url).path, body)
        answer = connection.getresponse()
        text = answer.read()
        return json.loads(text or b"{}") if answer.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def wait_for(what, servers, condition):
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        if any(server.poll() is not None for server in servers):
            raise Failure(f"a server stopped while waiting: {what}")
        time.sleep(0.1)
    raise Failure(f"not within {READY_SECONDS} s: {what}")


def first_words(binary):
    """What it says its version is."""
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()


class System:
    """Something under test: its processes, each with its descendants in a session of its own, and its directory.

    Those below also say how to `start` it, who is the `leader`, and with which `command` to put it under load.
    """

    def __init__(self, name, directory, nodes):
        self.name, self.directory, self.nodes = name, directory, nodes
        self.processes = []
        os.mkdir(directory)

    def spawn(self, command):
        """Starts a server that cannot outlive this script, not even if that is killed."""
        # Settings of the caller's shell must not reach what is measured.
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SCRIBE_", "ETCD_"))}
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                tied("TERM") + command,
                cwd=self.directory,
                env=clean,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)

    @property
    def log(self):
        return f"{self.directory}/log"

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def cpu_seconds(self):
        """Of all its processes that live; a session's number is that of the process that leads it."""
        sessions = {process.pid for process in self.processes}
        ticks = 0
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) in sessions:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Etcd(System):
    def __init__(self, binary, load, directory, nodes):
        version = re.search(r"Version: (\S+)", first_words(binary)).group(1)
        super().__init__(f"etcd {version}", directory, nodes)
        self.binary, self.load_program = binary, load
        ports = free_ports(2 * nodes)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:nodes]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[nodes:]]

    def start(self):
        members = ",".join(f"n{number}={url}" for number, url in enumerate(self.peers))
        for number, (url, peer) in enumerate(zip(self.urls, self.peers)):
            # Defaults but for addresses and noise. The quota is above what an hour puts.
            self.spawn(
                [self.binary, "--name", f"n{number}", "--data-dir", f"{self.directory}/n{number}"]
                + ["--listen-client-urls", url, "--advertise-client-urls", url]
                + ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
                + ["--initial-cluster", members, "--initial-cluster-state", "new"]
                + ["--quota-backend-bytes", str(16 << 30), "--log-level", "error"]
            )
        wait_for("etcd has a leader", self.processes, self.leader)

    def leader(self):
        for url in self.urls:
            status = ask("POST", f"{url}/v3/maintenance/status", "{}")
            if status and status.get("leader") == status["header"]["member_id"]:
                return url
        return None

    def command(self, operation, clients, seconds, warmup, length, fill):
        target = self.leader() or self.urls[0]
        return (
            [self.load_program, "--endpoints", target, "--operation", operation, "--clients", str(clients)]
            + ["--seconds", str(seconds), "--warmup-seconds", str(warmup), "--value-length", str(length)]
            + ([] if fill else ["--no-fill"])
        )


class Scribe(System):
    def __init__(self, binary, directory, nodes):
        # Asked before anything is started.
        if nodes > 1 and subprocess.run([binary, "cluster", "up", "--help"], capture_output=True).returncode != 0:
            raise Failure("this scribe has no `cluster up`", "compare one node each with --scribe single", 1)
        super().__init__(first_words(binary), directory, nodes)
        self.binary, self.urls, self.runs = binary, [], 0

    def start(self):
        if self.nodes == 1:
            raft, data = free_ports(1)[0], self.directory
            self.spawn(
                [self.binary, "serve", "--data-dir", f"{data}/data", "--key-dir", f"{data}/keys", "--log", "warn"]
                + ["--http-addr", "127.0.0.1:0", "--raft-addr", f"127.0.0.1:{raft}"]
            )
        else:
            up = [self.binary, "cluster", "up", "--nodes", str(self.nodes)]
            self.spawn([*up, "--data-dir", f"{self.directory}/data"])
        self.urls = wait_for("scribe is ready", self.processes, self.announced)
        wait_for("scribe takes requests", self.processes, self.all_ready)

    def announced(self):
        """The nodes' URLs, once it says that it is ready. Nothing else here knows what scribe prints when it starts.

        One node says `scribe … is ready` and one URL. `cluster up` prints a line with id and URL for each node, then
        `cluster is ready`.
        """
        text = self.said()
        if not re.search(r"cluster is ready" if self.nodes > 1 else r"is ready", text):
            return None
        # The same URL may stand in an example below; each counts once, in the order of the nodes.
        urls = list(dict.fromkeys(re.findall(r"http://127\.0\.0\.1:\d+", text)))
        return urls[: self.nodes] if len(urls) >= self.nodes else None

    def all_ready(self):
        return all(ask("GET", f"{url}/health/ready") is not None for url in self.urls)

    def leader(self):
        """The URL of the node that leads: asked of `/v1/cluster`, whose ids count from 1 in the order of the URLs."""
        if self.nodes == 1:
            return self.urls[0]
        for url in self.urls:
            leader = (ask("GET", f"{url}/v1/cluster") or {}).get("leader")
            if isinstance(leader, int) and 1 <= leader <= len(self.urls):
                return self.urls[leader - 1]
        raise Failure("scribe does not say which node leads")

    def command(self, operation, clients, seconds, warmup, length, fill):
        verb, _, consistency = operation.partition("-")
        path, keys = "/v1/keys/{key}", 10_000
        if consistency == "serial":
            path += "?consistency=stale"
        if verb == "put":
            # No key twice, as with etcdload: `bench` draws the same random keys in every run, out of at most 2^32, so
            # each run has an ending of its own.
            self.runs += 1
            path, keys = f"{path}-{self.runs:05}", 1 << 32
        return (
            [self.binary, "bench", "--output", "json", "--server", self.leader(), "--operation", verb]
            + ["--connections", str(clients), "--seconds", str(seconds), "--warmup-seconds", str(warmup)]
            + ["--value-bytes", str(length), "--keys", str(keys), "--path", path]
            + ([] if fill else ["--no-fill"])
        )
