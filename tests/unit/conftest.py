# SPDX-License-Identifier: MIT
"""What several unit tests need: the helper, compiled as it stands in the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from l2gate.foundation.settings import checkout


@pytest.fixture(scope="session")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("helper")
    command = ["make", "-s", "-C", str(checkout() / "lib/helper"), f"OUT={folder}"]
    subprocess.run([*command, "l2gate-helper"], check=True)
    return folder / "l2gate-helper"
