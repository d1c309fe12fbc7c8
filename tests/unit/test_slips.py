# SPDX-License-Identifier: MIT
"""A slip of a person or of a script is refused, at once and with the right name; it never asks
another question than the one that was meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from l2gate import cli
from l2gate.foundation.guard import guarded
from l2gate.foundation.settings import OPTIONS, VARIABLES, checkout

USAGE = 4


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("L2GATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("L2GATE_STATE", str(tmp_path / "state"))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code of `l2gate WORDS`, and what it says on stderr."""
    code = guarded(lambda: cli.main(words))
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "cause", "hint"),
    [
        ("rnu", "'rnu'", "did you mean run?"),
        ("run --kernle x", "--kernle", "did you mean --kernel?"),
        ("run --ker x", "--ker", "did you mean --kernel?"),  # no prefix is taken for the whole
        ("run --expect refused", "refused", "did you mean refuse?"),
        ("run --path vcpu-event", "vcpu-event", "did you mean vcpu-events?"),
        ("run --host emulated-itel", "emulated-itel", "did you mean emulated-intel?"),
        ("doctor --case vector=3", "--case", "run"),
        ("compare --host emulated-amd", "--host", "run"),
        ("bench --runs 0", "0", "--help"),
        ("run --patience much", "much", "1 or 2.5"),
        ("run --wait -1 --host local", "-1", "1 or 2.5"),
        ("run --kernel=", "kernel is empty", "variable"),
        ("run --expect-kernel=", "expect_kernel is empty", "variable"),
        ("run --case=", "case is empty", "variable"),
        ("run --host emulated-amd --qemu /bin/true", "qemu", "local and ssh"),
        ("run --host emulated-amd --bochs /bin/true", "bochs", "emulated-intel"),
        ("run --host emulated-intel --modules nested", "modules", "local and ssh"),
        ("run --host local --ssh-config /dev/null", "ssh_config", "ssh"),
        ("doctor --host emulated-amd --ssh-config x", "ssh_config", "ssh"),
        ("run --host local --qemu /nope", "/nope", "QEMU"),
        ("run --host local --qemu \"a'b\"", "quotation", "quote"),
        ("run --host ssh://lab --ssh-config /nope", "/nope", "ssh -F"),
        ("run --host ssh://", "does not name a machine", "ssh://[user@]name"),
        ("run --host ssh://$HOST", "does not name a machine", "ssh://[user@]name"),
        ("run --host ssh://a;b", "does not name a machine", "ssh://[user@]name"),
        ("observe --host local", "local", "emulated"),
        ("matrix --jobs x", "'x'", "--help"),
        ("run --host local --kernel debian:6.12", "own kernel", "--expect-kernel"),
        ("run --case table=errno", "table=errno", "did you mean errnos?"),
        ("run --case table=errnos,line=999", "line=999", "use one of"),
        ("run --case vektor=3", "vektor", "did you mean vector?"),
        ("run --case vector=77", "vector=77", "use one of"),
        ("run --case active=L3", "active=L3", "L1, L2"),
        ("run refused_alway.py", "refused_alway.py", "did you mean tests/injection/refused_always"),
        ("run RefusedAlway", "RefusedAlway", "did you mean RefusedAlways?"),
        ("run RefusedAlways.test_while_l3_is_active", "l3", "test_while_l2_is_active"),
        ("run tests/unit/test_slips.py", "test_slips", "tests/injection"),
        ("run tests/injection/refused_always.py:Refused", "Refused", "RefusedAlways.test"),
        ("run /etc/passwd", "/etc/passwd", "tests/injection"),
        ("run --json /nope/x.json", "/nope/x.json", "folder"),
        ("up --name a/b", "a/b", "letters"),
        ("up --name=", "''", "letters"),
        ("up --name -x", "--name", "--help"),
        ("up --host local", "local", "emulated"),
        ("down", "no host is up", "l2gate up"),
        ("down nobody", "nobody", "l2gate up"),
        ("matrix --host ssh://lab debian:6.12", "ssh://lab", "l2gate run --host ssh://lab"),
        ("mutants --host local", "local", "emulated"),
        ("mutants wrong-erno", "wrong-erno", "did you mean wrong-errno?"),
        ("prepare --host emulated-amd", "lab hosts", "local"),
        ("cache --prune 0", "0", "--help"),
        ("--kernel debian:6.12 run", "--kernel comes after the verb", "l2gate run --kernel"),
        ("-q run", "-q comes after the verb", "l2gate run -q"),
        ("run --host EMULATED-AMD", "EMULATED-AMD", "did you mean emulated-amd?"),
        ("run --host emulated-amd --kernel 6.12+patched", "6.12", "mean debian:6.12+patched?"),
        ("run --host emulated-amd --kernel Debian:6.12", "Debian:6.12", "mean debian:6.12?"),
        ("run --host emulated-amd --kernel /tmp", "'/tmp'", "mean dir:/tmp?"),
        ("run --host ssh://lab:0", "does not name a machine", "ssh://[user@]name"),
        ("run --host ssh://@lab", "does not name a machine", "ssh://[user@]name"),
        ("run --host ssh://lab --ssh-config /tmp", "/tmp cannot be read", "ssh -F"),
        ("run --host ssh://lab --ssh-config ~nobody.here/x", "~nobody.here/x", "ssh -F"),
        ("run --case path=nmi,path=mce", "no case has path=nmi and path=mce", "once"),
        ("run --case vector=-1", "vector=-1", "use one of"),
        ("run --json=", "it is empty", "--help"),
        ("run --json /proc/x.json", "/proc/x.json", "folder"),
        ("run --json /tmp", "it is a folder", "folder"),
        ("matrix --folder= debian:6.12", "it is empty", "--help"),
        ("matrix --folder /proc/x debian:6.12", "/proc/x cannot be written", "folder"),
        ("matrix --folder /etc/passwd debian:6.12", "/etc/passwd cannot be written", "folder"),
        ("observe --host local --folder=", "it is empty", "--help"),
        ("down --all lab", "exclude each other", "leave one"),
        ("", "", ""),
    ],
)  # fmt: skip
def test_is_refused(words: str, cause: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [word.replace(",", " ").replace('"', "") if "case" in words else word.strip('"')
             for word in words.split()]  # fmt: skip
    code, text = said(capsys, *given)
    assert code == USAGE, text
    assert cause in text and hint in text.partition("hint: ")[2]
    assert "Traceback" not in text


@pytest.mark.parametrize("name", ["host", "kernel", "case", "expect"])
def test_a_variable_that_a_verb_would_ignore_is_refused(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"L2GATE_{name.upper()}", "auto")
    code, text = said(capsys, "matrix", "debian:6.12")
    assert code == USAGE and f"L2GATE_{name.upper()}" in text


@pytest.mark.parametrize("verb", ["cache", "images", "kernels", "down", "schema", "hosts"])
@pytest.mark.parametrize(("name", "value"), [("L2GATE_CASHE", "/x"), ("L2GATE_CACHE", "")])
def test_every_verb_tells_of_a_variable_that_says_nothing(
    verb: str,
    name: str,
    value: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)
    code, text = said(capsys, verb)
    assert code == USAGE and name in text and "L2GATE_CACHE" in text


@pytest.mark.parametrize("verb", [("run", "--host", "emulated-amd", "--kernel"), ("matrix",)])
def test_a_name_that_the_result_could_not_hold_is_refused(
    verb: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / os.fsdecode(b"fix-\xff.patch")
    file.write_text("")
    code, text = said(capsys, *verb, f"debian:6.12+{file}")
    assert code == USAGE and r"fix-\xff.patch is not in UTF-8" in text and "rename" in text


def test_an_empty_test_is_not_all_tests(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "run", "--host", "emulated-amd", "")
    assert code == USAGE and "a test is empty" in text


def test_a_series_may_be_named_as_its_kernel_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the hint that it had, `debian:9.9` is what was refused."""
    code, text = said(capsys, "images", "debian:9.9")
    assert code == USAGE and "for kernel 9.9" in text


def test_each_option_is_taken_by_a_verb_and_each_verb_takes_only_options() -> None:
    taken = {name for verb in cli.VERBS for name in verb.options}
    assert taken == {option.name for option in OPTIONS}


def make(*words: str, **environment: str) -> tuple[int, str]:
    """`make -n WORDS`: the exit code, and all it says."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "HOST"))}
    done = subprocess.run(
        ["make", "-n", *words],
        cwd=checkout(), env=clean | environment, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("run", "KERNELS=debian:6.12"), "did you mean KERNEL?"),
        (("matrix", "KERNEL=debian:6.12"), "did you mean KERNELS?"),
        (("run", "KERNLE=x"), "did you mean KERNEL?"),
        (("compare", "HOST=emulated-amd"), "does not take HOST"),
        (("lint", "KERNEL=x"), "does not take KERNEL"),
        (("run", "KERNEL="), "KERNEL is empty"),
        (("soak", "N= "), "N is empty"),
        (("lint", "PYTHON="), "PYTHON is empty"),
    ],
)
def test_make_refuses_what_a_goal_does_not_take(words: tuple[str, ...], cause: str) -> None:
    code, text = make(*words)
    assert code == 2 and cause in text


