# SPDX-License-Identifier: MIT
"""Kernels built from upstream trees of the user's: 4.4 to 6.x, with a small config that we keep.

They are built in a root of the oldest suite that Debian serves, by its oldest compiler, and kept by
content. A tree is read, never written. What old trees need of a newer compiler is by what a tree
can be, not by which copy of it one has.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation import cache, debian
from l2gate.foundation.debian import Root, Suite
from l2gate.foundation.errors import KernelSpecError
from l2gate.foundation.events import Timeline
from l2gate.foundation.settings import checkout, path_of
from l2gate.kernels import source
from l2gate.kernels.source import Source

_RECIPE = "1"
_CC = "gcc-9"

#: Debian serves no suite that is older; gcc-9 is the oldest compiler in it.
BUILDER = Suite(
    "bullseye",
    "",
    only=(
        _CC, "binutils", "make", "libc6-dev", "bc", "bison", "flex", "perl", "python3-minimal",
        "libelf-dev", "libssl-dev", "cpio", "kmod", "xz-utils",
    ),
)  # fmt: skip

#: Folders of a tree that no file of this config comes from: they are not read for its key.
_UNUSED = (
    ".git", "Documentation", "samples", "sound", "tools/perf", "tools/testing", "drivers/gpu",
    "drivers/media", "drivers/staging", "drivers/net/wireless", "drivers/infiniband",
)  # fmt: skip

#: What the compiler, the linker and make say of what ends a build.
_WRONG = re.compile(r"\berror\b|\*\*\*|undefined|multiple definition", re.IGNORECASE)

#: Where a tree moves a module's calls to their places.
_LOADER = "arch/x86/kernel/module.c"

#: What every tree is built with. The host's tools are of a time when a variable could be defined
#: twice. Debian's gcc makes position-independent code unless told not to, and marks branches, which
#: 16-bit code cannot. A warning that a newer compiler has thought of is none of ours. A tree's own
#: CROSS_COMPILE leads to a compiler for its owner's board.
_MAKE = (
    "make", "-s", "ARCH=x86_64", "CROSS_COMPILE=", f"CC={_CC}", f"HOSTCC={_CC} -fcommon",
    "KCFLAGS=-w -fno-pie -fcf-protection=none", "KAFLAGS=-fno-pie", "KBUILD_BUILD_USER=l2gate",
    "KBUILD_BUILD_HOST=l2gate",
)  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """A kernel tree of the user's."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> Tree:
        """Raises KernelSpecError if it is none, or lacks KVM."""
        tree = cls(path_of(str(path)).resolve())
        for needed in ("Makefile", "Kconfig", _LOADER, source.FILE):
            if not (tree.path / needed).is_file():
                raise KernelSpecError(
                    f"{path} is not a kernel tree: it has no {needed}",
                    "give the top folder of a Linux source tree",
                )
        return tree

    @property
    def version(self) -> str:
        text = (self.path / "Makefile").read_text(errors="replace")
        return ".".join(re.findall(r"^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)", text, re.M))

    @property
    def distribution(self) -> str:
        """`rhel-7` where the tree says that it is Red Hat's; empty for upstream's."""
        texts = [p.read_text(errors="replace") for p in self.path.glob("Makefile*") if p.is_file()]
        found = re.search(r"^RHEL_MAJOR = (\d+)", "\n".join(texts), re.M)
        return f"rhel-{found[1]}" if found else ""

    @property
    def loads_modules(self) -> bool:
        """Whether it knows how today's assemblers call."""
        return "R_X86_64_PLT32" in (self.path / _LOADER).read_text(errors="replace")

    @property
    def kvm(self) -> Source:
        """KVM's source, to be asked what it promises."""
        parts = [self.path / part for part in (source.FILE, source.GENERIC)]
        return Source(*(p.read_text(errors="replace") if p.exists() else "" for p in parts))

    @property
    def clean(self) -> bool:
        """Whether nothing was built in it: kbuild builds elsewhere only then."""
        leftovers = (".config", "include/config", "include/generated", "arch/x86/include/generated")
        return not any((self.path / name).exists() for name in leftovers)

    def key(self) -> str:
        """A short name for its content, as far as it is used."""
        total = hashlib.blake2b()
        for file in self._files():
            total.update(str(file.relative_to(self.path)).encode() + b"\0")
            total.update(hashlib.blake2b(file.read_bytes()).digest())
        return total.hexdigest()[:16]

    def _files(self) -> Iterator[Path]:
        for folder, names, files in os.walk(self.path):
            here = Path(folder)
            names[:] = sorted(name for name in names if self._used(here / name))
            for name in sorted(files):
                file = here / name
                if file.is_file() and not name.endswith((".o", ".ko", ".cmd", ".a")):
                    yield file

    def _used(self, folder: Path) -> bool:
        inside = str(folder.relative_to(self.path))
        if inside.startswith("arch/"):
            return inside.split("/")[1] in ("x86", "um")  # arch/x86 takes a Kconfig from um
        return inside not in _UNUSED


