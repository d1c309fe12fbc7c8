# SPDX-License-Identifier: MIT
"""`l2gate warm`: the booted machines that are kept, for later jobs to start from."""

from __future__ import annotations

import argparse

from l2gate.bench.bench import Bench
from l2gate.hosts import kinds, templates
from l2gate.hosts.kind import Can
from l2gate.hosts.templates import Template
from l2gate.verbs.screen import beside, screen
from l2gate.verbs.verb import wanted


def warm(arguments: argparse.Namespace) -> int:
    """Boot one and keep it, or end all of them; say which there are."""
    if arguments.stop:
        for template in templates.kept():
            templates.forget(template)
            _print(f"{template.kind} with {template.kernel}: ended")
        return 0
    settings = wanted(arguments)
    kinds.require(settings.host, Can.BE_KEPT)
    Bench.once(settings, beside(arguments))
    for line in listed():
        _print(line)
    return 0


def listed() -> list[str]:
    """What is kept, one line each."""
    return [_line(template) for template in reversed(templates.kept())]


def _line(template: Template) -> str:
    where = f"process {template.parked}" if template.parked else f"{template.megabytes} MB of disk"
    return (
        f"template: {template.kind} with {template.kernel}, booted at {template.booted}, {where}, "
        f"last used {template.used / 60:.0f} min ago"
    )


def _print(text: str) -> None:
    screen().print(text, markup=False, soft_wrap=True)