def test_a_login_shell_s_host_is_no_setting_of_make_s() -> None:
    code, text = make("run", HOST="my-laptop")
    assert code == 0 and "my-laptop" not in text and "--host" not in text


@pytest.mark.parametrize("name", ["KERNEL", "EXPECT", "HOST"])
def test_make_does_not_ignore_what_was_meant_for_it(name: str) -> None:
    code, text = make("run", **{name: "auto"})
    assert code == 2 and f"{name} in the environment is not read" in text


def test_parallel_jobs_do_not_pass_the_set_up(tmp_path: Path) -> None:
    """.venv is made by what `make apt` installs."""
    for name in ("Makefile", "requirements-lock.txt", "lib/pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((checkout() / name).read_bytes())
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    for name, lines in {
        "dpkg-query": f"sleep 0.05; echo apt >>{log}; echo ok installed",
        "python": f'[ "$2" != venv ] || {{ echo venv >>{log}; exit 1; }}',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{lines}\n")
        (programs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    words = ["make", "-j8", "setup", f"PYTHON={programs}/python"]
    subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True)
    told = log.read_text().split()
    assert told.count("venv") == 1 and told[-1] == "venv" and told.count("apt") > 10


def test_make_hands_values_on_as_they_are() -> None:
    code, text = make("run", "KERNEL=debian:6.12+it's here.patch", "HOST=emulated-amd")
    assert code == 0
    assert """--kernel 'debian:6.12+it'\\''s here.patch'""" in text and "'emulated-amd'" in text


def avocado(*words: str, **environment: str) -> tuple[int, str]:
    """The exit code of `avocado WORDS`, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "avocado", *words],
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_section_that_is_not_read_is_refused(tmp_path: Path) -> None:
    test = str(checkout() / "tests/injection/refused_always.py")
    file = tmp_path / "mine.cfg"
    for section in ("L2GATE", "l2gatee", "l2-gate"):
        file.write_text(f"[{section}]\nhost = emulated-amd\n")
        code, text = avocado("--config", str(file), "run", test, HOME=str(tmp_path))
        assert code == USAGE and f"no section [{section}]" in text and "[l2gate]?" in text


@pytest.mark.parametrize("words", [("--job-results-dir", "/proc/x"), ()])
def test_results_that_cannot_be_written_are_told_first(words: tuple[str, ...]) -> None:
    """Avocado's own traceback went to the same folder, and it ended with 1."""
    test = str(checkout() / "tests/injection/refused_always.py")
    code, text = avocado("run", *words, test, HOME="/proc/nowhere")
    assert code == 2 and "the results cannot be written" in text and "Traceback" not in text
