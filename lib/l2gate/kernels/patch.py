# SPDX-License-Identifier: MIT
"""A patch to KVM: what it touches, whether it may, and applying it as `git apply` does.

git itself reads and applies; here is decided which part of a file is a change, how many leading
folders its names have, and what a refusal says.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.errors import KernelSpecError
from l2gate.kernels.git import Said, git
from l2gate.kernels.mail import Letter, letters

#: What a patch may touch: only the KVM modules are rebuilt.
_KVM = re.compile(r"(arch/x86/kvm|virt/kvm)/")
#: The kernel's other folders and files, to tell how many leading folders a name has.
_TREE = re.compile(
    r"(arch|block|certs|crypto|Documentation|drivers|fs|include|init|io_uring|ipc|kernel|lib|"
    r"LICENSES|mm|net|rust|samples|scripts|security|sound|tools|usr|virt)/|"
    r"(COPYING|CREDITS|Kbuild|Kconfig|MAINTAINERS|Makefile|README)$"
)
#: They have folders of their own that are named as KVM's.
_LOOKALIKES = re.compile(r"(.*/)?(Documentation|tools)/")
#: Leading folders that are tried: `git diff` has one, and a path to somebody's tree a few.
_LEVELS = (1, 0, 2, 3, 4, 5, 6, 7, 8)
#: Where a diff begins, for what stands before it.
_DIFF = re.compile(r"^(?:diff --git |Index: |--- \S.*\n\+\+\+ |---\s*$)", re.M)
#: How gzip, bzip2, xz, zstd and zip begin a file.
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\3\4")
_QUOTED_LINES = 40
_UNANCHORED = "a hunk has no lines around the change (-U0), so nothing says where it belongs"
_UNIFIED = "make it by `git diff`, `git format-patch` or `diff -u`"


@dataclass(frozen=True)
class Piece:
    """A change that is applied at once: a mail, a commit, or the whole file.

    ``level`` is the number of leading folders to take off its names (git apply -p), ``touched``
    names the files without them, each renamed or copied one by both names.
    """

    title: str
    diff: bytes
    level: int
    touched: tuple[str, ...]
    number: int = 0


@dataclass(frozen=True)
class Patch:
    """A patch file; what stands before its first diff is its header."""

    path: Path

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @property
    def header(self) -> str:
        text = self.content.decode(errors="replace")
        found = _DIFF.search(text)
        return (text[: found.start()] if found else text).strip()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Its changes in the order in which they are to be applied.

        Raises KernelSpecError, with the reason, for what is no patch to KVM, MissingPrerequisite
        if git is not installed.
        """
        return _read(self.path.name, self.content)

    def check(self) -> None:
        """Raises as ``pieces`` does."""
        _read(self.path.name, self.content)

    @property
    def touched(self) -> tuple[str, ...]:
        """The files it changes, brings, takes away or reads, as the kernel's tree names them."""
        return tuple(dict.fromkeys(name for piece in self.pieces for name in piece.touched))


# --- reading --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _read(name: str, content: bytes) -> tuple[Piece, ...]:
    try:
        _check_text(content)
        pieces = [piece for letter in letters(content) if (piece := _piece(letter))]
        if not pieces:
            raise _no_change(content)
        return _in_order(pieces)
    except KernelSpecError as error:
        raise KernelSpecError(f"patch {name}: {error.cause}", error.hint) from None


def _check_text(content: bytes) -> None:
    """Raises KernelSpecError for a file that is no patch whatever it may have inside."""
    if not content.strip():
        raise KernelSpecError("it is empty", _UNIFIED)
    if content.startswith(_PACKED):
        raise KernelSpecError("it is compressed", "unpack it first")
    if re.match(rb"# v\d git bundle", content):
        raise KernelSpecError("it is a git bundle", _UNIFIED)
    if b"\0" in content and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise KernelSpecError("it is binary, or in UTF-16 without saying so", _UNIFIED)
    if re.match(rb"\s*<(?:!doctype|html)", content, re.I):
        raise KernelSpecError("it is a web page", "save the patch itself (raw, or mbox)")


