# SPDX-License-Identifier: MIT
"""Patches as people have them: made by git and diff, sent by mail, and applied or refused."""

from __future__ import annotations

import base64
import gzip
import os
import quopri
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path

import pytest
from l2gate.foundation.errors import KernelSpecError, MissingPrerequisite
from l2gate.kernels.patch import Patch, apply

X86, NESTED, MAIN = "arch/x86/kvm/x86.c", "arch/x86/kvm/vmx/nested.c", "virt/kvm/kvm_main.c"
FOREIGN, TELLING = "mm/mmap.c", "Documentation/virt/kvm/api.rst"

Tree = Mapping[str, bytes]


def lines(name: str, count: int = 30) -> str:
    return "".join(f"line {number} of {name}\n" for number in range(1, count + 1))


class Repo:
    """A kernel's tree under git, small."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *words: str) -> bytes:
        who = {"NAME": "Jörg", "EMAIL": "j@example.org", "DATE": "2024-01-01T00:00:00Z"}
        own = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()}
        own |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *words], cwd=self.path, env=os.environ | own, capture_output=True, check=True
        )
        return done.stdout

    def write(self, name: str, content: bytes | str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def edit(self, name: str = X86, old: str = "line 10 ", new: str = "LINE TEN ") -> None:
        file = self.path / name
        assert old.encode() in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(old.encode(), new.encode()))

    def commit(self, message: str = "KVM: change it") -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def diff(self, *words: str) -> bytes:
        self.git("add", "-A")
        return self.git("diff", "--cached", *words)

    def export(self, target: Path) -> Path:
        shutil.copytree(self.path, target, ignore=shutil.ignore_patterns(".git"))
        return target


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = Repo(tmp_path_factory.mktemp("template"))
    for name in (X86, NESTED, MAIN, FOREIGN, TELLING):
        repo.write(name, lines(name))
    repo.git("init", "-q")
    repo.git("config", "core.fsync", "none")
    repo.commit("the kernel")
    repo.git("tag", "base")
    return repo.path


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Repo:
    return Repo(shutil.copytree(template, tmp_path / "repo"))


def content(tree: Path) -> Tree:
    files = (file for file in tree.rglob("*") if file.is_file() and ".git" not in file.parts)
    return {str(file.relative_to(tree)): file.read_bytes() for file in files}


def patch(folder: Path, data: bytes, name: str = "mine.patch") -> Patch:
    file = folder / name
    file.write_bytes(data)
    return Patch(file)


# --- what is applied ------------------------------------------------------------------------------


def edits(repo: Repo) -> None:
    """A change of two files that all the plain forms below tell of."""
    repo.edit(X86)
    repo.edit(MAIN, "line 20 of", "line twenty of")


def two_trees(repo: Repo, old: str, new: str, options: str = "-ru") -> bytes:
    """`diff` of the tree before and after, beside each other in folders of those names."""
    base = repo.path.parent / "trees"
    (base / old).parent.mkdir(parents=True)
    repo.export(base / new)
    repo.git("stash", "-q", "-u")
    repo.export(base / old)
    repo.git("stash", "pop", "-q")
    return subprocess.run(["diff", options, old, new], cwd=base, capture_output=True).stdout


def beside(repo: Repo, old: str, new: str) -> bytes:
    """`diff -u` of one file and a copy of it beside it."""
    changed = (repo.path / X86).read_bytes()
    repo.write(new, changed)
    repo.write(old, repo.git("show", f"HEAD:{X86}"))
    done = subprocess.run(["diff", "-u", old, new], cwd=repo.path, capture_output=True)
    for name in {old, new} - {X86}:
        (repo.path / name).unlink()
    repo.write(X86, changed)
    return done.stdout


def prefixes(old: str, new: str) -> tuple[str, str]:
    return f"--src-prefix={old}", f"--dst-prefix={new}"


def one_file(repo: Repo) -> None:
    repo.edit(X86)


def mail(repo: Repo, *words: str, message: str = "KVM: change it") -> bytes:
    repo.commit(message)
    return repo.git("format-patch", "--stdout", "-1", *words)


def shown(repo: Repo, *words: str) -> bytes:
    repo.commit()
    return repo.git("show", *words)


def sent(repo: Repo, encoding: str, line: str = "\n") -> bytes:
    """A mail whose body is encoded for its way."""
    head, _, body = mail(repo).partition(b"\n\n")
    body = body.replace(b"\n", line.encode())
    packed = quopri.encodestring(body) if encoding == "quoted-printable" else b""
    packed = packed or base64.encodebytes(body)
    how = "\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
    how += f"Content-Transfer-Encoding: {encoding}\n\n"
    # Saved from a mail program: no mbox line, the network's line ends.
    head = head.partition(b"\n")[2]
    return (head + how.encode() + packed).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def attached(repo: Repo) -> bytes:
    letter = EmailMessage()
    letter["From"], letter["Subject"] = "j@example.org", "please try this"
    letter.set_content("Hi,\nhere it is.\n")
    letter.add_attachment(mail(repo).decode(), subtype="x-patch", filename="0001-it.patch")
    return bytes(letter)


def beside_html(repo: Repo) -> bytes:
    """As many a mail program sends it: the same text once more, in HTML."""
    letter = EmailMessage()
    letter["From"], letter["Subject"] = "j@example.org", "KVM: change it"
    letter.set_content(repo.diff().decode())
    letter.add_alternative(f"<pre>\n{repo.diff().decode()}</pre>\n", subtype="html")
    return bytes(letter)


def three_commits(repo: Repo) -> None:
    """Three that only apply one after another."""
    for number, word in enumerate(("first", "second", "third"), 10):
        repo.edit(X86, f"line {number} of", f"{word} of")
        repo.commit(f"KVM: the {word}")


def one_more(repo: Repo) -> None:
    """The newest of them can be applied first, the others cannot."""
    three_commits(repo)
    repo.edit(MAIN)
    repo.commit("KVM: another file")


def series(repo: Repo, *words: str) -> list[bytes]:
    box = repo.git("format-patch", "--stdout", "-3", *words)
    parts = box.split(b"\nFrom ")
    return [parts[0] + b"\n", *(b"From " + part + b"\n" for part in parts[1:])]


def shuffled(repo: Repo) -> bytes:
    first, second, third = series(repo)
    return third + first + second


def with_answers(repo: Repo) -> bytes:
    """A thread: cover letter, patches, and an answer that quotes one."""
    cover, first, second, third = series(repo, "--cover-letter")
    quoted = b"".join(b"> " + line + b"\n" for line in first.partition(b"\n\n")[2].splitlines())
    answer = b"From x@y Mon Sep 17 00:00:00 2001\nFrom: x@y\nSubject: Re: [PATCH 1/3] first\n\n"
    return cover + answer + quoted + b"Good.\n\n" + second + first + third


def message_quotes_a_diff(repo: Repo) -> bytes:
    quoted = f"--- a/{FOREIGN}\n+++ b/{FOREIGN}\n@@ -1,3 +1,3 @@\n line\n-old\n+new\n line\n"
    repo.edit(X86)
    return mail(repo, message=f"KVM: change it\n\nNot as this one does:\n{quoted}\n+++ b/x.c\nSo.")


def renamed(repo: Repo) -> None:
    repo.git("mv", NESTED, "arch/x86/kvm/vmx/inner.c")


def renamed_and_changed(repo: Repo) -> None:
    renamed(repo)
    repo.edit("arch/x86/kvm/vmx/inner.c")


def copied(repo: Repo) -> None:
    repo.write("arch/x86/kvm/copy.c", (repo.path / X86).read_bytes() + b"more\n")


def new_and_gone(repo: Repo) -> None:
    repo.write("arch/x86/kvm/new.c", "int new;\n")
    (repo.path / NESTED).unlink()


def made_executable(repo: Repo) -> None:
    (repo.path / X86).chmod(0o755)


def binary(repo: Repo) -> None:
    repo.write("arch/x86/kvm/blob", bytes(range(256)) * 4)


def oddly_named(repo: Repo) -> None:
    repo.write('arch/x86/kvm/fünf \t"6".c', "int five;\n")


def latin_1(repo: Repo) -> None:
    repo.edit(X86)
    text = (repo.path / X86).read_bytes()
    repo.write(X86, text.replace(b"line 11 ", "gr\xfcn ".encode("latin-1")))


def no_newline(repo: Repo) -> None:
    repo.write(X86, (repo.path / X86).read_bytes().rstrip(b"\n"))


def carriage_return(repo: Repo) -> None:
    """One that is part of the change."""
    repo.edit(X86, "line 10 of", "LINE TEN\rof")
    repo.edit(X86, "line 11 of arch/x86/kvm/x86.c\n", "line 11\r\n")


def dashes(repo: Repo) -> None:
    """Removed lines that look like a mail's separator, or name a file."""
    text = lines(X86, 10) + "--\n-- a/mm/mmap.c\n" + lines(X86, 10)
    repo.write(X86, text)
    repo.commit("with dashes")
    repo.git("tag", "-f", "base")
    repo.write(X86, text.replace("--\n-- a/mm/mmap.c\n", "++ b/mm/mmap.c\n"))
    repo.edit(MAIN)


