# SPDX-License-Identifier: MIT
"""A word of the command line, and the settings that it is asked with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from l2gate.foundation import settings as options
from l2gate.foundation.errors import UsageError


@dataclass(frozen=True)
class Verb:
    """``options`` are the settings that it uses, ``refused`` those that would be ignored if the
    environment named them. ``body`` is `module.function` in l2gate.verbs."""

    name: str
    group: str
    help: str
    body: str
    options: tuple[str, ...] = ()
    words: Callable[[argparse.ArgumentParser], object] | None = None
    refused: tuple[str, ...] = ()


def wanted(arguments: argparse.Namespace) -> options.Settings:
    """The settings of the command line and of the environment. Raises UsageError."""
    environment = options.from_environment()
    verb: Verb = arguments.verb
    for name in verb.refused:
        if name in environment:
            variable = options.BY_NAME[name].variable
            raise UsageError(
                f"l2gate {verb.name} does not use {variable}, which is set",
                f"unset {variable}; see l2gate {verb.name} --help",
            )
    asked = {name: getattr(arguments, name, None) for name in verb.options}
    return options.resolve(asked, environment)
