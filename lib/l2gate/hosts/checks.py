# SPDX-License-Identifier: MIT
"""One prerequisite, what was found of it, and the hint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l2gate.foundation.errors import L2gateError, MissingPrerequisite


@dataclass(frozen=True)
class Check:
    """One prerequisite.

    ``area`` is controller, images, kernel or host. One that is not ``needed`` is told, and does not
    keep the suite from running.
    """

    area: str
    what: str
    found: str
    enough: bool
    hint: str = ""
    needed: bool = True

    def __post_init__(self) -> None:
        if self.enough:
            object.__setattr__(self, "hint", "")

    @property
    def hinders(self) -> bool:
        return self.needed and not self.enough

    @property
    def cause(self) -> str:
        return f"{self.what}: {self.found}"


def failed(area: str, what: str, error: L2gateError) -> Check:
    """One that ended with an error."""
    return Check(area, what, error.cause, False, error.hint)


def require(checks: Sequence[Check]) -> None:
    """Raises MissingPrerequisite with all that hinders, in the words of `l2gate doctor`."""
    hindering = [check for check in checks if check.hinders]
    if hindering:
        raise MissingPrerequisite(
            "; ".join(check.cause for check in hindering),
            "; ".join(dict.fromkeys(check.hint for check in hindering if check.hint)),
        )
