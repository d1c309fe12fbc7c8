# SPDX-License-Identifier: MIT
"""Templates: emulated machines that were booted once and are kept, for later jobs to start from.

A template is a folder of its own, mode 0700, below `state_dir()/warm`. What is in it depends on the
emulator: of QEMU the guest's RAM and the device state of a migration, of Bochs a parked process
that forks. Beside that lies what the next job must know of it. One that was made before this
machine was started is void: nobody knows how much of it reached the disk.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from l2gate.foundation.errors import BenchError
from l2gate.foundation.memory import available_memory
from l2gate.foundation.process import end_other
from l2gate.foundation.settings import state_dir
from l2gate.hosts.persistent import born_at

#: A matrix of four kernels, three variants of each, on two kinds of host.
MOST = 24
#: Bytes that must be left for others, of memory and of the disk, before one more is kept.
LEFT_FREE = 3 << 30

_END_SECONDS = 30.0
_RECORD = "template.json"
_DRAFT, _OWNER = ".draft-", "owner"


@dataclass(frozen=True)
class Template:
    """A machine that is kept. ``booted`` is ISO 8601 in UTC, ``host_key`` the public half of L0's,
    ``about`` what the bench notes of L1. ``parked`` is the process that waits for it, if there is
    one, else 0, ``born`` when that was started."""

    folder: Path
    key: str
    kind: str
    kernel: str
    booted: str
    host_key: str
    boot_id: str
    about: dict[str, Any]
    parked: int = 0
    born: str = ""

    @property
    def alive(self) -> bool:
        """Whether it can be started from."""
        if self.boot_id != boot_id():
            return False
        return not self.parked or born_at(self.parked) == self.born

    @property
    def client_key(self) -> Path:
        """The private half of the key that L0 takes."""
        return self.folder / "key"

    @property
    def console(self) -> Path:
        """What L0 had said until then."""
        return self.folder / "l0-console.log"

    @property
    def used(self) -> float:
        """Seconds since it was last started from."""
        return time.time() - (self.folder / _RECORD).stat().st_mtime

    @property
    def megabytes(self) -> int:
        """What it takes of the disk."""
        return sum(f.stat().st_blocks for f in self.folder.iterdir() if f.is_file()) >> 11


def home() -> Path:
    """Where they are kept."""
    return state_dir() / "warm"


def now() -> str:
    """As `Template.booted` has it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@functools.cache
def boot_id() -> str:
    """Names this run of this machine (proc(5): sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Draft:
    """A folder in which a template is to be made, locked by its owner. Close it: what was not
    published is removed. Raises BenchError where there is no place."""

    def __init__(self) -> None:
        _sweep()
        try:
            home().mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=home()))
            self._lock = (self.path / _OWNER).open("w")
        except OSError as error:
            raise BenchError(
                f"no place for a template in {home()}: {error.strerror}",
                "set L2GATE_STATE to another folder, or warm=no",
            ) from error
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def publish(self, template: Template) -> Template:
        """Let other jobs find what was made here. It stays this job's own if another one was
        quicker."""
        told = asdict(template)
        del told["folder"]
        (self.path / _RECORD).write_text(json.dumps(told, indent=1))
        place = home() / template.key
        with _locked():
            if find(template.key):
                return template
            shutil.rmtree(place, ignore_errors=True)
            self.path.rename(place)
            for old in kept()[:-MOST]:
                forget(old)
        return replace(template, folder=place)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _sweep() -> None:
    """Remove what a killed job has left half-made."""
    for folder in home().glob(f"{_DRAFT}*"):
        with suppress(OSError), (folder / _OWNER).open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def find(key: str) -> Template | None:
    """The template of that key, used now; None where there is none that can be used."""
    template = _read(home() / key)
    if template is None:
        return None
    if not template.alive:
        forget(template)
        return None
    with suppress(OSError):
        os.utime(template.folder / _RECORD)
    return template


def kept() -> list[Template]:
    """All that can be started from, the longest unused first; what cannot is removed."""
    folders = sorted(home().glob("[!.]*"))
    found = [one for folder in folders if (one := _read(folder))]
    for dead in [one for one in found if not one.alive]:
        forget(dead)
    return sorted((one for one in found if one.alive), key=lambda one: -one.used)


def end(template: Template) -> None:
    """End the process that waits for it, if there is one."""
    if template.parked:
        end_other(template.parked, lambda: template.alive, signal.SIGKILL, _END_SECONDS)


def forget(template: Template) -> None:
    """End what is parked, and remove its folder. What was started from it goes on: its files stay
    until they are closed."""
    end(template)
    doomed = template.folder.with_name(f".removed-{template.key}-{os.getpid()}")
    with suppress(OSError):
        template.folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def make_room() -> bool:
    """Whether this machine has room for one more; the longest unused make room for it."""
    while _free() < LEFT_FREE:
        if not (old := kept()):
            return False
        forget(old[0])
    return True


def _free() -> int:
    """Bytes, of memory or of the disk, whichever there is less of."""
    home().mkdir(parents=True, exist_ok=True, mode=0o700)
    return min(available_memory(), shutil.disk_usage(home()).free)


@contextmanager
def _locked() -> Iterator[None]:
    """Only one job changes the list at a time."""
    home().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home() / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read(folder: Path) -> Template | None:
    """None for what is no template, or is damaged."""
    try:
        told = json.loads((folder / _RECORD).read_text())
        return Template(folder=folder, **told)
    except (OSError, ValueError, TypeError):
        return None
