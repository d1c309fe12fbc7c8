# SPDX-License-Identifier: MIT
"""`l2gate doctor`: every prerequisite at once: what was found, is it enough, the hint."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from l2gate.foundation import cache, debian
from l2gate.foundation.errors import L2gateError
from l2gate.foundation.events import Timeline
from l2gate.foundation.memory import available_memory
from l2gate.foundation.settings import Settings, cache_dir, state_dir
from l2gate.hosts import kinds
from l2gate.hosts.checks import Check, failed
from l2gate.hosts.kind import Kind
from l2gate.images import build, helper

#: Programs of the controller: how each is tried, and what it is for.
_PROGRAMS = {
    "gcc": (("--version",), "compiles the helper"),
    "make": (("--version",), "compiles the helper and kvm.ko"),
    "git": (("--version",), "reads and applies patches"),
    "mmdebstrap": (("--version",), "fetches the suite roots"),
    "mksquashfs": (("-version",), "packs the images"),
    "cpio": (("--version",), "packs the initramfs"),
    "zstd": (("--version",), "unpacks kernels and modules"),
    "ssh": (("-V",), "says what a host's name means"),
}
#: What the compiler of a suite is run in, as images/debian.py does it.
_SANDBOX = ("bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/",
            "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "true")  # fmt: skip
_TRIAL_SECONDS = 20
_LIBRARIES = ("avocado-framework", "qemu.qmp", "paramiko", "rich")
#: Megabytes that `make images` takes, what a job adds to them, and what it takes for itself.
_FETCH_MB, _CACHE_MB, _SCRATCH_MB, _STATE_MB = 3000, 500, 300, 50


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which a job would meet them. Raises UsageError."""
    kind = kinds.find(settings.host)
    kinds.refuse_nonsense(kind, settings)
    return [*_controller(kind), *_images(), *kind.checks(settings)]


# --- controller -----------------------------------------------------------------------------------


def _controller(kind: Kind) -> Iterator[Check]:
    version = sys.version.split()[0]
    yield Check(
        "controller", "Python", version, sys.version_info >= (3, 11), "make PYTHON=python3.11"
    )
    yield _libraries()
    for name, (words, why) in _PROGRAMS.items():
        yield _program(name, words, why)
    yield _sandbox()
    yield _cache_room()
    scratch = Path(os.environ.get("TMPDIR") or "/tmp")
    yield _room("room for a job", scratch, _SCRATCH_MB, "TMPDIR", make=False)
    yield _room("room for what stays", state_dir(), _STATE_MB, "L2GATE_STATE")
    if kind.controller_mb:
        yield _memory(kind.controller_mb)
    yield _ports()


def _libraries() -> Check:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            return Check("controller", "packages", f"{name} is missing", False, "make venv")
    return Check("controller", "packages", ", ".join(found), True)


def _program(name: str, words: Sequence[str], why: str) -> Check:
    """It is run: a file under that name need not be one that runs here."""
    found = shutil.which(name)
    if found is None:
        return Check("controller", name, f"not there ({why})", False, "make apt")
    problem = _trial((found, *words))
    said = f"{found} does not run: {problem}" if problem else found
    return Check("controller", name, said, not problem, f"install {name} anew: make apt")


def _sandbox() -> Check:
    """Bubblewrap is there in many a container whose kernel does not let it work."""
    if shutil.which(_SANDBOX[0]) is None:
        return Check("controller", "bwrap", "not there (runs the compiler of a suite)", False,
                     "make apt")  # fmt: skip
    problem = _trial(_SANDBOX)
    hint = (
        "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, on Ubuntu also "
        "kernel.apparmor_restrict_unprivileged_userns=0; in a container: --privileged"
    )
    said = f"cannot make a sandbox: {problem}" if problem else "makes a sandbox"
    return Check("controller", "bwrap", said, not problem, hint)


def _trial(words: Sequence[str]) -> str:
    """Why the program does not run, empty if it does."""
    try:
        done = subprocess.run(words, capture_output=True, timeout=_TRIAL_SECONDS, text=True,
                              errors="replace", stdin=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]


def _cache_room() -> Check:
    """A suite that was fetched may lie in a cache that nobody here can write."""
    fetched = cache.find("roots", build.GUEST_SUITE.key) is not None
    if fetched and not os.access(cache_dir(), os.W_OK):
        return _room("room for the cache (read-only here)", cache.folders()[1], _CACHE_MB,
                     "L2GATE_STATE")  # fmt: skip
    return _room("room for the cache", cache_dir(), _CACHE_MB if fetched else _FETCH_MB,
                 "L2GATE_CACHE")  # fmt: skip


def _room(what: str, folder: Path, need: int, variable: str, *, make: bool = True) -> Check:
    """``make``: a folder that is not there yet is made by whoever needs it."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free >> 20
    hint = f"free {need} MB, or set {variable} to another folder"
    if there != folder and not make:
        return Check("controller", what, f"there is no {folder}", False, hint)
    if not os.access(there, os.W_OK | os.X_OK):
        return Check("controller", what, f"{there} cannot be written", False, hint)
    return Check("controller", what, f"{free} MB free in {folder}", free >= need, hint)


def _memory(need: int) -> Check:
    free = available_memory() >> 20
    hint = f"free {need} MB: an emulated L0 takes so much"
    return Check("controller", "memory", f"{free} MB available", free >= need, hint)


def _ports() -> Check:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return Check("controller", "loopback ports", f"{server.getsockname()[1]} is free", True)
    except OSError as error:
        return Check("controller", "loopback ports", str(error), False, "ip link set lo up")


# --- images ---------------------------------------------------------------------------------------


def _images() -> Iterator[Check]:
    try:
        root = debian.find(build.GUEST_SUITE)
    except L2gateError as error:
        yield failed("images", f"Debian {build.GUEST_SUITE.name}", error)
        return
    yield Check("images", f"Debian {root.suite.name}", f"kernel {root.release}", True)
    try:
        yield Check("images", "helper", str(helper.build(Timeline())), True)
    except L2gateError as error:
        yield failed("images", "helper", error)


def ready(checks: list[Check]) -> bool:
    """Whether the suite can run."""
    return not any(check.hinders for check in checks)
