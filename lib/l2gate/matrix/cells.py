# SPDX-License-Identifier: MIT
"""The cells of a matrix: which kernel is asked on which host, and what it must come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.contract.judge import Verdict
from l2gate.foundation import cache, debian, suite
from l2gate.hosts import kinds
from l2gate.kernels.spec import VARIANTS, DebianSpec, DirSpec, parse


@dataclass(frozen=True)
class Cell:
    """A kernel on a host. ``expected`` is the verdict that the cell must have, ``why`` the reason:
    a kernel that breaks the promise and is green is a failure of the suite."""

    kernel: str
    host: str
    expected: Verdict
    why: str
    #: What a table calls the kernel; empty: by its spec.
    title: str = ""
    #: Whether it may end L1 by what it accepts, so that later tests come to nothing.
    harmful: bool = False

    @property
    def label(self) -> str:
        return self.title or self.kernel

    @property
    def name(self) -> str:
        return f"{self.kernel} on {self.host}"


def cells(kernels: Iterable[str], hosts: Sequence[str]) -> list[Cell]:
    """The cross of both. Raises KernelSpecError or UsageError for what names none."""
    names = [kinds.find(host).name for host in hosts]
    return [Cell(kernel, host, *_expected(kernel)) for kernel in kernels for host in names]


def all_kernels() -> list[str]:
    """The stock kernel of each series, and its pair."""
    series = [suite.series for suite in debian.SUITES]
    return [f"debian:{one}{tail}" for one in series for tail in ("", *(f"+{v}" for v in VARIANTS))]


def _expected(kernel: str) -> tuple[Verdict, str]:
    parse(kernel)
    if kernel.endswith("+unpatched"):
        return Verdict.FAIL, "the capability is withdrawn and nothing is refused"
    if kernel.endswith("+patched"):
        return Verdict.PASS, "the commit's check is there"
    return Verdict.PASS, "it must keep the promise of its own era"


def fingerprint(kernel: str) -> str:
    """A short name for all that a cell's verdict depends on, by content."""
    spec = parse(kernel)
    parts: list[str | bytes | Path] = [kernel, suite.digest()]
    if isinstance(spec, DebianSpec):
        parts += [spec.suite.key, *(patch.path for patch in spec.patches)]
    if isinstance(spec, DirSpec):
        stat = spec.image.stat()
        parts.append(f"{stat.st_size} {stat.st_mtime_ns}")
    return cache.digest(*parts)
