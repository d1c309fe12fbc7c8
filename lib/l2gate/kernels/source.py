# SPDX-License-Identifier: MIT
"""What KVM's source says of a kernel before it is booted: the source that kvm.ko is built from.

Only what can be read without doubt is said: a capability whose answer is computed, or depends on a
configuration option, is None, and who asks must boot the kernel.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation import debian
from l2gate.foundation.events import Timeline
from l2gate.kernels import variants
from l2gate.kernels.patch import apply
from l2gate.kernels.spec import DebianSpec

FILE = "arch/x86/kvm/x86.c"
#: Asked first; what it does not know it hands to x86.c.
GENERIC = "virt/kvm/kvm_main.c"
_ANSWERS = "kvm_vm_ioctl_check_extension"
_SETS = "kvm_vcpu_ioctl_x86_set_vcpu_events"


@dataclass(frozen=True)
class SourceFact:
    """A value read in the source, and where; ``value`` is None if it cannot be read off."""

    value: int | None
    where: str


@dataclass(frozen=True)
class Source:
    """x86.c and kvm_main.c as they are compiled, patches included."""

    text: str
    generic: str = ""

    def capability(self, name: str) -> SourceFact:
        """What KVM_CHECK_EXTENSION of ``name`` answers."""
        if re.search(rf"\b{name}\b", _without_comments(self.generic)):
            return SourceFact(None, f"{GENERIC} speaks of {name}")
        found = _function(self.text, _ANSWERS)
        if found is None:
            return SourceFact(None, f"{FILE}: there is no {_ANSWERS}()")
        start, body = found
        lines = body.splitlines()
        label = next((n for n, line in enumerate(lines) if _is_case(line, name)), None)
        if label is None:
            value = 0 if name not in body and _starts_as_zero(body) else None
            return SourceFact(value, f"{FILE}: {_ANSWERS}() has no case {name}")
        return SourceFact(
            _answer(lines, label), f"{FILE}:{start + label}: {_ANSWERS}(), case {name}"
        )

    def commit_check(self) -> str | None:
        """Where the check of commit 28d06353 stands, None if it is not found. This says what the
        code looks like, not what it does."""
        found = _function(self.text, _SETS)
        if found is None:
            return None
        start, body = found
        for match in re.finditer(r"if \(([^;{}]*)\)\s*return -EINVAL;", body):
            if "exception.injected" in match[1] and "is_guest_mode(vcpu)" in match[1]:
                line = start + body.count("\n", 0, match.start())
                return f"{FILE}:{line}: {' '.join(match[0].split())}"
        return None


def read(spec: DebianSpec, timeline: Timeline) -> Source:
    """The source of that kernel's KVM. Raises MissingPrerequisite for a suite that has not been
    fetched, KernelSpecError for a patch that does not apply."""
    root = debian.find(spec.suite)
    tree = variants.source_tree(root, timeline)
    with tempfile.TemporaryDirectory(prefix="l2gate-read-") as name:
        work = Path(name)
        for part in {FILE, GENERIC, *(file for patch in spec.patches for file in patch.touched)}:
            if (tree / part).exists():  # a patch may bring a file
                (work / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tree / part, work / part)
        for patch in spec.patches:
            apply(patch, work, variants.name_of(root))
        return Source(*((work / part).read_text(errors="replace") for part in (FILE, GENERIC)))


def _function(text: str, name: str) -> tuple[int, str] | None:
    """(line of its first line, its definition without comments); None if there is none."""
    text = _without_comments(text)
    match = re.search(rf"^[a-z][^\n;{{}}=]*\b{name}\([^;{{}}]*\)\s*\{{.*?^\}}", text, re.M | re.S)
    if match is None:
        return None
    return text.count("\n", 0, match.start()) + 1, match[0]


def _without_comments(text: str) -> str:
    """Comments and what a line ends with are blanked; the lines stay."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    return re.sub(r"/\*.*?\*/|//[^\n]*", blank, text, flags=re.S)


def _is_case(line: str, name: str) -> bool:
    return re.fullmatch(rf"\s*case {name}:\s*", line) is not None


def _starts_as_zero(body: str) -> bool:
    """Whether what no case answers is 0: `r` is set nowhere but in its cases."""
    head, switch, _ = body.partition("switch (ext)")
    default = re.search(r"default:\s*(.*?;)", body, re.S)
    plain = default is None or default[1] in ("break;", "r = 0;")
    return bool(switch) and plain and re.search(r"\bint r( = 0)?;", head) is not None


def _answer(lines: list[str], label: int) -> int | None:
    """The number that the label at that line is answered with, if it is a number."""
    if _depth(lines[:label]):
        return None
    inside = 0
    for line in lines[label + 1 :]:
        words = line.strip()
        if words.startswith("#"):
            inside += _step(words)
            continue
        if not words or re.fullmatch(r"case \w+:", words):
            continue
        match = re.fullmatch(r"r = (\d+);", words)
        return int(match[1]) if match and not inside else None
    return None


def _depth(lines: list[str]) -> int:
    """In how many conditionals of the preprocessor the end of ``lines`` lies."""
    return sum(_step(line.strip()) for line in lines)


def _step(line: str) -> int:
    if re.match(r"#\s*if", line):
        return 1
    return -1 if re.match(r"#\s*endif", line) else 0
