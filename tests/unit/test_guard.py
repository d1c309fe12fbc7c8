# SPDX-License-Identifier: MIT
"""Exit codes: 1 is for a kernel that broke the promise and for nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from l2gate.foundation import cache, settings
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, NotProven, UsageError
from l2gate.foundation.guard import guarded
from l2gate.foundation.scratch import Scratch
from l2gate.foundation.settings import checkout


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("L2GATE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("L2GATE_CACHE", str(tmp_path / "cache"))


def raises(error: BaseException) -> Callable[[], int]:
    def body() -> int:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("c", "h"), 4),
        (BenchError("c", "h"), 2),
        (NotProven("c", "h"), 3),
        (KeyboardInterrupt(), 130),
        (ValueError("not ours"), 2),
        (OSError(30, "Read-only file system", "/cache"), 2),
        (MemoryError(), 2),
        (RecursionError(), 2),
        (SystemExit(1), 2),
        (SystemExit("words"), 2),
        (SystemExit(4), 4),
        (BrokenPipeError(), 2),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), 2),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), 2),
    ],
)
def test_whatever_goes_wrong(error: BaseException, code: int) -> None:
    assert guarded(raises(error)) == code


def test_a_fault_tells_cause_and_hint_and_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    guarded(raises(ZeroDivisionError("division by zero")))
    text = capsys.readouterr().err
    assert "division by zero" in text and "hint: " in text and "Traceback" not in text
    (log,) = (tmp_path / "state/faults").glob("*.log")
    assert str(log) in text and "Traceback" in log.read_text()


def test_a_fault_is_told_where_nothing_can_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2GATE_STATE", "/proc/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/proc/nowhere")
    assert guarded(raises(ValueError("odd"))) == 2
    assert "could not be written" in capsys.readouterr().err


def l2gate(words: str, **how: str) -> subprocess.CompletedProcess[str]:
    """A shell's line in which $L2GATE stands for the program."""
    line = words.replace("$L2GATE", f"'{sys.executable}' -m l2gate")
    environment = os.environ | how
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)


def test_a_reader_that_goes_away_is_no_broken_promise() -> None:
    done = l2gate("$L2GATE kernels | head -c 10; exit ${PIPESTATUS[0]}")
    assert done.returncode in (0, 2)  # all may have been said before
    done = l2gate("$L2GATE kernels >/dev/full")
    assert done.returncode == 2 and "No space left" in done.stderr
    done = l2gate("$L2GATE kernels >&-")
    assert done.returncode == 2 and "standard output is closed" in done.stderr
    assert l2gate("$L2GATE kernels >&- 2>&-").returncode == 2
    assert l2gate("$L2GATE kernels <&- 2>&-").returncode == 0


@pytest.mark.parametrize(
    "words", ["--help", "run --help", "--version", "schema", "completion bash"]
)
def test_what_could_not_be_said_is_no_success(words: str) -> None:
    done = l2gate(f"$L2GATE {words} >/dev/full")
    assert done.returncode == 2 and "No space left" in done.stderr


def test_a_program_does_not_write_into_what_l2gate_has_opened(tmp_path: Path) -> None:
    """A file that is opened where standard output was closed would get its number."""
    lines = "import os, sys; from l2gate.foundation import guard\n"
    lines += f"def body(): return os.open({str(tmp_path / 'mine')!r}, os.O_CREAT)\n"
    lines += "sys.exit(guard.guarded(lambda: 10 * (body() > 2)))"
    done = subprocess.run(["bash", "-c", '"$0" -c "$1" <&- 2>&-', sys.executable, lines])
    assert done.returncode == 10


