# SPDX-License-Identifier: MIT
"""What is said of a kernel that is about to boot: its image and its patches, by content."""

from __future__ import annotations

from pathlib import Path

from l2gate.foundation.cache import sha256
from l2gate.foundation.settings import checkout
from l2gate.kernels.kernel import KernelUnderTest
from l2gate.kernels.spec import DebianSpec, parse
from l2gate.records.descriptions import Digest, KernelDescription


def describe(kernel: KernelUnderTest) -> KernelDescription:
    """With the digests of its image and of each patch of its spec."""
    spec = parse(kernel.spec)
    patches = [patch.path for patch in spec.patches] if isinstance(spec, DebianSpec) else []
    return KernelDescription(
        spec=kernel.spec,
        release=kernel.release,
        description=kernel.description,
        image=_digest(kernel.vmlinuz),
        patches=[_digest(path) for path in patches],
    )


def _digest(path: Path) -> Digest:
    return Digest(str(path).removeprefix(f"{checkout()}/"), sha256(path))
