# SPDX-License-Identifier: MIT
"""The kernel under test, ready to boot: an image, its modules, and which of them were rebuilt."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from l2gate.foundation import cache, debian
from l2gate.foundation.errors import KernelSpecError
from l2gate.foundation.events import Timeline
from l2gate.foundation.process import run
from l2gate.kernels import builtin, config, variants, vmlinux
from l2gate.kernels.spec import VARIANTS, DebianSpec, DirSpec, parse, release_of
from l2gate.kernels.vmlinux import Vmlinux
from l2gate.vendors.vendors import MODULES

_READERS = {".xz": lzma.decompress, ".gz": gzip.decompress}


@dataclass(frozen=True)
class KernelUnderTest:
    """What L0 boots. ``replaced`` maps file names such as kvm.ko to rebuilt modules."""

    spec: str
    release: str
    vmlinuz: Path
    modules: Path | None
    description: str
    key: str
    replaced: dict[str, Path] = field(default_factory=dict)
    #: The folder of a kernel of the user's own.
    home: Path | None = None
    #: The spec of the kernel that it is but for patches of the user's to KVM's modules.
    stock: str | None = None

    @property
    def unpacked(self) -> Vmlinux | None:
        """The kernel inside the bzImage, if it is packed in a way that is known."""
        return vmlinux.unpacked(self.vmlinuz)

    @property
    def fastest(self) -> Path:
        """What QEMU's -kernel starts soonest: the unpacked kernel if it has a PVH entry."""
        plain = self.unpacked
        return plain.path if plain and plain.pvh else self.vmlinuz


def prepare(text: str, timeline: Timeline) -> KernelUnderTest:
    """The kernel that ``text`` names, built now if it must be.

    Raises KernelSpecError for a spec that cannot be used, MissingPrerequisite if its suite has
    not been fetched.
    """
    spec = parse(text)
    return _own(spec) if isinstance(spec, DirSpec) else _debian(spec, timeline)


def _debian(spec: DebianSpec, timeline: Timeline) -> KernelUnderTest:
    root = debian.find(spec.suite)
    replaced = variants.build(root, spec.patches, timeline) if spec.patches else {}
    how = ", ".join(patch.path.stem for patch in spec.patches)
    return KernelUnderTest(
        spec=spec.text,
        release=root.release,
        vmlinuz=root.path / f"boot/vmlinuz-{root.release}",
        modules=root.modules,
        description=f"Debian {spec.suite.name}, {f'KVM rebuilt with {how}' if how else 'stock'}",
        key=cache.digest(root.suite.key, root.release, *replaced.values()),
        replaced=replaced,
        stock=None if spec.named else f"debian:{spec.suite.series}",
    )


def _own(spec: DirSpec) -> KernelUnderTest:
    release = release_of(spec.image)
    parts: list[str | Path] = [spec.image]
    if spec.modules:
        # A rebuilt module has a new time or size; reading them all would take longer than a boot.
        for module in sorted(spec.modules.rglob("*.ko*")):
            stat = module.stat()
            parts.append(f"{module.name} {stat.st_size} {stat.st_mtime_ns}")
    return KernelUnderTest(
        spec=spec.text,
        release=release,
        vmlinuz=spec.image,
        modules=spec.modules,
        description=f"a kernel of your own, {'with' if spec.modules else 'without'} modules",
        key=cache.digest(*parts),
        home=spec.folder,
    )


def unconfigured(kernel: KernelUnderTest) -> str:
    """All options that an emulated machine needs and the configuration of a kernel of the user's,
    if there is one, lacks; with where it says so. Empty if it lacks none."""
    if kernel.home is None:
        return ""
    found = builtin.configuration(kernel.home, kernel.vmlinuz, kernel.release)
    lacks = config.missing(found[0]) if found else []
    return f"{', '.join(lacks)} ({found[1]})" if found and lacks else ""


