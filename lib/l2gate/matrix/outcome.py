"""What matrix and mutants tell: lines as they go, in the end a table, a JSON file and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from l2gate.report.page import Page, write_page


@dataclass(frozen=True)
class Outcome:
    """``folder`` gets the files ``name``.json and ``name``.html."""

    console: Console
    folder: Path
    name: str

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def table(self, heads: str, lines: Sequence[Text]) -> None:
        self.console.print()
        for line in (Text(heads), *lines):
            self.console.print(line, soft_wrap=True)

    def publish(self, what: str, rows: Sequence[dict[str, Any]], page: Page) -> None:
        """``rows`` under the key ``what``, and the page."""
        target = self.folder / f"{self.name}.json"
        told = json.dumps({"schema_version": 1, what: rows}, indent=1, default=str)
        target.write_text(told + "\n")
        write_page(page, target.with_suffix(".html"))
        self.say(f"{target} and {target.with_suffix('.html')}")
