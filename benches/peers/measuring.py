"""Runs the load generators by turns and makes the table."""

import json
import os
import resource
import statistics
import subprocess
import time

from tools import Failure, say, tied

OPERATIONS = {
    "put": "put of new keys",
    "get-linear": "get, linearizable (the default of both)",
    "get-serial": "get of what this node has, possibly old",
}
# CPU of others, in cores, above which a run is marked: it shifts latencies by a multiple of itself.
FOREIGN_MAX = 0.35


def machine_busy_seconds():
    """CPU seconds that all processes have used. Interrupts are nobody's, so they are left out."""
    with open("/proc/stat", encoding="utf-8") as file:
        user, nice, system = (int(field) for field in file.readline().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def children_seconds():
    """CPU seconds of this script and of what it waited for: the load generators, while servers run."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def wait_idle():
    """Until the machine rests: what one run leaves behind must not count for the next one. Ten seconds at most."""
    for _ in range(20):
        before = machine_busy_seconds()
        time.sleep(0.5)
        if machine_busy_seconds() - before < 0.5 * FOREIGN_MAX:
            return


def measure(command, timeout, tested, systems):
    """Runs a load generator, and once more if others disturbed it; returns the less disturbed figures."""
    first = measure_once(command, timeout, tested, systems)
    if first["foreign_cores"] <= FOREIGN_MAX:
        return first
    return min(first, measure_once(command, timeout, tested, systems), key=lambda found: found["foreign_cores"])


def measure_once(command, timeout, tested, systems):
    """The figures of a load generator in one form, with the CPU of the tested system and of others."""
    wait_idle()
    began, busy, own = time.monotonic(), machine_busy_seconds(), children_seconds()
    before = {system: system.cpu_seconds() for system in systems}
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        result = subprocess.run(tied("KILL") + command, timeout=timeout, **quiet)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"`{os.path.basename(command[0])}` was not done within {timeout} s") from error
    if result.returncode != 0:
        raise Failure(f"`{' '.join(command)}` exited with {result.returncode}: {result.stderr.strip()}")
    used = {system: system.cpu_seconds() - before[system] for system in systems}
    wall = time.monotonic() - began
    foreign = machine_busy_seconds() - busy - (children_seconds() - own) - sum(used.values())
    found = json.loads(result.stdout.splitlines()[-1])
    latency = found.get("latency_us", {})
    return {
        "per_second": found["per_second"],
        "p50_us": found.get("p50_us", latency.get("p50")),
        "p99_us": found.get("p99_us", latency.get("p99")),
        "max_us": found.get("max_us", latency.get("max")),
        "errors": found["errors"],
        "first_error": found.get("first_error"),
        "server_cores": used[tested] / wall if tested else None,
        "foreign_cores": max(0.0, foreign / wall),
    }


def plan(arguments, etcd, scribe):
    """What one round runs, in order: (system, operation, clients). The yardsticks are strings."""
    steps = []
    for clients in arguments.clients:
        for operation in arguments.operations:
            steps += [(etcd, operation, clients), (scribe, operation, clients)]
            steps.append(("hello", operation.split("-")[0], clients))
    steps.append(("fdatasync", "fdatasync", 1))
    return list(dict.fromkeys(steps))


def measure_all(arguments, etcd, scribe, directory):
    systems = [etcd, scribe]
    if any(operation != "put" for operation in arguments.operations):
        say("putting the keys that the gets read")
        for system in systems:
            measure(system.command("get-linear", 64, 1, 0, arguments.value_length, True), 120, system, systems)
    steps = plan(arguments, etcd, scribe)
    runs = {}
    bench = [scribe.binary, "bench", "--output", "json", "--value-bytes", str(arguments.value_length)]
    bench += ["--seconds", str(arguments.seconds)]
    for number in range(arguments.rounds):
        # Every other round backwards: what drifts with time hits both sides alike.
        for step in steps if number % 2 == 0 else reversed(steps):
            system, operation, clients = step
            if system == "hello":
                name, tested = "hello", None
                command = [*bench, "--hello", "--operation", operation, "--connections", str(clients)]
            elif system == "fdatasync":
                name, tested = "fdatasync", None
                command = [*bench, "--operation", "fdatasync", "--data-dir", directory]
            else:
                name, tested = system.name, system
                command = system.command(operation, clients, arguments.seconds, 1, arguments.value_length, False)
            found = measure(command, arguments.seconds + 60, tested, systems)
            what = f"{name} {operation}, {clients} at once: {found['per_second']:,.0f}/s"
            say(f"round {number + 1}/{arguments.rounds}: {what}")
            runs.setdefault(step, []).append(found)
    return runs


def middle(runs):
    """The median of each figure over the undisturbed runs, and what says how far to trust it."""
    failed = any(run["errors"] for run in runs)
    undisturbed = [run for run in runs if run["foreign_cores"] <= FOREIGN_MAX]
    disturbed = 2 * len(undisturbed) < len(runs)
    runs = undisturbed or runs
    figures = {
        name: statistics.median(run[name] for run in runs)
        for name in ("per_second", "p50_us", "p99_us", "server_cores")
        if runs[0][name] is not None
    }
    rates = [run["per_second"] for run in runs]
    # One run has no spread, and "0%" would look like a good one.
    figures["spread"] = f"{(max(rates) - min(rates)) / figures['per_second']:.0%}" if len(rates) > 1 else "one run"
    figures["marks"] = "!" * failed + "~" * disturbed
    return figures


def latency(microseconds):
    return f"{microseconds / 1e3:.2f} ms" if microseconds < 1e4 else f"{microseconds / 1e3:.0f} ms"


def line(cells):
    widths = (24, 11, 7, 9, 9, 12, 7, 8, 11, 3)
    first, *others = zip(cells, widths)
    cells = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]
    return "  ".join(cells).rstrip()


def row(name, figures, others=()):
    """A row of the table, with how many times the rate of each of `others` its own is."""
    cores = figures.get("server_cores")
    cells = [f"  {name}", f"{figures['per_second']:,.0f}", figures["spread"]]
    cells += [latency(figures["p50_us"]), latency(figures["p99_us"]), "" if cores is None else f"{cores:.2f}"]
    ratios = [f"{figures['per_second'] / other['per_second']:.2f}" for other in others]
    return line([*cells, *ratios, *[""] * (3 - len(ratios)), figures["marks"]])


def table(arguments, etcd, scribe, runs):
    middles = {step: middle(found) for step, found in runs.items()}
    disk = middles["fdatasync", "fdatasync", 1]
    one = scribe.nodes == 1
    nodes = "one node" if one else f"{scribe.nodes} nodes"
    lines = [
        f"{etcd.name} and {scribe.name}, {nodes} each, sharing {os.cpu_count()} cores with the load generator",
        f"load: closed loop to the leader, {arguments.value_length}-byte values; medians of {arguments.rounds} runs of "
        + f"{arguments.seconds} s after 1 s of warm-up",
        "",
        line(["", "per second", "spread", "p50", "p99", "server cores", "x etcd", "x hello", "x fdatasync"]),
    ]
    for operation in arguments.operations:
        for clients in arguments.clients:
            lines.append(f"{OPERATIONS[operation]}, {clients} clients")
            hello = middles["hello", operation.split("-")[0], clients]
            theirs, ours = middles[etcd, operation, clients], middles[scribe, operation, clients]
            others = [theirs, hello, disk] if operation == "put" else [theirs, hello]
            lines += [row(etcd.name, theirs, others), row(scribe.name, ours, others), row("hello", hello)]
    lines += ["append and sync one value, again and again", row("fdatasync", disk), ""]
    where = "" if one else " on a majority of its nodes"
    lines.append(f"durability: etcd and scribe answer a put after fdatasync{where}, many puts to a sync;")
    lines.append("the fdatasync row syncs each value by itself; hello keeps nothing")
    marks = "".join(figures["marks"] for figures in middles.values())
    if "~" in marks:
        lines.append(f"~ others used more than {FOREIGN_MAX} cores during most of its runs: do not rely on this row")
    if "!" in marks:
        errors = [run["first_error"] for found in runs.values() for run in found if run["errors"]]
        lines.append(f"! requests failed, the first with: {errors[0]}")
    return "\n".join(lines)