def _piece(letter: Letter) -> Piece | None:
    """None for what is only a message, as a series' cover letter. Raises KernelSpecError."""
    try:
        return _checked(letter)
    except KernelSpecError as error:
        which = f"in {letter.title!r}, " if letter.title else ""
        raise KernelSpecError(f"{which}{error.cause}", error.hint) from None


def _checked(letter: Letter) -> Piece | None:
    found = _levelled(letter)
    if found is None and letter.number:
        raise _no_change(letter.text)
    if found is None:
        return None
    level, names = found
    _check_places(letter, names)
    _check_anchored(letter.text)
    summary = git(["apply", "--summary", f"-p{level}"], letter.text).output.decode(errors="replace")
    if odd := re.search(r"^ (?:create mode|mode change \d+ =>) 1[26]0000 .*$", summary, re.M):
        raise KernelSpecError(
            f"it creates a symbolic link or a submodule:{odd[0]}", "use plain files"
        )
    return Piece(letter.title, letter.text, level, names, letter.number)


def _levelled(letter: Letter) -> tuple[int, tuple[str, ...]] | None:
    """(level, names): the level at which all names are KVM's, or else the likeliest. None if there
    is no change in it."""
    read: dict[int, tuple[str, ...]] = {}
    for level in _LEVELS:
        said, names = _names(letter.text, level)
        if said.status == 0 and not names:
            return None
        if said.status and level == _LEVELS[0]:
            _check_whole(letter.text, said)
        if said.status:
            continue
        read[level] = names
        if all(map(_KVM.match, names)) and not _in_lookalike(letter.text, level):
            return level, names
    if not read:
        raise KernelSpecError(
            f"git cannot tell which files it is about: {said.errors[0]}", _UNIFIED
        )
    likely = [level for level, names in read.items() if all(map(_TREE.match, names))]
    level = min(likely) if likely else next(iter(read))
    return level, read[level]


def _names(diff: bytes, level: int) -> tuple[Said, tuple[str, ...]]:
    """The new names, and by way of the reverse patch the old ones."""
    found: list[str] = []
    for words in ((), ("-R",)):
        said = git(["apply", "--allow-empty", "--numstat", "-z", f"-p{level}", *words], diff)
        if said.status:
            break
        lines = said.output.decode(errors="surrogateescape").split("\0")
        found += [line.split("\t", 2)[2] for line in lines if line]
    return said, tuple(dict.fromkeys(found))


def _in_lookalike(diff: bytes, level: int) -> bool:
    """Whether what is taken off is a folder such as Documentation/, which has a virt/kvm too."""
    return re.search(rb"(?:Documentation|tools)/", diff) is not None and any(
        _LOOKALIKES.match(name[: found.start() + 1])
        for fewer in range(level)
        for name in _names(diff, fewer)[1]
        if (found := re.search(r"/(?:arch/x86|virt)/kvm/", name))
    )


def _check_whole(diff: bytes, said: Said) -> None:
    """Raises KernelSpecError for a damaged patch, with the line at which it is."""
    for error in said.errors:
        if re.match(r"corrupt patch|patch fragment without header|.*corrupt binary patch", error):
            at = re.search(r"(?:line |:)(\d+)", error)
            lines = diff.decode(errors="replace").splitlines()
            number = int(at[1]) if at else 0
            quoted = f": {lines[number - 1]!r}" if 0 < number <= len(lines) else ""
            raise KernelSpecError(
                f"it is cut short or damaged: git says: {error}{quoted}",
                "get it from its source again; a hunk must have as many lines as its @@ says, and "
                "a mail program must not wrap or strip them",
            )


