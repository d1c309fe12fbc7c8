# SPDX-License-Identifier: MIT
"""Private folders of jobs: each is locked by its owner, so what a killed one left can be told."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from l2gate.foundation.errors import BenchError

_PREFIX = "l2gate-"


class Scratch:
    """A folder for this process alone, mode 0700. Close it, or use it in a `with`.

    Making one removes what killed processes of the same user left behind. Raises BenchError where
    there is no place for it.
    """

    def __init__(self, purpose: str) -> None:
        sweep()
        try:
            # Locked before it gets the name that a sweep looks for.
            draft = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}{purpose}-", dir=_base()))
        except OSError as error:
            named = "TMPDIR" if os.environ.get("TMPDIR") else "the temporary folder"
            raise BenchError(
                f"{named} {_base()} takes no folder of a job: {error.strerror}",
                "set TMPDIR to an existing, writable folder with 300 MB free",
            ) from error
        self._lock = (draft / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = draft.rename(draft.with_name(draft.name[1:]))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, *, keep: bool = False) -> None:
        """Remove the folder. With ``keep`` it stays, and no sweep will take it."""
        if keep:
            (self.path / "lock").unlink(missing_ok=True)
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def sweep() -> None:
    """Remove the folders whose owner is gone: their lock is free."""
    for folder, _ in _abandoned():
        shutil.rmtree(folder, ignore_errors=True)


def left_behind() -> list[Path]:
    """The folders of this user whose owner is gone."""
    return [folder for folder, _ in _abandoned()]


def _abandoned() -> Iterator[tuple[Path, IO[str]]]:
    """Each with its lock, which is held until the next."""
    for folder in _base().glob(f"{_PREFIX}*"):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
            continue
        with suppress(OSError), (folder / "lock").open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder, handle


def _base() -> Path:
    # Not tempfile.gettempdir(): Avocado moves that for its own processes.
    return Path(os.environ.get("TMPDIR") or "/tmp")
