# SPDX-License-Identifier: MIT
"""The suite's own files, and the digest by which one suite is told from another."""

from __future__ import annotations

import functools
import hashlib

from l2gate.foundation.cache import sha256
from l2gate.foundation.settings import checkout

#: What a verdict depends on beside the kernel.
FILES = ("lib/l2gate", "lib/helper", "tests/injection", "images/userland", "images/l2")


@functools.cache
def digest() -> str:
    """SHA-256 over `sha256  path` lines of the suite's own files, as sha256sum(1) prints them."""
    root = checkout()
    files = [
        file
        for folder in FILES
        for file in sorted((root / folder).rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
    ]
    lines = [f"{sha256(file)}  {file.relative_to(root)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
