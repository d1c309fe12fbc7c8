# SPDX-License-Identifier: MIT
"""What holds for every file of the checkout: its licence, its white space, its links."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from l2gate.foundation.settings import checkout

#: What a checkout holds beside its files: see .gitignore.
NOT_OURS = re.compile(r"^(\.git|\.venv|build|__pycache__|.*\.egg-info|\.\w+_cache)$")
GPL, MIT = "GPL-2.0-only", "MIT"
SOURCE = re.compile(r"\.(py|c|h|S|def|sh|patch|toml|cfg)$|^Makefile$|^run$")
TEXT = re.compile(rf"{SOURCE.pattern}|\.(md|txt|json|j2|config)$")


def files() -> Iterator[Path]:
    """Every file of the checkout, relative to it; also where it is no git repository."""
    for folder, folders, names in os.walk(checkout()):
        folders[:] = sorted(name for name in folders if not NOT_OURS.match(name))
        for name in sorted(names):
            if not NOT_OURS.match(name):
                yield Path(folder, name).relative_to(checkout())


def licence_of(file: Path) -> str:
    """As LICENSE says it."""
    under = ("lib/helper/", "images/kernels/", "images/userland/entropy.c")
    return GPL if str(file).startswith(under) else MIT


def named_licence(text: str) -> str:
    """What the first line names, or the second where the first is for the kernel (`#!`)."""
    first, _, rest = text.partition("\n")
    line = rest.partition("\n")[0] if first.startswith("#!") else first
    found = re.search(r"SPDX-License-Identifier: (\S+)", line)
    return found[1] if found else ""


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# SPDX-License-Identifier: MIT\nx\n", MIT),
        ("#!/bin/sh\n# SPDX-License-Identifier: MIT\n", MIT),
        ("/* SPDX-License-Identifier: GPL-2.0-only */\n", GPL),
        ("import os\n# SPDX-License-Identifier: MIT\n", ""),
        ("", ""),
    ],
)
def test_only_the_first_line_counts(text: str, licence: str) -> None:
    assert named_licence(text) == licence


def test_each_source_file_names_its_licence() -> None:
    sources = [file for file in files() if SOURCE.search(file.name)]
    assert len(sources) > 200
    wrong = {
        str(file): named
        for file in sources
        if (named := named_licence((checkout() / file).read_text())) != licence_of(file)
    }
    assert wrong == {}


def test_no_file_has_stray_white_space() -> None:
    """As .editorconfig has it; a patch is the kernel's."""
    wrong = []
    for file in (file for file in files() if TEXT.search(file.name)):
        text = (checkout() / file).read_text()
        if file.suffix != ".patch" and re.search(r"[ \t\r]$", text, re.M):
            wrong.append(f"{file}: white space at a line's end")
        if text and not text.endswith("\n"):
            wrong.append(f"{file}: no newline at its end")
    assert wrong == []


def test_each_link_of_a_readme_leads_to_a_file() -> None:
    for file in files():
        if file.suffix == ".md":
            for link in re.findall(r"\]\((?!\w+:)([^)#]+)", (checkout() / file).read_text()):
                assert ((checkout() / file).parent / link).exists(), f"{file}: {link}"
