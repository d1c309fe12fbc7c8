# SPDX-License-Identifier: MIT
"""Initramfs images: a few files and modules, packed so that a kernel can start from them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.process import run


@dataclass(frozen=True)
class Module:
    """A module to load at boot: its file name, its bytes (uncompressed), its parameters."""

    name: str
    content: bytes
    parameters: str = ""


_SIGNATURE = b"~Module signature appended~\n"


def unsigned(content: bytes) -> bytes:
    """A module without its signature (Documentation/admin-guide/module-signing.rst).

    Checking one costs an emulated CPU as much as a quarter of a second of a real one.
    """
    if not content.endswith(_SIGNATURE):
        return content
    # The 12 bytes before the magic end with the signature's length (struct module_signature).
    described = len(content) - len(_SIGNATURE)
    length = int.from_bytes(content[described - 4 : described], "big")
    return content[: described - 12 - length]


def pack(
    target: Path,
    busybox: Path,
    init: Path,
    modules: Sequence[Module] = (),
    needs: Sequence[str] = (),
) -> None:
    """Write an initramfs with ``init`` as its first process; ``needs`` are lines `NAME PATH`, what
    must be there once the modules are loaded.

    The modules are stored uncompressed and the archive too: unpacking costs an emulated CPU more
    than reading. Raises BenchError if cpio fails.
    """
    with tempfile.TemporaryDirectory(prefix="l2gate-initramfs-") as name:
        tree = Path(name)
        for folder in ("bin", "dev", "proc", "sys", "userland", "modules"):
            (tree / folder).mkdir()
        shutil.copy(busybox, tree / "bin/busybox")
        shutil.copy(init, tree / "init")
        (tree / "init").chmod(0o755)
        for module in modules:
            (tree / "modules" / module.name).write_bytes(unsigned(module.content))
        order = "".join(f"{m.name} {m.parameters}".rstrip() + "\n" for m in modules)
        (tree / "modules/order").write_text(order)
        (tree / "modules/needs").write_text("".join(f"{need}\n" for need in needs))
        members = sorted(str(p.relative_to(tree)) for p in tree.rglob("*"))
        archive = run(
            ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet", "--reproducible"],
            what="packing an initramfs",
            stdin="\n".join(members).encode(),
            cwd=tree,
        )
        target.write_bytes(archive)