@pytest.mark.parametrize("known", ["L2GATE_CACHE", "L2GATE_STATE", ""])
def test_a_user_without_a_home_is_told(known: str, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """As in a container that is run by a number."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "L2GATE_CACHE", "L2GATE_STATE"):
        monkeypatch.delenv(name, raising=False)
    if known:
        monkeypatch.setenv(known, "/x")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    wants = {"L2GATE_CACHE": settings.state_dir, "L2GATE_STATE": settings.cache_dir}
    assert guarded(lambda: len(str(wants.get(known, settings.cache_dir)()))) == 4
    assert "set HOME" in capsys.readouterr().err
    assert guarded(raises(ValueError("odd"))) == 2  # told, though its log has no folder of l2gate's
    monkeypatch.setenv("HOME", "/h")
    assert settings.cache_dir() == Path("/x" if known == "L2GATE_CACHE" else "/h/.cache/l2gate")


def test_a_missing_package_is_no_broken_promise(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('gone', name='rich')")
    done = l2gate("$L2GATE kernels", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and "make venv" in done.stderr and "Traceback" not in done.stderr


def test_a_temporary_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nope")
    with pytest.raises(BenchError, match="TMPDIR /nope") as refused:
        Scratch("test")
    assert "TMPDIR" in refused.value.hint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_half_made(number: signal.Signals, tmp_path: Path) -> None:
    """An entry of the cache, and a program with a child of its own that is making it."""
    code = f"""
import subprocess, sys
from pathlib import Path
from l2gate.foundation.guard import guarded
from l2gate.foundation import cache
from l2gate.foundation.process import owned
def build(folder):
    (folder / "half").touch()
    with owned(["sh", "-c", "sleep 60 & echo $! >{tmp_path}/pid; wait"]) as program:
        program.wait()
sys.exit(guarded(lambda: bool(cache.make("kind", "key", build))))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        # A test run in the background has SIGINT ignored; a person's command has not.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(30) == 130
    assert not list((tmp_path / "cache/kind").iterdir())
    # It was told to end; nobody waits for it who could say when it has.
    Deadline("the child's child has ended", 30).poll(lambda: _has_ended(int(pid.read_text())))


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# --- a cache that cannot be written ---------------------------------------------------------------


def fill(folder: Path) -> None:
    (folder / "file").write_text("made")


def test_a_read_only_cache_is_read_and_what_it_lacks_is_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = cache.make("kind", "warm", fill)
    monkeypatch.setattr(cache, "_may_write", lambda folder: folder != tmp_path / "cache")
    assert cache.make("kind", "warm", fill) == warm
    made = cache.make("kind", "cold", fill)
    assert made == tmp_path / "state/cache/kind/cold" and cache.find("kind", "cold") == made


def test_where_nothing_can_be_written_both_places_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "_may_write", lambda _: False)
    with pytest.raises(BenchError, match="cannot write") as refused:
        cache.make("kind", "cold", fill)
    assert "L2GATE_CACHE" in refused.value.hint and "L2GATE_STATE" in refused.value.hint


def test_what_a_killed_process_left_half_made_goes(tmp_path: Path) -> None:
    cache.make("kind", "other", fill)
    left = tmp_path / "cache/kind/.key-abcdefgh"
    left.mkdir()
    assert [one.path for one in cache.prunable(cache.entries(), 30)] == [left]
    cache.make("kind", "key", fill)
    assert not left.exists()


def test_only_what_was_not_used_for_long_is_pruned(tmp_path: Path) -> None:
    old, new = (cache.make("kind", key, fill) for key in ("old", "new"))
    os.utime(old, (0, 0))
    assert [one.path for one in cache.prunable(cache.entries(), 30)] == [old]
    cache.find("kind", "old")  # a job uses it
    assert not cache.prunable(cache.entries(), 30)
    os.utime(old, (0, 0))
    for entry in cache.prunable(cache.entries(), 30):
        cache.remove(entry)
    assert not old.exists() and new.exists()


def test_l2gate_cache_tells_of_each_kind_that_is_made() -> None:
    sources = (checkout() / "lib/l2gate").rglob("*.py")
    made = {
        kind
        for file in sources
        for kind in re.findall(r'cache\.make\("([\w-]+)"', file.read_text())
    }
    assert made == set(cache.KINDS)
