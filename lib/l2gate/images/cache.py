"""The cache: what is expensive to make is kept under a name made from what went into it."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from l2gate.errors import BenchError
from l2gate.settings import cache_dir


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


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Only one l2gate process makes ``name`` at a time; the others wait and find it made."""
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def find(kind: str, key: str) -> Path | None:
    """The finished entry, or None."""
    entry = cache_dir() / kind / key
    return entry if entry.exists() else None


def make(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The entry ``kind/key``, made by ``build(folder)`` if it is not there yet.

    An entry appears whole or not at all: it is built beside its place and renamed. Raises what
    ``build`` raises, and BenchError when the disk is full.
    """
    with lock(f"{kind}-{key}"):
        if entry := find(kind, key):
            return entry
        parent = cache_dir() / kind
        parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=parent))
        try:
            build(draft)
            draft.chmod(0o755)
            draft.rename(parent / key)
        except OSError as error:
            raise BenchError(
                f"cannot write {kind}/{key} into the cache: {error}",
                f"make room in {cache_dir()}, or point L2GATE_CACHE at a larger disk",
            ) from error
        finally:
            if draft.exists():
                shutil.rmtree(draft, ignore_errors=True)
        return parent / key
