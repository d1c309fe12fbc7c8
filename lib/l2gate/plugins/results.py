# SPDX-License-Identifier: MIT
"""Looks at the place for a job's results before Avocado begins: Avocado itself would end with a
traceback, and with 1 where not even that can be written."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from avocado.core.plugin_interfaces import CLI

from l2gate.foundation.errors import BenchError
from l2gate.foundation.guard import complain
from l2gate.foundation.settings import path_of


class ResultsFolder(CLI):  # type: ignore[misc]
    name = "l2gate"
    description = "refuses a job whose results could not be written"

    def configure(self, parser: Any) -> None:
        """It has no options."""

    def run(self, config: Mapping[str, Any]) -> None:
        if config.get("subcommand") != "run":
            return
        named = config.get("run.results_dir") or config.get("datadir.paths.logs_dir")
        folder = path_of(str(named))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            complain(
                f"the results cannot be written to {folder}: {error.strerror}",
                "set HOME to a folder that this user can write to; or logs_dir in the section "
                "[datadir.paths] of avocado.cfg",
            )
            sys.exit(BenchError.exit_code)
