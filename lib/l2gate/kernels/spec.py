"""Kernel specs: one string names the kernel under test, and what cannot be meant is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from l2gate.errors import KernelSpecError
from l2gate.images.roots import Suite, suite_of
from l2gate.settings import checkout

#: What a patch may touch: only the KVM modules are rebuilt.
_PATCHABLE = re.compile(r"^(arch/x86/kvm|virt/kvm)/")

#: The named variants, as patches applied in this order.
VARIANTS = {"patched": ("era", "commit"), "unpatched": ("era",)}


@dataclass(frozen=True)
class Patch:
    """A patch file; what stands before its first hunk is its header."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(errors="replace")

    @property
    def header(self) -> str:
        return self.text.partition("\n--- ")[0].strip()

    @property
    def touched(self) -> tuple[str, ...]:
        """The files it changes, without their a/ and b/."""
        names = re.findall(r"^\+\+\+ (?:b/)?(\S+)", self.text, flags=re.MULTILINE)
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class DebianSpec:
    """A suite's kernel, with patches to its KVM."""

    text: str
    suite: Suite
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class DirSpec:
    """A kernel of the user's own."""

    text: str
    image: Path
    modules: Path | None


KernelSpec = DebianSpec | DirSpec


def parse(text: str) -> KernelSpec:
    """What ``text`` names. Raises KernelSpecError with cause and mend."""
    kind, _, rest = text.partition(":")
    if kind == "debian" and rest:
        series, *parts = rest.split("+")
        suite = suite_of(series)
        patches = [patch for part in parts for patch in _patches(series, part)]
        return DebianSpec(text, suite, tuple(patches))
    if kind == "dir" and rest:
        return _parse_dir(text, Path(rest).expanduser())
    raise KernelSpecError(
        f"kernel {text!r} is not a kernel spec",
        "use debian:SERIES, debian:SERIES+patched, debian:SERIES+unpatched, "
        "debian:SERIES+FILE.patch or dir:PATH",
    )


def recipes(series: str) -> Path:
    """Where the patches of a series are."""
    return checkout() / "images/kernels" / series


def _patches(series: str, part: str) -> list[Patch]:
    if part in VARIANTS:
        return [_checked(recipes(series) / f"{name}.patch") for name in VARIANTS[part]]
    if part.endswith((".patch", ".diff")):
        return [_checked(Path(part).expanduser())]
    raise KernelSpecError(
        f"debian:{series} has no variant {part!r}",
        f"use one of {', '.join(VARIANTS)}, or the path of a .patch or .diff file",
    )


def _checked(path: Path) -> Patch:
    if not path.is_file():
        raise KernelSpecError(f"there is no patch {path}", "give the path of a patch file")
    patch = Patch(path.resolve())
    if not patch.touched:
        raise KernelSpecError(f"{path} holds no unified diff", "make it by `git diff`")
    foreign = [name for name in patch.touched if not _PATCHABLE.match(name)]
    if foreign:
        raise KernelSpecError(
            f"{path} touches {', '.join(foreign)}; only KVM's modules are rebuilt",
            "keep to arch/x86/kvm and virt/kvm, or boot a kernel of your own with dir:PATH",
        )
    return patch


def _parse_dir(text: str, folder: Path) -> DirSpec:
    if not folder.is_dir():
        raise KernelSpecError(f"there is no folder {folder}", "give a folder with a vmlinuz")
    image = _find_image(folder)
    releases = [
        release
        for base in ("lib/modules", "usr/lib/modules")
        if (folder / base).is_dir()
        for release in sorted((folder / base).iterdir())
        if release.is_dir()
    ]
    wanted = release_of(image)
    if not releases:
        return DirSpec(text, image, None)
    for release in releases:
        if release.name == wanted:
            return DirSpec(text, image, release)
    raise KernelSpecError(
        f"{image} is kernel {wanted}, but {folder} has modules of "
        f"{', '.join(r.name for r in releases)}",
        f"install the modules of {wanted}: make modules_install INSTALL_MOD_PATH={folder}",
    )


def _find_image(folder: Path) -> Path:
    names = ("vmlinuz", "bzImage", "arch/x86/boot/bzImage", "boot/vmlinuz")
    for name in names:
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise KernelSpecError(
        f"{folder} has no kernel image", f"it must hold one of: {', '.join(names)}"
    )


def release_of(image: Path) -> str:
    """The release a bzImage carries (Documentation/arch/x86/boot.rst: kernel_version).

    Raises KernelSpecError if the file is no bzImage.
    """
    with image.open("rb") as handle:
        head = handle.read(64 * 1024)
    if head[0x202:0x206] != b"HdrS":
        raise KernelSpecError(
            f"{image} is no x86 kernel image (bzImage)",
            "give the vmlinuz that a boot loader takes, not the ELF file vmlinux",
        )
    whole = ((head[0x1F1] or 4) + 1) * 512 + int.from_bytes(head[0x1F4:0x1F8], "little") * 16
    if image.stat().st_size < whole:
        raise KernelSpecError(
            f"{image} is cut short: {image.stat().st_size} of {whole} bytes", "copy it again"
        )
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return head[start : head.index(b"\0", start)].split()[0].decode(errors="replace")
