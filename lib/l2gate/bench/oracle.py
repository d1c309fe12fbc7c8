# SPDX-License-Identifier: MIT
"""`l2gate contract`: which contract holds, by what that is known, and what it expects.

Nothing is injected. A lab host is asked by the helper's probe. Of Debian's kernels the source that
their kvm.ko is built from is read, and nothing is booted; where that does not tell, and for a
kernel of the user's own, L0 is booted, without L1, and asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from l2gate.bench.bench import preflight
from l2gate.contract import eras, explain
from l2gate.contract.contracts import PAYLOAD_COMMIT, REFUSE_COMMIT, Contract, decide
from l2gate.contract.explain import Expectation, Known
from l2gate.foundation.errors import MissingPrerequisite
from l2gate.foundation.events import Timeline
from l2gate.foundation.scratch import Scratch
from l2gate.foundation.settings import AUTO, Settings
from l2gate.hosts import kinds
from l2gate.hosts.host import HostContext
from l2gate.hosts.kind import Kind
from l2gate.hosts.probe import probe
from l2gate.images import build
from l2gate.kernels import source
from l2gate.kernels import spec as kernel_spec
from l2gate.vendors import vendors

_PAYLOAD = "KVM_CAP_EXCEPTION_PAYLOAD"


@dataclass(frozen=True)
class KernelAnswer:
    """What the oracle says of a kernel.

    ``value`` is that of KVM_CAP_EXCEPTION_PAYLOAD, ``known_by`` where it was seen, ``booted`` what
    had to be booted for it. ``check`` is where the commit's check stands in the source; it decides
    nothing, and is None where there was no source to read.
    """

    host: str
    kernel: str
    contract: Contract
    value: int
    known_by: str
    booted: str
    check: str | None
    known: Known
    tables: tuple[Expectation, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "kernel": self.kernel,
            "contract": self.contract.to_json(),
            "capability": {"name": _PAYLOAD, "value": self.value},
            "known_by": self.known_by,
            "booted": self.booted,
            "check": self.check,
            "platform": asdict(self.known),
            "tables": [table.to_json() for table in self.tables],
        }


@dataclass(frozen=True)
class _Seen:
    """What was found out of a kernel, before any contract."""

    kernel: str
    value: int
    known_by: str
    booted: str
    known: Known
    check: str | None = None


def ask(settings: Settings, timeline: Timeline, *, boot: bool = False) -> KernelAnswer:
    """Ask the kernel that ``settings`` name; with ``boot`` also one whose source would tell.

    Raises UsageError for settings that name no kernel or host, MissingPrerequisite where it cannot
    be asked.
    """
    kind = kinds.find(settings.host)
    kinds.refuse_nonsense(kind, settings)
    seen = _of_kernel(kind, settings, timeline, boot) if kind.boots else _of_lab(kind, settings)
    contract = decide(settings.expect, seen.value)
    return KernelAnswer(
        host=settings.host,
        kernel=seen.kernel,
        contract=contract,
        value=seen.value,
        known_by=seen.known_by,
        booted=seen.booted,
        check=seen.check,
        known=seen.known,
        tables=explain.expected(contract.name, seen.known, settings.path),
    )


def _of_kernel(kind: Kind, settings: Settings, timeline: Timeline, boot: bool) -> _Seen:
    text = kind.kernel_spec(settings)
    assert text is not None
    vendor = kind.vendor if settings.host != AUTO else None
    seen = _by_source(text, Known(vendor.format if vendor else None), timeline)
    if seen and not boot:
        return seen
    booted = _by_boot(kind, settings, text, timeline)
    return replace(booted, check=seen.check) if seen else booted


def _by_source(text: str, known: Known, timeline: Timeline) -> _Seen | None:
    """None if the source does not tell, or there is none."""
    spec = kernel_spec.parse(text)
    if not isinstance(spec, kernel_spec.DebianSpec):
        return None
    read = source.read(spec, timeline)
    payload = read.capability(_PAYLOAD)
    steps = eras.shown({name: read.capability(name).value for name in eras.CAPABILITIES})
    if payload.value is None:
        return None
    patches = ", ".join(patch.path.name for patch in spec.patches)
    return _Seen(
        kernel=text,
        value=payload.value,
        known_by=f"{payload.where}, in the source that its kvm.ko is built from (Debian "
        f"{spec.suite.name}'s{f' with {patches}' if patches else ''})",
        booted="nothing",
        known=Known(known.format, None, steps),
        check=read.commit_check() or "",
    )


def _by_boot(kind: Kind, settings: Settings, text: str, timeline: Timeline) -> _Seen:
    """Boot L0, without L1, and ask it."""
    preflight(settings)
    kernel = kind.prepare_kernel(settings, timeline)
    # Its logs are of no use to anybody once it has answered.
    with Scratch("contract") as folder, tempfile.TemporaryDirectory(prefix="l2gate-logs-") as logs:
        context = HostContext(settings, build.images(timeline), folder, Path(logs), timeline)
        host = kind.make(context, kernel)
        try:
            with timeline.step("L0", f"{kind.name} boots {text}, without L1", "host"):
                host.boot()
            answer = probe(host.connection, host.helper, "L0", host.budget)
        finally:
            host.close()
    where = f"KVM_CHECK_EXTENSION, asked of it as L0 on {kind.name}"
    return _by_probe(answer, text, where, "L0, without L1")


def _of_lab(kind: Kind, settings: Settings) -> _Seen:
    lab = kind.open(settings, "asking a running kernel")
    try:
        probe = lab.probe()
    finally:
        lab.close()
    where = f"KVM_CHECK_EXTENSION, asked of {kind.name}"
    return _by_probe(probe, f"running: {probe['release']}", where, "nothing")


def _by_probe(probe: Mapping[str, Any], kernel: str, where: str, booted: str) -> _Seen:
    caps = probe["caps"]
    if probe["dev_kvm_error"] or _PAYLOAD not in caps:
        raise MissingPrerequisite(
            f"{kernel} cannot be asked: /dev/kvm: {probe['dev_kvm_error'] or 'no capabilities'}",
            f"load {' or '.join(vendors.MODULES)} there",
        )
    vendor = vendors.of_flags(probe["flags"])
    known = Known(
        vendor.format if vendor else None, bool(probe["soft_exceptions"]), eras.shown(caps)
    )
    return _Seen(kernel, int(caps[_PAYLOAD]), where, booted, known)


# --- printing -------------------------------------------------------------------------------------


def show(console: Console, answer: KernelAnswer) -> None:
    """The answer, for a person."""
    contract = answer.contract
    lines = {
        "kernel": answer.kernel,
        "contract": f"{contract.name}: {contract.why}",
        "known by": f"{answer.known_by}; booted for this: {answer.booted}",
        "commits": f"decided by {contract.commit}",
        "": _other_commit(contract),
    }
    if answer.check is not None:
        lines["check"] = answer.check or f"not found in {source.FILE}; this decides nothing"
    for name, text in lines.items():
        _print(console, f"{name:<10}{text}")
    _print(console, f"\nExpected outcomes{_ground(answer.known)}\n\n{explain.legend()}")
    for table in answer.tables:
        _print(console, f"\n== {table.table.name} ({table.cases} cases): {table.title}\n")
        _print(console, f"Proves: {table.proves}\n")
        for line in table.lines():
            _print(console, line)


def _other_commit(contract: Contract) -> str:
    if contract.name == "refuse":
        return f"the payload contract would be {PAYLOAD_COMMIT}"
    return f"the refusal, which it replaced, was {REFUSE_COMMIT}"


def _ground(known: Known) -> str:
    """On what platform the rows were chosen."""
    names = " and ".join(vendors.NAMES)
    cpu = f", {known.format.upper()}" if known.format else f", {names} (no host tells which)"
    era = eras.words(known.steps)
    return f"{cpu}{f', {era}' if era else ''}"


def _print(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
