# SPDX-License-Identifier: MIT
"""The events of a job beside those of l2gate/foundation/events.py: what is found out, and what is
concluded. A job's timeline (timeline.jsonl in its folder) has one a line."""

from __future__ import annotations

from msgspec import field

from l2gate.contract.case_result import CaseResult
from l2gate.contract.contracts import Contract
from l2gate.contract.judge import Verdict
from l2gate.contract.paths import ALL
from l2gate.foundation.events import Event
from l2gate.records.descriptions import (
    AboutTest,
    Delivery,
    HostDescription,
    KernelDescription,
    Unasked,
)


class JobPlanned(Event, frozen=True, kw_only=True, tag="job"):
    """The first of a job: Avocado's ``folder`` for it, its ``tests`` by their sentences and what is
    known of them (``about``), and the settings that limit or name it."""

    folder: str = ""
    tests: list[str] = field(default_factory=list)
    path: str = ALL
    case: str = ""
    l2: str = ""
    host: str = ""
    about: dict[str, AboutTest] = field(default_factory=dict)


class KernelFound(Event, frozen=True, kw_only=True, tag="kernel"):
    """The kernel under test is known."""

    kernel: KernelDescription


class HostFound(Event, frozen=True, kw_only=True, tag="host"):
    """L0 is up and has been asked."""

    host: HostDescription


class ContractDecided(Event, frozen=True, kw_only=True, tag="contract"):
    """By which contract the kernel is judged."""

    contract: Contract


class L1QemuFound(Event, frozen=True, kw_only=True, tag="l1-qemu"):
    """The version of the QEMU on L0 that runs L1."""

    version: str


class CaseJudged(Event, frozen=True, kw_only=True, tag="case"):
    """A case was conducted and judged."""

    case: CaseResult


class SignalAwaited(Event, frozen=True, kw_only=True, tag="delivery"):
    """It was seen what became of an exception that KVM had accepted for L1."""

    delivery: Delivery


class CasesUnasked(Event, frozen=True, kw_only=True, tag="unasked"):
    """Some cases of a table cannot be asked here."""

    unasked: Unasked


class VerdictReached(Event, frozen=True, kw_only=True, tag="verdict"):
    """A test has come to its end."""

    test: str
    verdict: Verdict
    reason: str


class KernelComplained(Event, frozen=True, kw_only=True, tag="complaint"):
    """L0's kernel has ``said`` of a fault of its own during the job."""

    said: str


#: What is found out of the bench once, whoever asks the tests then.
FACTS = (KernelFound, HostFound, ContractDecided, L1QemuFound)
