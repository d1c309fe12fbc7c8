# SPDX-License-Identifier: MIT
"""Patches as they travel: mails, mailboxes and commits, taken apart into plain diffs by git."""

from __future__ import annotations

import email
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from l2gate.foundation.errors import KernelSpecError
from l2gate.kernels.git import git

_HEADER = re.compile(rb"[!-9;-~]+:")
#: One of these makes a block of headers a mail; a patch's own text may have lines like `Proves:`.
_OF_A_MAIL = (
    b"from:",
    b"subject:",
    b"received:",
    b"return-path:",
    b"message-id:",
    b"mime-version:",
    b"content-type:",
    b"content-transfer-encoding:",
)
_COMMIT = re.compile(
    rb"^commit [0-9a-f]{7,64}\b[^\n]*\n(?=(?:Author|AuthorDate|Merge|tree):? )", re.M
)
_NUMBER = re.compile(r"\s*\[[^\]]*?\b(\d+)/\d+[^\]]*\]")
#: Where a mail's message ends, and all up to its diff: the diffstat and notes.
_SEPARATOR = re.compile(rb"^---[ \t]*\n(?:(?!diff |@@ )[^\n]*\n)*?(?=diff --git )", re.M)
_DIFFSTAT = re.compile(rb"^ \d+ files? changed", re.M)


@dataclass(frozen=True)
class Letter:
    """One change: its title, empty if it has none, its text up to the end of the diff, and its
    place in a series (1 is the first; 0: it has none, as a cover letter and an answer)."""

    title: str
    text: bytes
    number: int = 0


def letters(data: bytes) -> tuple[Letter, ...]:
    """The changes in a file, as it has them one after another.

    Raises KernelSpecError for a mail that cannot be decoded.
    """
    data = _plain(data)
    if _is_mail(data):
        return _mails(data)
    starts = [match.start() for match in _COMMIT.finditer(data)]
    if not starts:
        return (Letter("", _unix(data)),)
    ends = [*starts[1:], len(data)]
    commits = [data[start:end] for start, end in zip(starts, ends, strict=True)]
    before = [Letter("", _unix(data[: starts[0]]))] if data[: starts[0]].strip() else []
    return (*before, *(Letter(_title(commit), _unix(commit)) for commit in commits))


def _plain(data: bytes) -> bytes:
    """In an encoding that has ASCII in it (PowerShell's > writes UTF-16), from its first word."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", errors="replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")


def _is_mail(data: bytes) -> bool:
    if re.match(rb"From \S+ .*\d\d:\d\d", data):
        return True
    head = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[0].splitlines()
    if not all(_HEADER.match(line) or line[:1] in b" \t" for line in head):
        return False
    return any(line.lower().startswith(_OF_A_MAIL) for line in head)


def _mails(data: bytes) -> tuple[Letter, ...]:
    with tempfile.TemporaryDirectory(prefix="l2gate-mails-") as name:
        folder = Path(name)
        box = folder / "box"
        box.write_bytes(data)
        # Without --keep-cr: a mail's line may end as the network wants it.
        said = git(["mailsplit", "-b", "-d8", f"-o{folder}", box])
        if said.status:
            raise _unreadable(said.errors)
        return tuple(_mail(folder / f"{n:08}") for n in range(1, int(said.output) + 1))


def _mail(mail: Path) -> Letter:
    message, patch = mail.with_suffix(".message"), mail.with_suffix(".patch")
    said = git(["mailinfo", "-k", "-n", message, patch], _said_once(mail.read_bytes()))
    if said.status:
        raise _unreadable(said.errors)
    found = re.search(r"^Subject: (.*)$", said.output.decode(errors="replace"), re.M)
    title = found[1] if found else ""
    number = _NUMBER.match(title)
    # A mail without a diff is all message.
    text = _without_message(_unix(patch.read_bytes()))
    return Letter(title, text, int(number[1]) if number else 0)


def _said_once(mail: bytes) -> bytes:
    """Without what a mail program says a second time, in HTML: git would take both for the patch.

    Raises KernelSpecError if there is nothing else in it.
    """
    read = email.message_from_bytes(mail)
    html = [part for part in read.walk() if part.get_content_type() == "text/html"]
    if not html:
        return mail
    if not any(part.get_content_type() == "text/plain" for part in read.walk()):
        raise KernelSpecError(
            "it is a mail in HTML alone, which does not keep a patch as it was",
            "save the patch that is attached or linked, or have it sent as plain text",
        )
    for part in list(read.walk()):
        if part.is_multipart():
            part.set_payload([one for one in part.get_payload() if one not in html])
    return read.as_bytes()


def _unreadable(errors: tuple[str, ...]) -> KernelSpecError:
    return KernelSpecError(
        f"it looks like a mail but cannot be read as one: {' / '.join(errors)}",
        "save the mail as it came, or make the patch by `git format-patch`",
    )


def _without_message(text: bytes) -> bytes:
    """From the diff that follows the mail's `---`: a message may quote another diff before it."""
    found = _SEPARATOR.search(text)
    if found is None:
        return text
    before = re.search(rb"^(?:diff --git |@@ -)", text[: found.start()], re.M)
    # In a diff, a removed line `--` looks like the separator, but no diffstat follows.
    return text if before and not _DIFFSTAT.search(found[0]) else text[found.end() :]


def _unix(text: bytes) -> bytes:
    """Without the carriage returns that a transport or an editor gave each line: those that are
    part of the change are not on the lines that name the files. A last line that was copied without
    its end gets it."""
    text = text if text.endswith(b"\n") else text + b"\n"
    heads = re.findall(rb"^(?:diff --git |--- |\+\+\+ )[^\n]*$", text, re.M)
    if heads and all(head.endswith(b"\r") for head in heads):
        return text.replace(b"\r\n", b"\n")
    return text


def _title(commit: bytes) -> str:
    """The first line of a commit's message, which `git log` indents by four."""
    found = re.search(rb"^    (\S.*)$", commit, re.M)
    return found[1].decode(errors="replace").strip() if found else ""
