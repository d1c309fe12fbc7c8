# SPDX-License-Identifier: MIT
"""What a verb prints to."""

from __future__ import annotations

import argparse
from typing import NoReturn

from rich.console import Console

from l2gate.foundation.events import Timeline
from l2gate.report.terminal import Progress


class Screen(Console):
    """Rich ends the process with 1 where its reader is gone: that is not for it to say."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def screen(*, stderr: bool = False) -> Screen:
    """Standard output, or what is said beside it."""
    return Screen(highlight=False, stderr=stderr)


def progress(arguments: argparse.Namespace, console: Console, *, steps: bool = False) -> Progress:
    """Shows the steps as `-q` and `-v` want it; ``steps``: each of them, if neither was said."""
    return Progress(console, arguments.verbose or steps, quiet=arguments.quiet)


def beside(arguments: argparse.Namespace) -> Timeline:
    """What a verb does before its answer, on stderr."""
    return Timeline(progress(arguments, screen(stderr=True), steps=True))
