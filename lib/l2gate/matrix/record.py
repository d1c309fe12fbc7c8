# SPDX-License-Identifier: MIT
"""What matrix and mutants tell: lines as they go, in the end a table, a JSON file and a page."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from l2gate.foundation.files import write_whole
from l2gate.report.page import Page, PageRow, write_page
from l2gate.report.provenance import Provenance, here


@dataclass(frozen=True)
class Record:
    """``folder`` gets the files ``name``.json and ``name``.html."""

    console: Console
    folder: Path
    name: str
    began: Provenance = field(default_factory=here)
    _start: float = field(default_factory=time.monotonic)

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def table(self, heads: str, lines: Sequence[Text]) -> None:
        self.console.print()
        for line in (Text(heads), *lines):
            self.console.print(line, soft_wrap=True)

    def publish(
        self,
        what: str,
        rows: Sequence[dict[str, Any]],
        title: str,
        summary: str,
        on_page: list[PageRow],
    ) -> None:
        """``rows`` under the key ``what`` of the JSON file, ``on_page`` on the page."""
        target = self.folder / f"{self.name}.json"
        provenance = replace(self.began, seconds=round(time.monotonic() - self._start, 1))
        told = {"schema_version": 2, "provenance": asdict(provenance), what: rows}
        write_whole(target, json.dumps(told, indent=1, default=str) + "\n")
        write_page(Page(title, summary, on_page, provenance), target.with_suffix(".html"))
        self.say(f"{target} and {target.with_suffix('.html')}")
