# SPDX-License-Identifier: MIT
"""Variants of KVM's modules: a suite's own source with patches, built by its own compiler.

Only kvm.ko and the vendors' modules are built, out of tree, against the suite's kernel
headers, so they load into the stock kernel. The unpatched source is compiled once and kept with
its objects; a variant starts from a copy of it and compiles only what its patches touch.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from l2gate.foundation import cache
from l2gate.foundation.debian import Root
from l2gate.foundation.errors import BenchError, KernelSpecError
from l2gate.foundation.events import Timeline
from l2gate.kernels.patch import Patch, apply
from l2gate.vendors.vendors import VENDORS

_RECIPE = "1"
#: Bump when patches are applied in a way that another result can come of.
_APPLYING = "2"
_KVM = ("arch/x86/kvm", "virt/kvm")
MODULES = ("kvm.ko", *(vendor.module_file for vendor in VENDORS))


def build(root: Root, patches: tuple[Patch, ...], timeline: Timeline) -> dict[str, Path]:
    """The modules by file name, built now if they were not before.

    Raises KernelSpecError with git's or the compiler's own lines.
    """
    contents = [patch.content for patch in patches]
    key = cache.digest(_RECIPE, _APPLYING, root.suite.key, root.release, *contents)

    def make(folder: Path) -> None:
        tree = _compiled_tree(root, timeline)
        names = ", ".join(patch.path.name for patch in patches) or "no patch"
        with timeline.step("controller", f"building KVM of {root.release} with {names}"):
            _build_variant(root, tree, patches, folder)

    entry = cache.make("modules", key, make)
    return {name: entry / name for name in MODULES}


def _common(root: Root) -> str:
    """Where the headers' common half lies inside the root: linux-headers-X-common."""
    flavour = root.release.rpartition("-")[0]
    return f"/usr/src/linux-headers-{flavour}-common"


def _compiled_tree(root: Root, timeline: Timeline) -> Path:
    """The headers' common tree with KVM's source in it, compiled without any patch."""

    def make(folder: Path) -> None:
        with timeline.step("controller", f"compiling KVM of {root.release} once"):
            _lay_tree(root, folder)
            _compile(root, folder, folder)

    return cache.make("kvm-tree", _tree_key(root), make)


def _tree_key(root: Root) -> str:
    return cache.digest(_RECIPE, root.suite.key, root.release)


def source_tree(root: Root, timeline: Timeline) -> Path:
    """A tree with KVM's unpatched source: the compiled one, or else just unpacked."""

    def make(folder: Path) -> None:
        with timeline.step("controller", f"unpacking KVM's source of {root.release} once"):
            _unpack_kvm(root, folder)

    key = _tree_key(root)
    return cache.find("kvm-tree", key) or cache.make("kvm-source", key, make)


def _lay_tree(root: Root, folder: Path) -> None:
    common = root.path / _common(root).lstrip("/")
    shutil.copytree(common, folder, symlinks=True, dirs_exist_ok=True)
    _unpack_kvm(root, folder)


def _unpack_kvm(root: Root, folder: Path) -> None:
    series = root.suite.series
    archive = f"/usr/src/linux-source-{series}.tar.xz"
    inside = [f"linux-source-{series}/{part}" for part in (*_KVM, "Makefile")]
    with tempfile.TemporaryDirectory(prefix="l2gate-source-") as name:
        done = root.run(["tar", "-xJf", archive, "-C", "/mnt", *inside], binds={Path(name): "/mnt"})
        if done.returncode:
            raise BenchError(f"unpacking {archive} failed: {done.stdout}", "run `make images`")
        source = Path(name) / f"linux-source-{series}"
        _check_version(root, source / "Makefile")
        for part in _KVM:
            shutil.copytree(source / part, folder / part, dirs_exist_ok=True)


def _check_version(root: Root, makefile: Path) -> None:
    """The source must be the kernel's own, to the last number."""
    numbers = re.findall(r"^(?:VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)", makefile.read_text(), re.M)
    version = ".".join(numbers)
    if root.version != version:
        raise BenchError(
            f"the suite's kernel is {root.version}, its source is {version}",
            "the archive is between two updates: run `make distclean images` later",
        )


def _build_variant(root: Root, tree: Path, patches: tuple[Patch, ...], target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="l2gate-kvm-") as name:
        work = Path(name)
        for part in _KVM:
            shutil.copytree(tree / part, work / part, symlinks=True)
        for patch in patches:
            apply(patch, work, name_of(root))
        _drop_stale_objects(work, patches)
        _compile(root, tree, work)
        for module in MODULES:
            built = work / "arch/x86/kvm" / module
            done = root.run(["strip", "--strip-debug", f"/mnt/{module}"],
                            binds={built.parent: "/mnt"})  # fmt: skip
            if done.returncode:
                raise BenchError(f"stripping {module} failed: {done.stdout}")
            shutil.copy(built, target / module)


def name_of(root: Root) -> str:
    """What a suite's KVM is called in errors."""
    return f"KVM of {root.release}"


def _drop_stale_objects(work: Path, patches: tuple[Patch, ...]) -> None:
    """Make would link the object of a file that a patch has taken away."""
    for name in (name for patch in patches for name in patch.touched):
        if not (work / name).exists():
            (work / name).with_suffix(".o").unlink(missing_ok=True)


def _compile(root: Root, tree: Path, work: Path) -> None:
    """Build the modules in ``work``, laid over ``tree``. Raises KernelSpecError."""
    common = _common(root)
    binds = {tree: common}
    if work != tree:
        binds |= {work / part: f"{common}/{part}" for part in _KVM}
    words = [
        "make",
        "-s",
        f"-j{os.cpu_count() or 1}",
        "-C",
        f"/usr/src/linux-headers-{root.release}",
    ]
    words += [f"M={common}/arch/x86/kvm", *_includes(common, tree), "modules"]
    done = root.run(words, binds=binds)
    missing = [m for m in MODULES if not (work / "arch/x86/kvm" / m).exists()]
    if done.returncode or missing:
        raise KernelSpecError(
            f"KVM of {root.release} does not compile:\n{_compiler_lines(done.stdout)}",
            "fix the patch",
        )


def _includes(common: str, tree: Path) -> list[str]:
    """5.10 looks for its own headers below the folder that make runs in, later ones below the
    source (arch/x86/kvm/Makefile: -I $(srctree)/arch/x86/kvm)."""
    relative = "-Iarch/x86/kvm" in (tree / "arch/x86/kvm/Makefile").read_text()
    return [f"KCFLAGS=-I{common}/arch/x86/kvm"] if relative else []


def _compiler_lines(output: str) -> str:
    """The compiler's errors with the lines that show where; all if there is none."""
    lines = output.splitlines()
    wanted = {
        number + offset
        for number, line in enumerate(lines)
        if re.search(r"\b(error|undefined)\b", line)
        for offset in range(4)
    }
    chosen = [line for number, line in enumerate(lines) if number in wanted] or lines
    return "\n".join(line.replace("/usr/src/", "") for line in chosen[:30])
