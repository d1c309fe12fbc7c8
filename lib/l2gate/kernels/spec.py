# SPDX-License-Identifier: MIT
"""Kernel specs: one string names the kernel under test, and a malformed one is a usage error."""

from __future__ import annotations

import difflib
import errno
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.debian import SUITES, Suite, suite_of
from l2gate.foundation.errors import KernelSpecError
from l2gate.foundation.settings import checkout, path_of, refuse_odd_letters
from l2gate.kernels.patch import Patch

#: The named variants, as patches applied in this order.
VARIANTS = {"patched": ("era", "commit"), "unpatched": ("era",)}


@dataclass(frozen=True)
class DebianSpec:
    """A suite's kernel, with patches to its KVM."""

    text: str
    suite: Suite
    patches: tuple[Patch, ...]

    @property
    def named(self) -> bool:
        """Whether it has no patches of the user's own."""
        return self.text.partition("+")[2] in ("", *VARIANTS)


@dataclass(frozen=True)
class DirSpec:
    """A kernel of the user's own."""

    text: str
    image: Path
    modules: Path | None

    @property
    def folder(self) -> Path:
        return path_of(self.text.partition(":")[2])


KernelSpec = DebianSpec | DirSpec


def parse(text: str) -> KernelSpec:
    """What ``text`` names. Raises KernelSpecError with cause and hint, MissingPrerequisite if a
    patch cannot be read as git is not installed."""
    refuse_odd_letters("kernel", text)
    kind, _, rest = text.partition(":")
    if kind == "debian" and rest:
        series, *parts = rest.split("+")
        return DebianSpec(text, _suite(series), tuple(_patches(series, parts)))
    if kind == "dir" and rest:
        return _parse_dir(text, path_of(rest))
    raise KernelSpecError(
        f"kernel {text!r} is not a kernel spec",
        f"{_meant(text)}use debian:SERIES, debian:SERIES+patched, debian:SERIES+unpatched, "
        "debian:SERIES+FILE (a patch) or dir:PATH",
    )


def _meant(text: str) -> str:
    """What was written without its kind, or with blanks or capitals in it."""
    bare = text.strip().casefold().removeprefix("debian:")
    if bare.partition("+")[0] in {suite.series for suite in SUITES}:
        return f"did you mean debian:{bare}? "
    return f"did you mean dir:{text}? " if text.strip() and path_of(text).is_dir() else ""


def recipes(series: str) -> Path:
    """Where the patches of a series are."""
    return checkout() / "images/kernels" / series


def _suite(series: str) -> Suite:
    for suite in SUITES:
        if suite.name == series:
            raise KernelSpecError(
                f"kernels are named by their series, not by {series}", f"use debian:{suite.series}"
            )
    return suite_of(series)


def _patches(series: str, parts: Sequence[str]) -> Iterator[Patch]:
    """The patches that ``parts``, what stood between the pluses, name: a variant by its word, a
    file by its path. A path may have pluses itself: the longest that is there is meant."""
    start = 0
    while start < len(parts):
        end = next(
            (end for end in range(len(parts), start, -1) if _is_file("+".join(parts[start:end]))),
            start + 1,
        )
        word = "+".join(parts[start:end])
        if word in VARIANTS:
            yield from (_checked(recipes(series) / f"{name}.patch") for name in VARIANTS[word])
        elif _is_file(word):
            yield _checked(path_of(word))
        else:
            raise _names_nothing(series, parts[start:])
        start = end


def _is_file(word: str) -> bool:
    try:
        return path_of(word).is_file()
    except OSError:
        return False


def _names_nothing(series: str, parts: Sequence[str]) -> KernelSpecError:
    """Why the first of ``parts`` names nothing, with the nearest name that does."""
    known = next((n for n, p in enumerate(parts) if n and (p in VARIANTS or _is_file(p))), None)
    word = "+".join(parts[:known])
    if not word:
        return KernelSpecError(
            f"debian:{series}+ has nothing after a plus",
            f"use one of {', '.join(VARIANTS)}, or the path of a patch; or leave the plus out",
        )
    try:
        mode = path_of(word).stat().st_mode
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        return KernelSpecError(f"{word} is {what}, not a patch", "name a file with a patch")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return KernelSpecError(
                f"patch {word}: {error.strerror}", "name a file that this user can read"
            )
    hint = f"use one of {', '.join(VARIANTS)}, or the path of a patch"
    if near := _nearest(word):
        hint = f"did you mean {near}? Or {hint}"
    return KernelSpecError(f"debian:{series} has no variant and there is no file {word!r}", hint)


def _nearest(word: str) -> str:
    """The variant or the file in the same folder whose name is the likest."""
    if near := difflib.get_close_matches(word, VARIANTS, n=1):
        return near[0]
    path = path_of(word)
    try:
        there = [file.name for file in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, there, n=1)
    return str(path.with_name(near[0])) if near else ""


def _checked(path: Path) -> Patch:
    patch = Patch(path.resolve())
    try:
        patch.check()
    except FileNotFoundError:
        raise KernelSpecError(
            f"there is no patch {path}", "write it; images/README.md says how"
        ) from None
    except OSError as error:
        raise KernelSpecError(
            f"patch {path} cannot be read: {error.strerror}", "make it readable for this user"
        ) from None
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
            f"{image} is not an x86 kernel image (bzImage)",
            "give the vmlinuz that a boot loader takes, not the ELF file vmlinux",
        )
    whole = ((head[0x1F1] or 4) + 1) * 512 + int.from_bytes(head[0x1F4:0x1F8], "little") * 16
    if image.stat().st_size < whole:
        raise KernelSpecError(
            f"{image} is truncated: {image.stat().st_size} of {whole} bytes", "copy it again"
        )
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    words = head[start:].partition(b"\0")[0].split()
    if not words:
        raise KernelSpecError(f"{image} does not say its release", "give a bzImage as it was built")
    return words[0].decode(errors="replace")