Change = Callable[[Repo], None]
Form = Callable[[Repo], bytes]

FORMS: dict[str, tuple[Change, Form]] = {
    "git diff": (edits, Repo.diff),
    "without prefix": (edits, lambda r: r.diff("--no-prefix")),
    "two folders before": (edits, lambda r: r.diff(*prefixes("a/linux/", "b/linux/"))),
    "git's mnemonic prefixes": (edits, lambda r: r.diff(*prefixes("i/", "w/"))),
    "without context": (edits, lambda r: r.diff("-U1")),
    "a whole function": (edits, lambda r: r.diff("-U99")),
    "git's full names": (edits, lambda r: r.diff("--full-index", "--patch-with-stat", "--summary")),
    "diff of two trees": (edits, lambda r: two_trees(r, "linux.orig", "linux")),
    "trees named as a folder in it": (edits, lambda r: two_trees(r, "kernel.old", "kernel")),
    "trees deep down": (edits, lambda r: two_trees(r, "x/old", "x/new")),
    "diff with new and old files": (new_and_gone, lambda r: two_trees(r, "a", "b", "-ruN")),
    "a copy .orig": (one_file, lambda r: beside(r, f"{X86}.orig", X86)),
    "a copy ~": (one_file, lambda r: beside(r, f"{X86}~", X86)),
    "a copy .new": (one_file, lambda r: beside(r, X86, f"{X86}.new")),
    "with words before": (edits, lambda r: b"Proves: nothing\nSigned-off-by: me\n\n" + r.diff()),
    "with +++ before": (edits, lambda r: b"+++ b/mm/mmap.c\nis not\n--- a/x\n\n" + r.diff()),
    "CRLF": (edits, lambda r: r.diff().replace(b"\n", b"\r\n")),
    "UTF-16": (edits, lambda r: r.diff().decode().encode("utf-16")),
    "a byte order mark": (edits, lambda r: b"\xef\xbb\xbf" + r.diff()),
    "format-patch": (edits, mail),
    "format-patch, CRLF": (edits, lambda r: mail(r).replace(b"\n", b"\r\n")),
    "format-patch, no prefix": (edits, lambda r: mail(r, "--no-prefix")),
    "format-patch, attached by git": (edits, lambda r: mail(r, "--attach")),
    "attached": (edits, attached),
    "beside the same in HTML": (edits, beside_html),
    "copied without its last line end": (edits, lambda r: r.diff().rstrip(b"\n")),
    "quoted-printable": (edits, lambda r: sent(r, "quoted-printable")),
    "base64": (edits, lambda r: sent(r, "base64")),
    "quoted-printable CRLF": (edits, lambda r: sent(r, "quoted-printable", "\r\n")),
    "base64 CRLF": (edits, lambda r: sent(r, "base64", "\r\n")),
    "a message with a diff": (lambda r: None, message_quotes_a_diff),
    "dashes, as a mail": (dashes, mail),
    "dashes": (dashes, Repo.diff),
    "git show": (edits, lambda r: shown(r)),
    "git show, raw": (edits, lambda r: shown(r, "--format=raw")),
    "git show, as a mail": (edits, lambda r: shown(r, "--format=email")),
    "git log -p": (three_commits, lambda r: r.git("log", "-p", "-3")),
    "git log -p, the newest by itself": (one_more, lambda r: r.git("log", "-p", "-4")),
    "git log -p --reverse": (three_commits, lambda r: r.git("log", "-p", "-3", "--reverse")),
    "git log, as mails": (three_commits, lambda r: r.git("log", "-p", "-3", "--format=email")),
    "a series": (three_commits, lambda r: b"".join(series(r))),
    "a series, CRLF": (three_commits, lambda r: b"".join(series(r)).replace(b"\n", b"\r\n")),
    "a series, not in order": (three_commits, shuffled),
    "a thread": (three_commits, with_answers),
    "a series without numbers": (three_commits, lambda r: b"".join(series(r, "-N"))),
    "renamed": (renamed, lambda r: r.diff("-M")),
    "renamed, no prefix": (renamed, lambda r: r.diff("-M", "--no-prefix")),
    "renamed, deep prefix": (renamed, lambda r: r.diff("-M", *prefixes("a/b/", "c/d/"))),
    "renamed and changed": (renamed_and_changed, lambda r: r.diff("-M")),
    "copied": (copied, lambda r: r.diff("-C", "--find-copies-harder")),
    "new and gone": (new_and_gone, Repo.diff),
    "new and gone, as a mail": (new_and_gone, mail),
    "executable": (made_executable, Repo.diff),
    "executable, no prefix": (made_executable, lambda r: r.diff("--no-prefix")),
    "binary": (binary, lambda r: r.diff("--binary")),
    "an odd name": (oddly_named, Repo.diff),
    "latin-1": (latin_1, Repo.diff),
    "latin-1, as a mail": (latin_1, mail),
    "no newline at the end": (no_newline, Repo.diff),
    "a carriage return": (carriage_return, Repo.diff),
    "a carriage return, base64": (carriage_return, lambda r: sent(r, "base64")),
}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_applied(form: str, repo: Repo, tmp_path: Path) -> None:
    change, make = FORMS[form]
    change(repo)
    mine = patch(tmp_path, make(repo))
    wanted = content(repo.path)
    repo.git("checkout", "-q", "-f", "base")
    repo.git("clean", "-fdq")
    tree = repo.export(tmp_path / "tree")
    before = content(tree)
    apply(mine, tree, "the kernel")
    assert content(tree) == wanted
    changed = {n for n in before.keys() | wanted.keys() if before.get(n) != wanted.get(n)}
    assert changed <= set(mine.touched)
    if change is made_executable:
        assert os.access(tree / X86, os.X_OK)


