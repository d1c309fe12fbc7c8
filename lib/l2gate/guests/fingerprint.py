# SPDX-License-Identifier: MIT
"""By what the frozen vCPU is known to be where we think it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Registers(Protocol):
    """What a frozen vCPU shows of itself."""

    @property
    def cr3(self) -> int: ...
    @property
    def r15(self) -> int: ...
    @property
    def rip(self) -> int: ...


@dataclass(frozen=True)
class Fingerprint:
    """Registers that only this guest has; None where a guest has no fixed value."""

    cr3: int | None
    r15: int | None
    rip_first: int | None
    rip_last: int | None

    def missing(self, state: Registers) -> str | None:
        """Which mark ``state`` does not bear, or None if it bears all."""
        if self.cr3 is not None and state.cr3 != self.cr3:
            return f"CR3 is {state.cr3:#x}, not {self.cr3:#x}"
        if self.r15 is not None and state.r15 != self.r15:
            return f"R15 is {state.r15:#x}, not {self.r15:#x}"
        first, last = self.rip_first, self.rip_last
        if first is not None and last is not None and not first <= state.rip <= last:
            return f"RIP {state.rip:#x} is outside {first:#x}-{last:#x}"
        return None

    @property
    def words(self) -> str:
        """`marked CR3, R15 and RIP`, or nothing for a guest without one."""
        names = [n for n, v in (("CR3", self.cr3), ("R15", self.r15), ("RIP", self.rip_first)) if v]
        return f"marked {' and '.join(names)}" if names else ""


NO_FINGERPRINT = Fingerprint(None, None, None, None)