def config_of(tree: Tree) -> str:
    """The options that it is built with beside `allnoconfig`: the small config, and what is laid
    over it for a tree of that kind."""
    names = ["small", tree.distribution, "" if tree.loads_modules else "without-plt32"]
    folder = checkout() / "images/kernels/eras"
    files = [folder / f"{name}.config" for name in names if name]
    return "\n".join(file.read_text() for file in files if file.is_file())


def build(tree: Tree, timeline: Timeline) -> Path:
    """A folder for `dir:`: bzImage, modules and config; built now if it was not before.

    Raises KernelSpecError with the compiler's lines.
    """
    options = config_of(tree)
    key = cache.digest(_RECIPE, BUILDER.key, tree.key(), options)

    def make(folder: Path) -> None:
        root = debian.fetch(BUILDER, timeline)
        with timeline.step("controller", f"building {tree.version} of {tree.path}"):
            _Build(root, tree, options, folder).run()

    return cache.make("trees", f"{tree.version}-{key}", make)


@dataclass(frozen=True)
class _Build:
    """One build: ``target`` gets what a folder of `dir:` has."""

    root: Root
    tree: Tree
    options: str
    target: Path

    def run(self) -> None:
        # In what is not an entry yet: it goes with that, however the build ends.
        with tempfile.TemporaryDirectory(prefix="l2gate-tree-", dir=self.target) as name:
            work = Path(name)
            for part in ("out", "install"):
                (work / part).mkdir()
            (work / "small.config").write_text(self.options)
            tree = self.tree.path if self.tree.clean else self._cleaned(work / "tree")
            jobs = f"-j{os.cpu_count() or 1}"
            self._make(tree, work, "KCONFIG_ALLCONFIG=/mnt/small.config", "allnoconfig")
            self._make(tree, work, jobs, "bzImage", "modules")
            self._make(tree, work, "INSTALL_MOD_STRIP=1", "modules_install")
            self._keep(work)

    def _cleaned(self, copy: Path) -> Path:
        """A copy without what was built in it: the user's own is left as it is."""
        shutil.copytree(self.tree.path, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        done = self.root.run([*_MAKE, "mrproper"], binds={copy: "/mnt/tree"}, cwd="/mnt/tree")
        self._check(done.returncode, done.stdout)
        return copy

    def _make(self, tree: Path, work: Path, *words: str) -> None:
        done = self.root.run(
            ["nice", "-n", "10", *_MAKE, "O=/mnt/out", "INSTALL_MOD_PATH=/mnt/install", *words],
            binds={work / "out": "/mnt/out", work / "install": "/mnt/install"},
            reads={tree: "/mnt/tree", work / "small.config": "/mnt/small.config"},
            cwd="/mnt/tree",
        )
        self._check(done.returncode, done.stdout)

    def _check(self, status: int, said: str) -> None:
        if status == 0:
            return
        lines = said.splitlines()
        wrong = [line for line in lines if _WRONG.search(line)]
        told = "\n".join(line.replace("/mnt/tree/", "") for line in (wrong or lines)[:12])
        raise KernelSpecError(
            f"{self.tree.path} ({self.tree.version}) does not compile:\n{told}",
            "check that the tree is complete; it is built by gcc 9 with images/kernels/eras",
        )

    def _keep(self, work: Path) -> None:
        shutil.copy(work / "out/arch/x86/boot/bzImage", self.target / "bzImage")
        shutil.copy(work / "out/.config", self.target / "config")
        for release in (work / "install/lib/modules").iterdir():
            for link in ("build", "source"):  # they lead into the root that it was built in
                (release / link).unlink(missing_ok=True)
            shutil.copytree(release, self.target / "lib/modules" / release.name, symlinks=True)
