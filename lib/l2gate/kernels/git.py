# SPDX-License-Identifier: MIT
"""git, as a tool that reads and applies patches: outside any repository, with nobody's settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.errors import MissingPrerequisite

#: A repository that is there by chance would filter paths, and settings would change what applies.
_ALONE = {
    "GIT_DIR": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
}


@dataclass(frozen=True)
class Said:
    """What git came to: its exit status, stdout, and its complaints, one a line."""

    status: int
    output: bytes
    errors: tuple[str, ...]


def git(words: Sequence[str | Path], stdin: bytes = b"", cwd: Path | None = None) -> Said:
    """Run `git WORDS` in ``cwd`` (/ if it is None) to its end.

    Raises MissingPrerequisite if git is not installed.
    """
    own = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "XDG_"))}
    try:
        done = subprocess.run(
            ["git", *words],
            input=stdin,
            capture_output=True,
            cwd=cwd or "/",
            env=own | _ALONE,
        )
    except FileNotFoundError:
        raise MissingPrerequisite(
            "reading a patch: the program git is not installed", "run `make apt`"
        ) from None
    lines = done.stderr.decode(errors="replace").splitlines()
    errors = tuple(line.removeprefix("error: ") for line in lines if line.strip())
    return Said(done.returncode, done.stdout, errors)