def test_lines_may_have_moved(repo: Repo, tmp_path: Path) -> None:
    repo.edit(X86)
    mine = patch(tmp_path, repo.diff())
    tree = repo.export(tmp_path / "tree")
    (tree / X86).write_text("// longer\n" * 20 + lines(X86))
    apply(mine, tree, "the kernel")
    assert "LINE TEN" in (tree / X86).read_text()


def test_a_rename_touches_both_names(repo: Repo, tmp_path: Path) -> None:
    renamed(repo)
    mine = patch(tmp_path, repo.diff("-M"))
    assert set(mine.touched) == {NESTED, "arch/x86/kvm/vmx/inner.c"}


def test_the_header_is_what_stands_before_the_diff(repo: Repo, tmp_path: Path) -> None:
    repo.edit(X86)
    for form in (repo.diff(), repo.diff().partition(b"\n")[2].partition(b"\n")[2]):
        assert patch(tmp_path, b"Proves: it\n\nMore.\n\n" + form).header == "Proves: it\n\nMore."


def test_neither_settings_nor_a_repository_around_matter(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.edit(X86, "line 10 of", "line 10 \t \nof")
    mine = patch(tmp_path, repo.diff())
    repo.git("checkout", "-q", "-f", "HEAD")
    (tmp_path / ".gitconfig").write_text(
        "[apply]\n\twhitespace = error\n[core]\n\tautocrlf = true\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(repo.path / ".git"))
    monkeypatch.chdir(repo.path)
    tree = repo.export(repo.path / "inside")
    apply(mine, tree, "the kernel")
    assert b"line 10 \t \nof" in (tree / X86).read_bytes()


def test_git_is_a_prerequisite(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = patch(tmp_path, b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-without git\n+no\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPrerequisite, match="git is not installed"):
        mine.check()


# --- what is no patch to KVM ----------------------------------------------------------------------

GOOD = f"--- a/{X86}\n+++ b/{X86}\n@@ -1,2 +1,2 @@\n line 1 of {X86}\n-line 2 of {X86}\n+two\n"


def about(old: str, new: str = "") -> bytes:
    names = f"--- a/{X86}\n+++ b/{X86}\n"
    return GOOD.replace(names, f"--- {old}\n+++ {new or old}\n").encode()


def moved(old: str, new: str) -> bytes:
    head = f"diff --git a/{old} b/{new}\nsimilarity index 100%\n"
    return f"{head}rename from {old}\nrename to {new}\n".encode()


def made(name: str, mode: str) -> bytes:
    head = f"diff --git a/{name} b/{name}\nnew file mode {mode}\n--- /dev/null\n+++ b/{name}\n"
    return f"{head}@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n".encode()


REFUSED = {
    "empty": (b"", "it is empty"),
    "blank": (b"\n \n", "it is empty"),
    "only a message": (b"KVM: I would change x86.c\n", "no unified diff, only other text"),
    "only a mail": (b"From: a@b\nSubject: [PATCH] it\n\nsee below\n", "no unified diff"),
    "a cover letter": (b"From: a@b\nSubject: [PATCH 0/2] it\n\n x | 2 +-\n", "no unified diff"),
    "+++ in a message alone": (f"KVM:\n\n+++ b/{X86}\nit\n".encode(), "no unified diff"),
    "an answer": (b"From: a@b\nSubject: Re: x\n\n> diff --git a/x b/x\n> x\n", "only quotes"),
    "cut in a hunk": (GOOD.encode()[:-30], r"cut short or damaged.*line \d"),
    "cut behind a hunk's head": (GOOD.encode()[: GOOD.index("@@\n") + 3], "cut short or damaged"),
    "cut behind the names": (GOOD.encode()[: GOOD.index("@@")], "a file is named, but no change"),
    "cut in the names": (GOOD.encode()[: GOOD.index("+++")], "a file is named, but no change"),
    "without its names": (GOOD[GOOD.index("@@") :].encode(), "patch fragment without header"),
    "wrapped": (GOOD.replace("of arch", "\nof arch").encode(), "cut short or damaged.*'of arch"),
    "a foreign file": (about(f"a/{FOREIGN}", f"b/{FOREIGN}"), "it touches mm/mmap.c;"),
    "a foreign file, no prefix": (about(FOREIGN), "it touches mm/mmap.c;"),
    "a foreign file, timestamps": (
        about(f"l.old/{FOREIGN}\t2024-01-01", f"l/{FOREIGN}\t2024-01-02"),
        "it touches mm/mmap.c;",
    ),
    "one of two foreign": (
        GOOD.encode() + about(f"a/{FOREIGN}", f"b/{FOREIGN}"),
        "it touches mm/mmap.c;",
    ),
    "KVM's documents": (about(f"a/{TELLING}", f"b/{TELLING}"), f"it touches {TELLING};"),
    "KVM's documents, no prefix": (about(TELLING), f"it touches {TELLING};"),
    "KVM's tools": (about("a/tools/arch/x86/kvm/x", "b/tools/arch/x86/kvm/x"), "touches tools/"),
    "a neighbour by name": (about("a/arch/x86/kvmx/x.c"), "touches arch/x86/kvmx/x.c"),
    "from the KVM folder": (about("a/x86.c", "b/x86.c"), "it touches x86.c;"),
    "moved out of KVM": (moved(X86, "mm/x.c"), "it touches mm/x.c;"),
    "moved into KVM": (moved("mm/x.c", X86), "it touches mm/x.c;"),
    "deleted outside": (b"--- a/mm/x.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n", "touches mm/x.c;"),
    "an absolute path": (about(f"/usr/src/{X86}"), f"outside the kernel's tree: /usr/src/{X86}"),
    "upwards": (about(f"../linux/{X86}"), f"outside the kernel's tree: \\.\\./linux/{X86}"),
    "upwards inside": (about("a/arch/x86/kvm/../../x.c"), "outside the kernel's tree"),
    "upwards by a rename": (moved(X86, f"{X86}/../y"), "outside the kernel's tree"),
    "a link": (
        made("arch/x86/kvm/l", "120000"),
        "creates a symbolic link or a submodule: .*arch/x86/kvm/l",
    ),
    "a merge": (b"diff --cc a.c\nindex 1,2..3\n--- a/a.c\n@@@ -1 -1 +1 @@@\n", "of a merge"),
    "a context diff": (b"*** a/x.c\t2024\n--- b/x.c\t2024\n*********\n", "it is a context diff"),
    "coloured": (f"\x1b[1mdiff --git a/{X86} b/{X86}\x1b[m\n".encode(), "it is coloured"),
    "a web page": (b"<!DOCTYPE html>\n<pre>diff --git a/x b/x\n", "it is a web page"),
    "a web page with the diff in it": (b"<html><pre>\n" + GOOD.encode(), "it is a web page"),
    "no text": (b"\x7fELF\0\0" + GOOD.encode(), "it is binary"),
    "UTF-16 without its mark": (GOOD.encode("utf-16-le"), "it is binary"),
    "a bundle": (b"# v2 git bundle\n", "it is a git bundle"),
    "indented": (textwrap.indent(GOOD, "    ").encode(), "indented"),
    "a mail in HTML alone": (
        b"From: a@b\nContent-Type: text/html\n\n<pre>\n" + GOOD.encode(),
        "HTML alone",
    ),
    "lines that are added anywhere": (
        f"--- a/{X86}\n+++ b/{X86}\n@@ -3,0 +4 @@ static void f(void)\n+int x;\n".encode(),
        "(-U0)",
    ),
    "packed": (gzip.compress(GOOD.encode()), "it is compressed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_patch_to_kvm_is_refused_with_the_reason(what: str, tmp_path: Path) -> None:
    data, reason = REFUSED[what]
    with pytest.raises(KernelSpecError, match=f"(?s)patch mine.patch: .*(?:{reason})") as refused:
        patch(tmp_path, data).check()
    assert refused.value.hint


def test_two_versions_of_a_series_are_refused(repo: Repo, tmp_path: Path) -> None:
    three_commits(repo)
    box = b"".join(series(repo)) + b"".join(series(repo, "-v2"))
    with pytest.raises(KernelSpecError, match=r"more than once: \[PATCH 1/3\].*\[PATCH v2 1/3\]"):
        patch(tmp_path, box).check()


def test_the_mail_that_touches_another_file_is_named(repo: Repo, tmp_path: Path) -> None:
    three_commits(repo)
    repo.edit(FOREIGN)
    repo.commit("mm: another thing")
    box = repo.git("format-patch", "--stdout", "-2")
    with pytest.raises(KernelSpecError) as refused:
        patch(tmp_path, box).check()
    assert "in '[PATCH 2/2] mm: another thing', it touches mm/mmap.c;" in refused.value.cause


def test_a_patch_of_a_series_is_never_passed_over(repo: Repo, tmp_path: Path) -> None:
    three_commits(repo)
    first, second, third = series(repo)
    second = second[: second.index(b"diff --git")]
    with pytest.raises(
        KernelSpecError, match=r"in '\[PATCH 2/3\] KVM: the second', it contains no"
    ):
        patch(tmp_path, first + second + third).check()


def test_a_damaged_patch_is_refused_or_taken_for_what_is_whole(repo: Repo, tmp_path: Path) -> None:
    """Cut anywhere, it never breaks what reads it; where it is taken, no hunk is half."""
    edits(repo)
    whole = mail(repo)
    repo.git("checkout", "-q", "HEAD~")
    for end in range(0, len(whole), 41):
        mine = patch(tmp_path, whole[:end])
        try:
            apply(mine, repo.path, "the kernel")
        except KernelSpecError as error:
            assert error.hint
            continue
        repo.git("checkout", "-q", "-f", "HEAD")
        assert whole[:end].count(b"\n+") - whole[:end].count(b"\n+++") in (1, 2)


# --- what does not apply --------------------------------------------------------------------------


def refusal(mine: Patch, tree: Path) -> str:
    """Why it is refused; the tree must be as it was before."""
    before = content(tree)
    with pytest.raises(KernelSpecError) as refused:
        apply(mine, tree, "the kernel")
    assert content(tree) == before
    assert refused.value.hint
    return refused.value.cause


@pytest.mark.parametrize("number", [7, 8, 9, 10, 11, 12, 13])
def test_one_other_line_in_a_hunk_is_refused_with_the_hunk(
    number: int, repo: Repo, tmp_path: Path
) -> None:
    """patch(1) would take the outer ones for good, with fuzz."""
    tree = repo.export(tmp_path / "tree")
    repo.edit(X86)
    repo.edit(MAIN)
    mine = patch(tmp_path, repo.diff())
    file = tree / X86
    file.write_text(file.read_text().replace(f"line {number} of", f"line {number} is of"))
    why = refusal(mine, tree)
    assert f"patch failed: {X86}:7\n@@ -7,7 +7,7 @@" in why
    assert f"\n-line 10 of {X86}\n+LINE TEN of {X86}\n" in why
    assert f"line 13 of {X86}" in why
    assert MAIN not in why


def test_the_hunk_that_does_not_fit_is_quoted_and_no_other(repo: Repo, tmp_path: Path) -> None:
    tree = repo.export(tmp_path / "tree")
    repo.edit(X86, "line 3 of", "three")
    repo.edit(X86, "line 25 of", "twenty-five")
    mine = patch(tmp_path, mail(repo))
    (tree / X86).write_text(lines(X86).replace("line 25 of", "line 25 is of"))
    why = refusal(mine, tree)
    assert "mine.patch ([PATCH] KVM: change it) does not apply to the kernel" in why
    assert "+twenty-five" in why
    assert "+three" not in why


def test_what_is_there_already_is_said_so(repo: Repo, tmp_path: Path) -> None:
    repo.edit(X86)
    mine = patch(tmp_path, repo.diff())
    backwards = patch(tmp_path, repo.diff("-R"), "backwards.diff")
    why = refusal(mine, repo.export(tmp_path / "tree"))
    assert "mine.patch is already applied to the kernel" in why
    repo.git("reset", "-q", "--hard")
    why = refusal(backwards, repo.export(tmp_path / "before"))
    assert "backwards.diff is already applied to the kernel" in why


def test_a_series_that_is_there_already_is_said_so(repo: Repo, tmp_path: Path) -> None:
    three_commits(repo)
    parts = series(repo)
    tree = repo.export(tmp_path / "tree")
    assert "mine.patch is already applied" in refusal(patch(tmp_path, b"".join(parts)), tree)
    repo.git("checkout", "-q", "HEAD~2")
    why = refusal(patch(tmp_path, b"".join(parts)), repo.export(tmp_path / "first"))
    assert "([PATCH 1/3] KVM: the first) is already applied" in why


def test_a_file_that_is_not_there_is_named_with_its_likeness(repo: Repo, tmp_path: Path) -> None:
    mine = patch(tmp_path, GOOD.replace("x86.c", "x86_.c").encode())
    why = refusal(mine, repo.export(tmp_path / "tree"))
    assert "arch/x86/kvm/x86_.c: No such file or directory" in why
    assert f"there is {X86}" in why


def test_a_hunk_without_context_is_refused(repo: Repo, tmp_path: Path) -> None:
    tree = repo.export(tmp_path / "tree")
    repo.edit(X86)
    assert "(-U0)" in refusal(patch(tmp_path, repo.diff("-U0")), tree)


def test_white_space_that_was_changed_on_the_way_is_said_so(repo: Repo, tmp_path: Path) -> None:
    repo.write(X86, lines(X86).replace("line ", "\tline "))
    repo.commit()
    tree = repo.export(tmp_path / "tree")
    repo.edit(X86)
    mine = patch(tmp_path, repo.diff().replace(b"\t", b"        "))
    assert "only white space differs" in refusal(mine, tree)


def test_a_new_file_that_is_there_is_refused(repo: Repo, tmp_path: Path) -> None:
    repo.write("arch/x86/kvm/new.c", "int new;\n")
    mine = patch(tmp_path, repo.diff())
    tree = repo.export(tmp_path / "tree")
    (tree / "arch/x86/kvm/new.c").write_text("int old;\n")
    assert "new.c: already exists" in refusal(mine, tree)


def test_a_binary_change_without_its_bytes_is_refused(repo: Repo, tmp_path: Path) -> None:
    tree = repo.export(tmp_path / "tree")
    binary(repo)
    why = refusal(patch(tmp_path, repo.diff()), tree)
    assert "cannot apply binary patch to 'arch/x86/kvm/blob'" in why


def test_a_series_is_applied_whole_or_not_at_all(repo: Repo, tmp_path: Path) -> None:
    tree = repo.export(tmp_path / "tree")
    three_commits(repo)
    first, _, third = series(repo)
    why = refusal(patch(tmp_path, first + third), tree)
    assert "[PATCH 3/3] KVM: the third) does not apply" in why
