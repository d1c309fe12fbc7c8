# SPDX-License-Identifier: MIT
"""Files that a person has asked for: looked at before the work begins, written whole or not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from l2gate.foundation.errors import UsageError

_ELSEWHERE = "give one in a folder that this user can write to"


def check_file(path: Path, option: str) -> None:
    """Raises UsageError, naming ``option``, for a file that could not be written in the end."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(0, "this user may not write it")
        if _is_plain(path):
            _try(path.resolve().parent)
    except OSError as error:
        raise _not_writable(path, option, error) from None


def check_folder(path: Path, option: str) -> None:
    """Make the folder if need be. Raises UsageError, naming ``option``, where files cannot be
    written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        _try(path)
    except OSError as error:
        raise _not_writable(path, option, error) from None


def write_whole(path: Path, text: str) -> None:
    """``path`` with that text: whole or not at all, unless it is a pipe or a device. A link is
    followed. Raises OSError."""
    if not _is_plain(path):
        path.write_text(text)
        return
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}"[-255:])
    try:
        draft.write_text(text)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _is_plain(path: Path) -> bool:
    """Whether it is a file, or will be one."""
    return path.is_file() or not path.exists()


def _try(folder: Path) -> None:
    """What the mode says is not all (read-only mounts, /proc). Raises OSError."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def _not_writable(path: Path, option: str, error: OSError) -> UsageError:
    return UsageError(f"{option} {path} cannot be written: {error.strerror}", _ELSEWHERE)
