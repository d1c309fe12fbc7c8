# SPDX-License-Identifier: MIT
"""The README's commands work on a bare Debian, typed by a user with sudo; `make test-install` has
the whole of it. Here they find the cache that this machine has, and may not write into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from l2gate.foundation.settings import checkout

_SECONDS = 1500


def _may_be_root() -> bool:
    if os.getuid() == 0:
        return True
    sudo = shutil.which("sudo")
    return sudo is not None and subprocess.run([sudo, "-n", "true"]).returncode == 0


@pytest.mark.skipif(not _may_be_root(), reason="a bare system is made by root or with sudo")
def test_a_bare_trixie_becomes_a_bench() -> None:
    words = [sys.executable, str(checkout() / "tests/install")]
    words += ["--suites", "trixie", "--who", "user", "--cold", "no"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS)
    print(done.stdout[-6000:], done.stderr[-3000:])
    assert done.returncode == 0