def known() -> tuple[tuple[str, str], ...]:
    """(spec, what it proves) of each kernel that has a name. Raises KernelSpecError where a series
    lacks a patch of its own."""
    listed = []
    for suite in debian.SUITES:
        stock = f"debian:{suite.series}"
        listed.append((stock, f"Debian {suite.name}'s stock kernel"))
        for name in VARIANTS:
            spec = parse(f"{stock}+{name}")
            assert isinstance(spec, DebianSpec)
            proves = spec.patches[-1].header.partition("Proves: ")[2].partition("\n\n")[0]
            listed.append((spec.text, " ".join(proves.split())))
    return tuple(listed)


def read_module(path: Path) -> bytes:
    """A module's bytes, unpacked. Raises BenchError if it cannot be."""
    if path.suffix == ".zst":
        return run(["zstd", "-dcq", path], what=f"unpacking {path.name}")
    return _READERS.get(path.suffix, bytes)(path.read_bytes())


def closure(kernel: KernelUnderTest, names: Sequence[str]) -> tuple[Path, ...]:
    """The files of the modules ``names`` and of what they need, in the order to load them.

    Built-in modules have no file, nor has what may be built in; a vendor module may be missing as
    long as there is one. Raises KernelSpecError for a kernel that lacks some.
    """
    tree = _ModuleTree.read(kernel.modules)
    absent, _, where = _without_file(kernel, tree, names)
    if absent:
        folder = f" (make modules_install INSTALL_MOD_PATH={kernel.home})" if kernel.home else ""
        raise KernelSpecError(
            f"this kernel has neither built in nor as a module: {' '.join(absent)} ({where})",
            f"build it with them, or put its modules into lib/modules/{kernel.release} beside "
            f"it{folder}; the README says what an emulated host needs",
        )
    order: dict[str, Path] = {}
    for name in names:
        for path in tree.needed(name):
            rebuilt = kernel.replaced.get(path.name.partition(".ko")[0] + ".ko")
            order.setdefault(_plain(path.name), rebuilt or path)
    return tuple(order.values())


def untold(kernel: KernelUnderTest, names: Sequence[str]) -> list[str]:
    """Those of ``names`` of which only a boot can tell whether the kernel has them."""
    return _without_file(kernel, _ModuleTree.read(kernel.modules), names)[1]


def _without_file(
    kernel: KernelUnderTest, tree: _ModuleTree, names: Sequence[str]
) -> tuple[list[str], list[str], str]:
    """Those that are no modules: what is not built in either, what may be, and what says so."""
    left = [name for name in names if _plain(name) not in tree.files]
    if not left:
        return [], [], ""
    known = builtin.read(kernel.modules, kernel.home, kernel.vmlinuz, kernel.release)
    has = {name: known.has(_plain(name)) for name in left}
    if any(_plain(vendor) in tree.files or known.has(vendor) for vendor in MODULES):
        has = {name: there for name, there in has.items() if name not in MODULES}
    elif any(has.get(vendor, False) is None for vendor in MODULES):
        has = {n: there for n, there in has.items() if n not in MODULES or there is None}
    absent = [name for name, there in has.items() if there is False]
    return absent, [name for name, there in has.items() if there is None], known.where


def _plain(name: str) -> str:
    return name.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


@dataclass(frozen=True)
class _ModuleTree:
    """modules.dep of one release; no files where there are no modules."""

    files: dict[str, Path]
    needs: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, folder: Path | None) -> _ModuleTree:
        if folder is None:
            return cls({}, {})
        dep = folder / "modules.dep"
        if not dep.exists():
            raise KernelSpecError(f"{folder} has no modules.dep", f"run depmod on {folder}")
        files: dict[str, Path] = {}
        needs: dict[str, tuple[str, ...]] = {}
        for line in dep.read_text().splitlines():
            file, _, others = line.partition(":")
            files[_plain(file)] = folder / file
            # modules.dep lists the nearest need first: load from the last
            needs[_plain(file)] = tuple(_plain(other) for other in reversed(others.split()))
        return cls(files, needs)

    def needed(self, name: str) -> list[Path]:
        own = _plain(name)
        chain = [*self.needs.get(own, ()), own]
        return [self.files[one] for one in chain if one in self.files]
