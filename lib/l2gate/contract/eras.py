# SPDX-License-Identifier: MIT
"""Code eras: which of the changes that rows of a table are about a kernel has.

A kernel shows it by what KVM_CHECK_EXTENSION says, never by its version: 4.9.115 has the check of
28d06353 and RHEL 8's 4.18 the payload of 4.20. A step is named by the release that brought it
upstream, and is told by a capability that came in the same one; trees that carry one back carry its
series.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """``brought``: commits, and what is so since then. ``shown_by``: capabilities of which one is
    enough."""

    name: str
    brought: str
    shown_by: tuple[str, ...]


STEPS = (
    # VMX had KVM_GET_NESTED_STATE in 4.19 and SVM in 5.8, so on SVM this step comes with the next.
    # b96fb439774e is in 4.14.67, where nothing shows it; nor is there a promise then.
    Step(
        "4.19",
        "b96fb439774e: what L1 is told of an exception that KVM itself queued is made from it, not "
        "read from the last exit",
        ("KVM_CAP_NESTED_STATE",),
    ),
    # Where the capability was taken out of a later kernel, one that is a release younger tells.
    Step(
        "4.20",
        "59073aaf6de0: injected=1 from userspace is taken for injected, before it was for pending",
        ("KVM_CAP_EXCEPTION_PAYLOAD", "KVM_CAP_HYPERV_CPUID"),
    ),
    Step(
        "5.8",
        "7c86663b68ba and its series: SVM, too, offers L1 an exception that KVM itself queued",
        ("KVM_CAP_ASYNC_PF_INT",),
    ),
    Step(
        "6.1",
        "7709aba8f716: a pending exception becomes a VM-exit at the next KVM_RUN",
        ("KVM_CAP_X86_TRIPLE_FAULT_EVENT",),
    ),
)

NAMES = tuple(step.name for step in STEPS)
#: What may stand in a table's column `era`.
ERAS = ("any", *(word for name in NAMES for word in (f"{name}+", f"before-{name}")))
#: What may stand in its column `since`: whose promise the row is.
SINCE = ("any", *NAMES, "never")
#: All that tells one era from another.
CAPABILITIES = tuple(dict.fromkeys(cap for step in STEPS for cap in step.shown_by))

Has = Mapping[str, bool | None]


def shown(capabilities: Mapping[str, int | None]) -> dict[str, bool | None]:
    """For each step whether a kernel has it; None where ``capabilities`` do not tell."""
    return {step.name: _shown(step, capabilities) for step in STEPS}


def _shown(step: Step, capabilities: Mapping[str, int | None]) -> bool | None:
    values = [capabilities.get(name) for name in step.shown_by]
    if any(value is not None and value > 0 for value in values):
        return True
    return None if None in values else False


def all_of(has: bool) -> dict[str, bool | None]:
    """Every step, or none."""
    return dict.fromkeys(NAMES, has)


def may_be(era: str, steps: Has) -> bool:
    """Whether a kernel with these steps is not known to be of another era."""
    if era == "any":
        return True
    before, name = era.startswith("before-"), era.removeprefix("before-").removesuffix("+")
    has = steps.get(name)
    return has is None or has != before


def promises(since: str, steps: Has) -> bool:
    """Whether what came with that step is a promise of a kernel with these steps."""
    return since == "any" or bool(steps.get(since))


def brought(since: str) -> str:
    """What came with a step; of what no commit promises, that."""
    return next((step.brought for step in STEPS if step.name == since), "no commit promises it")


def words(steps: Has) -> str:
    """`4.20 and later, before 5.8`; empty where nothing is known."""
    has = [name for name in NAMES if steps.get(name)]
    lacks = [name for name in NAMES if steps.get(name) is False]
    told = [f"{has[-1]} and later"] if has else []
    return ", ".join([*told, *([f"before {lacks[0]}"] if lacks else [])])
