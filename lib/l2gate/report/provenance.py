# SPDX-License-Identifier: MIT
"""Where a result comes from: when, by which l2gate, on which controller, of which kernel."""

from __future__ import annotations

import os
import platform
import subprocess
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from l2gate.foundation import suite
from l2gate.foundation.settings import checkout
from l2gate.records.descriptions import Digest, HostDescription, KernelDescription

UNKNOWN = "unknown"

#: What makes a checkout another one than its commit; results and notes beside it do not.
_TRACKED = ("lib", "tests", "images", "Makefile", "requirements.txt", "avocado.cfg")
_GIT_SECONDS = 10


@dataclass(frozen=True)
class Version:
    """l2gate itself. ``commit`` has 40 digits; it is `unknown` and ``changed`` is null where there
    is no git, or the checkout is none of its own."""

    number: str
    commit: str = UNKNOWN
    changed: bool | None = None

    def __str__(self) -> str:
        commit = self.commit if self.commit == UNKNOWN else self.commit[:7]
        return f"l2gate {self.number} (commit {commit}{' +changes' if self.changed else ''})"


@dataclass(frozen=True)
class Controller:
    """The machine that l2gate runs on; ``cpus`` are those that it may use."""

    distribution: str
    kernel: str
    cpu: str
    cpus: int
    python: str

    def __str__(self) -> str:
        machine = f"Linux {self.kernel}, {self.cpus} x {self.cpu}"
        return f"{self.distribution}, {machine}, Python {self.python}"


@dataclass(frozen=True)
class Provenance:
    """``started`` is ISO 8601 in UTC, ``seconds`` the wall time of the whole. ``suite`` is the
    SHA-256 of the suite's own files (foundation/suite.py). ``emulator`` are the words of Bochs or
    QEMU that emulate the host, ``l1_qemu`` is the version of the QEMU on L0 that runs L1; empty:
    none. ``image`` is null where a kernel is judged that l2gate has not booted."""

    started: str
    l2gate: Version
    suite: str
    controller: Controller
    seconds: float = 0.0
    emulator: str = ""
    l1_qemu: str = ""
    image: Digest | None = None
    patches: tuple[Digest, ...] = ()

    def of_job(
        self,
        seconds: float,
        host: HostDescription | None,
        kernel: KernelDescription | None,
        l1_qemu: str,
    ) -> Provenance:
        """With what the timeline of a job says of host and kernel."""
        return replace(
            self,
            seconds=round(seconds, 3),
            emulator=host.emulator if host else "",
            l1_qemu=l1_qemu,
            image=kernel.image if kernel else None,
            patches=tuple(kernel.patches) if kernel else (),
        )

    def lines(self) -> list[str]:
        """For a person, two lines: what asked, and where."""
        parts = [f"{self.started}, {self.seconds:.0f} s", f"{self.l2gate}, suite {self.suite[:12]}"]
        digests = [str(one) for one in (self.image, *self.patches) if one]
        if digests:
            parts.append(f"sha256 of {', '.join(digests)}")
        return ["; ".join(parts), str(self.controller)]


def here() -> Provenance:
    """What is known before anything is asked; ``started`` is now."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Provenance(now, version(), suite.digest(), controller())


def version_line() -> str:
    """`l2gate 0.1.0 (commit 317fe37 +changes)`, for a person."""
    return str(version())


def version() -> Version:
    """Of the checkout that runs. Never raises."""
    root = checkout()
    number = _number(root)
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != root:  # a copy without .git inside a repository of another thing
            return Version(number)
        commit = _git(root, "rev-parse", "--verify", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", *_TRACKED)
    except (OSError, subprocess.SubprocessError):
        return Version(number)
    return Version(number, commit, bool(changed))


def _number(root: Path) -> str:
    """The checkout says it itself; what pip noted when it was installed may be older."""
    try:
        return str(tomllib.loads((root / "lib/pyproject.toml").read_text())["project"]["version"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        return metadata.version("l2gate")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def _git(root: Path, *words: str) -> str:
    """Git's answer about the checkout, whoever owns it and whatever is in the environment of a git
    hook. It writes nothing and starts no program that the checkout names."""
    environment = {key: one for key, one in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(root)]
    done = subprocess.run(
        [*command, *words],
        stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=_GIT_SECONDS,
        check=True, text=True, errors="replace",
    )  # fmt: skip
    return done.stdout.strip()


def controller() -> Controller:
    """The machine that this runs on. Never raises."""
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME", UNKNOWN)
    except OSError:
        distribution = UNKNOWN
    return Controller(
        distribution=distribution,
        kernel=platform.release(),
        cpu=_cpu(),
        cpus=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
    )


def _cpu(table: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = table.read_text(errors="replace").splitlines()
    except OSError:
        return UNKNOWN
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else platform.machine() or UNKNOWN
