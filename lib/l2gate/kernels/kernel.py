"""The kernel under test, ready to boot: an image, its modules, and which of them were rebuilt."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from l2gate.errors import KernelSpecError
from l2gate.events import Timeline
from l2gate.images import cache, roots
from l2gate.kernels import config, variants, vmlinux
from l2gate.kernels.spec import VARIANTS, DebianSpec, DirSpec, Patch, parse, recipes, release_of
from l2gate.kernels.vmlinux import Vmlinux
from l2gate.process import run

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
    root = roots.find(spec.suite)
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
    )


def _own(spec: DirSpec) -> KernelUnderTest:
    release = release_of(spec.image)
    _check_config(spec, release)
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
        description=f"a kernel of your own, {'with modules' if spec.modules else 'all built in'}",
        key=cache.digest(*parts),
    )


def _check_config(spec: DirSpec, release: str) -> None:
    """Raises KernelSpecError with all options that its config, if there is one, lacks."""
    text = config.beside(spec.image, spec.modules, release)
    if text is None and (plain := vmlinux.unpacked(spec.image)):
        text = config.inside(plain.path.read_bytes())
    if text and (lacks := config.missing(text)):
        raise KernelSpecError(
            f"kernel {release} is built without {', '.join(lacks)}",
            "an emulated machine needs them all; images/kernels/eras/small.config has them",
        )


def known() -> tuple[tuple[str, str], ...]:
    """(spec, what it proves) of each kernel that has a name."""
    listed = []
    for suite in roots.SUITES:
        stock = f"debian:{suite.series}"
        listed.append((stock, f"Debian {suite.name}'s stock kernel"))
        for name, patches in VARIANTS.items():
            headers = [Patch(recipes(suite.series) / f"{p}.patch").header for p in patches]
            proves = headers[-1].partition("Proves: ")[2].partition("\n\n")[0]
            listed.append((f"{stock}+{name}", " ".join(proves.split())))
    return tuple(listed)


def read_module(path: Path) -> bytes:
    """A module's bytes, unpacked. Raises BenchError if it cannot be."""
    if path.suffix == ".zst":
        return run(["zstd", "-dcq", path], what=f"unpacking {path.name}")
    return _READERS.get(path.suffix, bytes)(path.read_bytes())


def closure(kernel: KernelUnderTest, names: Sequence[str]) -> tuple[Path, ...]:
    """The files of the modules ``names`` and of what they need, in the order to load them.

    Built-in modules have no file. A kernel without a module tree is taken to have all built in,
    and a vendor module may be missing as long as there is one. Raises KernelSpecError.
    """
    if kernel.modules is None:
        return ()
    tree = _ModuleTree.read(kernel.modules)
    order: dict[str, Path] = {}
    for name in names:
        if not tree.has(name):
            if name in _VENDORS and any(tree.has(vendor) for vendor in _VENDORS):
                continue
            raise KernelSpecError(
                f"kernel {kernel.release} has no {name}, neither as a module nor built in",
                f"build it with {name} (see the README for what an emulated host needs)",
            )
        for path in tree.needed(name):
            rebuilt = kernel.replaced.get(path.name.partition(".ko")[0] + ".ko")
            order.setdefault(_plain(path.name), rebuilt or path)
    return tuple(order.values())


_VENDORS = ("kvm_intel", "kvm_amd")


def _plain(name: str) -> str:
    return name.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


@dataclass(frozen=True)
class _ModuleTree:
    """modules.dep and modules.builtin of one release."""

    files: dict[str, Path]
    needs: dict[str, tuple[str, ...]]
    builtin: frozenset[str]

    @classmethod
    def read(cls, folder: Path) -> _ModuleTree:
        dep, builtin = folder / "modules.dep", folder / "modules.builtin"
        if not dep.exists():
            raise KernelSpecError(f"{folder} has no modules.dep", f"run depmod on {folder}")
        files: dict[str, Path] = {}
        needs: dict[str, tuple[str, ...]] = {}
        for line in dep.read_text().splitlines():
            file, _, others = line.partition(":")
            files[_plain(file)] = folder / file
            # modules.dep lists the nearest need first: load from the last
            needs[_plain(file)] = tuple(_plain(other) for other in reversed(others.split()))
        built = builtin.read_text().splitlines() if builtin.exists() else []
        return cls(files, needs, frozenset(_plain(line) for line in built))

    def has(self, name: str) -> bool:
        return _plain(name) in self.files or _plain(name) in self.builtin

    def needed(self, name: str) -> list[Path]:
        own = _plain(name)
        if own in self.builtin:
            return []
        chain = [*self.needs.get(own, ()), own]
        return [self.files[one] for one in chain if one in self.files]
