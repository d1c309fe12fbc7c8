# SPDX-License-Identifier: MIT
"""Everything that is fetched or built before a job, in one place: what `make images` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation import debian
from l2gate.foundation.events import Timeline
from l2gate.images import helper, userland
from l2gate.kernels.kernel import prepare

#: The suite whose programs and guest kernel L0 and L1 run; the kernel under test may be another.
GUEST_SUITE = debian.SUITES[0]
_BUILT_AHEAD = ("+patched", "+unpatched")


@dataclass(frozen=True)
class Images:
    """What every job needs, whatever its kernel."""

    userland: Path
    helper: Path
    busybox: Path
    #: What an L1 on a lab host boots from: the userland without QEMU, and files of their own.
    lean: Path
    bios: Path
    l1_kernel: Path
    l1_initrd: Path


def images(timeline: Timeline) -> Images:
    """The images, built if their recipes have changed.

    Raises MissingPrerequisite if the suite root has not been fetched.
    """
    root = debian.find(GUEST_SUITE)
    guest_kernel = prepare(f"debian:{GUEST_SUITE.series}", timeline)
    folder = userland.build(root, guest_kernel, timeline)
    return Images(
        userland=folder / "userland.squashfs",
        helper=helper.build(timeline),
        busybox=root.path / "usr/bin/busybox",
        lean=folder / "lean.squashfs",
        bios=folder / "qboot.rom",
        l1_kernel=guest_kernel.fastest,
        l1_initrd=folder / "l1.initrd",
    )


def build_all(timeline: Timeline, series: Sequence[str] = ()) -> None:
    """Fetch the suite roots and build images and kernel variants; a second call does nothing.

    Beside the guests' suite only those whose ``series`` are named. Raises KernelSpecError.
    """
    asked = [debian.suite_of(one) for one in series]
    for suite in dict.fromkeys((GUEST_SUITE, *asked)):
        debian.fetch(suite, timeline)
        for variant in _BUILT_AHEAD:
            prepare(f"debian:{suite.series}{variant}", timeline)
    images(timeline)