def _check_places(letter: Letter, names: Sequence[str]) -> None:
    if unsafe := _outside(letter.text):
        raise KernelSpecError(
            f"it names files outside the kernel's tree: {', '.join(unsafe)}",
            "make it inside the tree, as `git diff` does",
        )
    if foreign := [name for name in names if not _KVM.match(name)]:
        raise KernelSpecError(
            f"it touches {', '.join(map(_printable, foreign))}; only KVM's modules are rebuilt",
            "keep to arch/x86/kvm and virt/kvm, named from the top of the kernel's tree, as `git "
            "show COMMIT -- arch/x86/kvm virt/kvm` does; or boot a kernel of your own with "
            "dir:PATH",
        )


def _check_anchored(diff: bytes) -> None:
    """Raises KernelSpecError for lines that are added with none around them: git would put them at
    the end of the file, wherever the hunk says (apply.c: match_end without unidiff_zero)."""
    if found := re.search(rb"^@@ -[1-9]\d*,0 \+.*", diff, re.M):
        raise KernelSpecError(f"{_UNANCHORED}:\n{found[0].decode(errors='replace')}", _UNIFIED)


def _outside(diff: bytes) -> list[str]:
    """Names that are absolute or lead upwards, as the diff has them."""
    names: list[bytes] = []
    for old, new in re.findall(rb"^--- ([^\t\n]+).*\n\+\+\+ ([^\t\n]+).*\n@@ -", diff, re.M):
        names += (old, new)
    names += re.findall(rb"^(?:rename|copy) (?:from|to) (.+)$", diff, re.M)
    names += [n for pair in re.findall(rb"^diff --git (\S+) (\S+)$", diff, re.M) for n in pair]
    plain = [name.decode(errors="replace").strip('" ') for name in names]
    return [
        name
        for name in dict.fromkeys(plain)
        if (name.startswith("/") and name != "/dev/null") or ".." in name.split("/")
    ]


