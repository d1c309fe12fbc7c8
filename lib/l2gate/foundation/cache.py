# SPDX-License-Identifier: MIT
"""The cache: what is expensive to make is kept under a name made from what went into it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.errors import BenchError
from l2gate.foundation.settings import cache_dir, state_dir

#: What no job has used for so many days is of no use any more.
UNUSED_DAYS = 30


def digest(*parts: str | bytes | Path) -> str:
    """A short name for ``parts``: strings and bytes by value, files by content."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            data = part.read_bytes()
        else:
            data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]


def sha256(path: Path) -> str:
    """The whole digest of a file's content, as sha256sum(1) says it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    """Only one l2gate process makes ``name`` at a time; the others wait and find it made."""
    locks = folder / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def folders() -> tuple[Path, Path]:
    """Where entries are looked for: the cache, and what a read-only cache lacked."""
    return cache_dir(), state_dir() / "cache"


def find(kind: str, key: str) -> Path | None:
    """The finished entry, or None. One that is found counts as used today."""
    for entry in (folder / kind / key for folder in folders()):
        if entry.exists():
            with suppress(OSError):  # a read-only cache is pruned by whoever may write it
                os.utime(entry)
            return entry
    return None


def make(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The entry ``kind/key``, made by ``build(folder)`` if it is not there yet.

    An entry appears whole or not at all: it is built beside its place and renamed, so one that is
    there needs no lock. Raises what ``build`` raises, and BenchError when the disk is full.
    """
    if entry := find(kind, key):
        return entry
    folder = _writable()
    with _lock(folder, f"{kind}-{key}"):
        if entry := find(kind, key):
            return entry
        parent = folder / kind
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob(f".{key}-*"):  # by a process that was killed: we have the lock
                _remove(left)
            draft = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=parent))
        except OSError as error:
            raise _no_room(folder, f"{kind}/{key}", error) from error
        try:
            build(draft)
            draft.chmod(0o755)
            draft.rename(parent / key)
        except OSError as error:
            raise _no_room(folder, f"{kind}/{key}", error) from error
        finally:
            if draft.exists():
                _remove(draft)
        return parent / key


def _writable() -> Path:
    """The cache; where it is read-only, the place for what it lacks. Raises BenchError."""
    for folder in folders():
        if _may_write(folder):
            return folder
    raise _no_room(cache_dir(), "anything", OSError("neither folder can be written"))


def _may_write(folder: Path) -> bool:
    """Tried: what the mode says is not all (read-only mounts, quotas)."""
    try:
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "locks"):
            return True
    except OSError:
        return False


def _no_room(folder: Path, what: str, error: OSError) -> BenchError:
    return BenchError(
        f"cannot write {what} into the cache: {error}",
        f"free space in {folder}, or set L2GATE_CACHE to another folder, or L2GATE_STATE for "
        "what a read-only cache lacks",
    )


def _remove(draft: Path) -> None:
    """Also what a package made read-only."""
    shutil.rmtree(draft, ignore_errors=True)
    if draft.exists():
        for folder in (draft, *(p for p in draft.rglob("*") if p.is_dir() and not p.is_symlink())):
            folder.chmod(0o700)
        shutil.rmtree(draft, ignore_errors=True)


# --- l2gate cache ---------------------------------------------------------------------------------

#: What each kind of entry holds.
KINDS = {
    "roots": "Debian suites: kernel, source, compiler, programs",
    "kvm-tree": "KVM's source with its objects, compiled once for each series",
    "kvm-source": "KVM's source alone",
    "modules": "KVM modules built with patches",
    "trees": "kernels built from source trees of yours",
    "vmlinux": "unpacked kernels",
    "l0-initrd": "initramfs of each kernel under test",
    "userland": "the image of L0 and L1",
    "helper": "the helper binary",
    "rom": "the ROM by which Bochs starts a kernel",
    "park": "what is loaded into Bochs to park it",
    "bochs": "what was found out of a Bochs binary",
}


@dataclass(frozen=True)
class Entry:
    """Something that is kept: its size in bytes, and how many days ago it was used. A ``draft`` was
    left half-made by a process that was killed."""

    folder: Path
    kind: str
    path: Path
    size: int
    days: float
    draft: bool

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.path.name}"


def entries() -> list[Entry]:
    """All that is kept, in both folders. What another process is making is left out."""
    found = []
    for folder in folders():
        for kind in sorted(folder.iterdir()) if folder.is_dir() else ():
            if kind.name != "locks" and kind.is_dir():
                paths = [path for path in sorted(kind.iterdir()) if path.is_dir()]
                found += [one for path in paths if (one := _entry(folder, kind.name, path))]
    return found


def _entry(folder: Path, kind: str, path: Path) -> Entry | None:
    draft = path.name.startswith(".")
    if draft and _is_being_made(folder, kind, path):
        return None
    days = (time.time() - path.stat().st_mtime) / 86400
    return Entry(folder, kind, path, _size(path), days, draft)


def _is_being_made(folder: Path, kind: str, draft: Path) -> bool:
    """Whether a process holds the lock of what ``draft`` (`.KEY-xxxxxxxx`) becomes."""
    key = draft.name[1:].rpartition("-")[0]
    try:
        with (folder / "locks" / f"{kind}-{key}").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _size(path: Path) -> int:
    """Bytes on the disk; files with several names count once."""
    blocks = {}
    for root, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                stat = os.lstat(os.path.join(root, name))  # noqa: PTH118 (50,000 files)
                blocks[stat.st_ino] = stat.st_blocks * 512
    return sum(blocks.values())


def prunable(held: Sequence[Entry], days: float) -> list[Entry]:
    """What was not used for so many days, and what was left half-made."""
    return [entry for entry in held if entry.draft or entry.days > days]


def remove(entry: Entry) -> None:
    """Raises BenchError where it cannot be removed."""
    doomed = entry.path.with_name(f".{entry.path.name.lstrip('.')}-removed")
    try:
        entry.path.rename(doomed)  # whole or not at all
    except OSError as error:
        raise BenchError(
            f"cannot remove {entry.path}: {error.strerror}", "check that it belongs to this user"
        ) from error
    _remove(doomed)
