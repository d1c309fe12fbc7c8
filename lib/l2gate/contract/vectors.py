# SPDX-License-Identifier: MIT
"""Exception vectors by the names of the Intel SDM, volume 3, table 6-1."""

from __future__ import annotations

DIVIDE_ERROR = 0
DEBUG = 1
NMI = 2
BREAKPOINT = 3
INVALID_OPCODE = 6
GENERAL_PROTECTION = 13
MACHINE_CHECK = 18
CONTROL_PROTECTION = 21

_NAMES = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF",
    10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC",
    19: "#XM", 20: "#VE", 21: "#CP", 28: "#HV", 29: "#VC", 30: "#SX",
}  # fmt: skip

#: Every vector that can stand for an exception: 0-31 without the NMI.
EXCEPTIONS = tuple(v for v in range(32) if v != NMI)

#: What KVM_SET_VCPU_EVENTS takes for no exception in any era (x86.c: nr > 31 || nr == NMI_VECTOR).
NEVER_EXCEPTIONS = (NMI, 32, 255)


def name(vector: int) -> str:
    """`#GP` for 13; a vector without a name is its number."""
    return _NAMES.get(vector, f"vector {vector}")


def label(vector: int, error_code: int | None) -> str:
    """`#GP(13) error code 0x0`."""
    tail = "" if error_code is None else f" error code {error_code:#x}"
    return f"{name(vector)}({vector}){tail}" if vector in _NAMES else f"{name(vector)}{tail}"