def _printable(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _no_change(content: bytes) -> KernelSpecError:
    if b"\x1b[" in content:
        return KernelSpecError(
            "it is coloured for a terminal", "make it with `git diff --no-color`"
        )
    if re.search(rb"^[ \t]+(?:diff --git |--- \S.*\n[ \t]+\+\+\+ )", content, re.M):
        return KernelSpecError("each of its lines is indented", _UNIFIED)
    if re.search(rb"^diff --(?:cc|combined) ", content, re.M):
        return KernelSpecError(
            "it is the combined diff of a merge, which cannot be applied",
            "make it against one parent: git show -m --first-parent",
        )
    if re.search(rb"^\*\*\* .*\n--- ", content, re.M):
        return KernelSpecError("it is a context diff", _UNIFIED)
    if re.search(rb"^(?:diff --git |--- \S.*\n(?:\+\+\+ |\Z))", content, re.M):
        return KernelSpecError("it is cut short: a file is named, but no change follows", _UNIFIED)
    if re.search(rb"^> ?(?:diff --git |\+\+\+ )", content, re.M):
        return KernelSpecError("it only quotes a patch (> ...)", "save the mail that is quoted")
    return KernelSpecError("it contains no unified diff, only other text", _UNIFIED)


def _in_order(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """A numbered series by its numbers, all else as it comes. Raises KernelSpecError."""
    numbers = [piece.number for piece in pieces]
    if len(pieces) == 1 or not all(numbers):
        return tuple(pieces)
    if twice := next((p for p in pieces if numbers.count(p.number) > 1), None):
        titles = "; ".join(p.title for p in pieces if p.number == twice.number)
        raise KernelSpecError(
            f"patch {twice.number} of the series is there more than once: {titles}",
            "keep one version of it",
        )
    return tuple(sorted(pieces, key=lambda piece: piece.number))


# --- applying -------------------------------------------------------------------------------------


def apply(patch: Patch, tree: Path, of: str) -> None:
    """Apply a patch to KVM's files in ``tree``, all of it: every line of a hunk must be as the
    patch has it, wherever it lies. ``of`` says for errors what the files are.

    Raises KernelSpecError with the hunk that does not fit, and then ``tree`` is as it was before.
    """
    before = {name: _kept(tree / name) for name in patch.touched}
    pieces, errors = patch.pieces, []
    orders = [pieces]
    if len(pieces) > 1 and not all(piece.number for piece in pieces):
        orders.append(pieces[::-1])  # `git log -p` has the newest first
    for order in orders:
        try:
            for piece in order:
                _apply_piece(patch, piece, tree, of)
            return
        except KernelSpecError as error:
            errors.append(error)
        _put_back(tree, before)
    for order in orders:
        there = all(not _git_apply(piece, tree, "-R").status for piece in reversed(order))
        _put_back(tree, before)
        if there:
            raise _already(patch.path.name, of)
    raise errors[0]


def _kept(path: Path) -> tuple[bytes, int] | None:
    return (path.read_bytes(), path.stat().st_mode) if path.is_file() else None


def _put_back(tree: Path, before: Mapping[str, tuple[bytes, int] | None]) -> None:
    for name, kept in before.items():
        path = tree / name
        if kept is None:
            path.unlink(missing_ok=True)
        elif _kept(path) != kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kept[0])
            path.chmod(kept[1])


def _git_apply(piece: Piece, tree: Path, *words: str) -> Said:
    return git(["apply", "--whitespace=nowarn", f"-p{piece.level}", *words], piece.diff, tree)


def _apply_piece(patch: Patch, piece: Piece, tree: Path, of: str) -> None:
    said = _git_apply(piece, tree)
    if not said.status:
        return
    name = f"{patch.path.name}{f' ({piece.title})' if piece.title else ''}"
    if not _git_apply(piece, tree, "--check", "-R").status:
        raise _already(name, of)
    reasons = "\n".join(_reasons(piece, said.errors, tree))
    if not _git_apply(piece, tree, "--check", "--ignore-whitespace").status:
        reasons += "\nonly white space differs: tabs, spaces or line ends were changed on its way"
    elif not _git_apply(piece, tree, "--check", "--unidiff-zero").status:
        reasons += f"\n{_UNANCHORED}"
    raise KernelSpecError(
        f"{name} does not apply to {of}:\n{reasons}",
        "make it against Debian's source of that kernel with the patches before it applied; every "
        "line of a hunk must match, as for `git apply`",
    )


def _already(name: str, of: str) -> KernelSpecError:
    return KernelSpecError(
        f"{name} is already applied to {of}: what it adds is there, what it removes is not",
        "leave it out, or make it again if it is reversed (diff -u OLD NEW)",
    )


def _reasons(piece: Piece, errors: Sequence[str], tree: Path) -> Iterator[str]:
    """git's words; each hunk that it names is quoted, a file that is not there has its likeness."""
    for error in errors:
        yield error
        if found := re.match(r"patch failed: (.*):(\d+)$", error):
            yield from _hunk(piece.diff.decode(errors="replace"), found[1], int(found[2]))
        elif found := re.match(r"(.*): No such file or directory$", error):
            there = [str(file.relative_to(tree)) for file in tree.rglob("*.[ch]")]
            if near := difflib.get_close_matches(found[1], there, n=1):
                yield f"  (there is {near[0]})"


def _hunk(diff: str, name: str, line: int) -> Iterator[str]:
    """The lines of the hunk of that file that begins at that line."""
    lines = diff.split("\n")
    about = False
    for number, text in enumerate(lines):
        if text.startswith(("--- ", "+++ ", "diff --git ")):
            about = (about and text.startswith("+++ ")) or name in text
        found = re.match(rf"@@ -{line}(?:,(\d+))? \+\d+(?:,(\d+))? @@", text)
        if about and found:
            old, new = int(found[1] or 1), int(found[2] or 1)
            yield text
            yield from _body(lines[number + 1 :], old, new)
            return


def _body(lines: Sequence[str], old: int, new: int) -> Iterator[str]:
    """A hunk's lines, of which ``old`` are of the old file and ``new`` of the new one."""
    for count, text in enumerate(lines):
        if (old <= 0 and new <= 0) or count == _QUOTED_LINES:
            if count == _QUOTED_LINES:
                yield "..."
            return
        yield text
        old -= text[:1] != "+"
        new -= text[:1] != "-"
