# SPDX-License-Identifier: MIT
"""One exception tree: every error names its cause and what fixes it, and carries an exit code."""

from __future__ import annotations

from typing import ClassVar


class L2gateError(Exception):
    """Anything l2gate reports in one sentence instead of a traceback.

    ``cause`` says what is wrong, ``hint`` what a person can do about it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause, hint)  # both, so that the error survives pickling
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.cause} | hint: {self.hint}" if self.hint else self.cause


class UsageError(L2gateError):
    """A usage error: an unknown host, a malformed kernel spec."""

    exit_code = 4


class KernelSpecError(UsageError):
    """A kernel spec that names nothing that can be booted or built."""


class CaseTableError(UsageError):
    """A case table that cannot be read; the message names file and line."""


class BenchError(L2gateError):
    """The bench broke, not the kernel: verdict ``infra-error``."""


class MissingPrerequisite(BenchError):
    """Something that a make target installs or builds is not there."""


class DeadlineExpired(BenchError):
    """A condition did not come true in time; the message names the condition."""


class GuestCrash(BenchError):
    """A panic, oops, WARN or stall on a level's console."""


class HelperError(BenchError):
    """The helper binary reported an error or broke off."""


class NotHere(L2gateError):
    """What a test is about cannot be asked here: verdict ``skip``."""

    exit_code = 3


class NotProven(L2gateError):
    """L2 could not be shown to be active: verdict ``inconclusive``."""

    exit_code = 3
