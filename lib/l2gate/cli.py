"""l2gate run | images | kernels: what a person or a script calls."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from l2gate import settings as options
from l2gate.bench import preflight
from l2gate.errors import BenchError, L2gateError, UsageError
from l2gate.events import TIMELINE_VARIABLE, Event, FileSink, Timeline, read_timeline
from l2gate.images.build import build_all
from l2gate.kernels import kernel
from l2gate.process import die_with_parent
from l2gate.report.result import Result, assemble, exit_code, fact
from l2gate.report.terminal import Progress, show
from l2gate.scratch import Scratch

_TESTS = "tests/injection"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; the README lists what each means."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        return int(arguments.verb(arguments, console))
    except L2gateError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("l2gate: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(UsageError.exit_code, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="l2gate", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    run = verbs.add_parser("run", help="ask the question of one kernel on one host")
    for option in options.OPTIONS:
        if option.name == "keep":
            run.add_argument("--keep", action="store_const", const="yes", help=option.help)
        else:
            run.add_argument(f"--{option.name}", help=f"{option.help} [{option.default}]")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the whole result there")
    run.add_argument("--verbose", action="store_true", help="show every step")
    run.add_argument("tests", nargs="*", help=f"system tests to run [all in {_TESTS}]")
    run.set_defaults(verb=_run)
    images = verbs.add_parser("images", help="fetch and build everything that jobs need")
    images.set_defaults(verb=_images)
    kernels = verbs.add_parser("kernels", help="list the kernels that have a name, or build some")
    kernels.add_argument("--build", nargs="+", metavar="SPEC", help="build these now")
    kernels.set_defaults(verb=_kernels)
    return parser


def _complain(error: L2gateError) -> None:
    print(f"l2gate: {error.cause}", file=sys.stderr)
    if error.mend:
        print(f"  mend: {error.mend}", file=sys.stderr)


# --- l2gate images, l2gate kernels ----------------------------------------------------------------


def _images(arguments: argparse.Namespace, console: Console) -> int:
    build_all(Timeline(Progress(console, verbose=True)))
    console.print("images and kernels are ready")
    return 0


def _kernels(arguments: argparse.Namespace, console: Console) -> int:
    timeline = Timeline(Progress(console, verbose=True))
    for spec in arguments.build or ():
        built = kernel.prepare(spec, timeline)
        console.print(f"{spec}: {built.release}, {built.description}", markup=False)
    if not arguments.build:
        for spec, proves in kernel.known():
            console.print(f"{spec:28} {proves}", markup=False, soft_wrap=True)
    return 0


# --- l2gate run -----------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace, console: Console) -> int:
    asked = {option.name: getattr(arguments, option.name) for option in options.OPTIONS}
    wanted = options.resolve(asked, options.from_environment())
    if arguments.json:
        _check_writable(arguments.json)
    preflight(wanted)
    with Scratch("run") as folder:
        timeline = folder / "timeline.jsonl"
        # Built here and not in the job: a patch that does not compile is bad usage.
        with_console = Timeline(Progress(console, arguments.verbose), FileSink(timeline))
        kernel.prepare(wanted.kernel, with_console)
        job = _Job(wanted, arguments.tests, folder, timeline)
        result, code = job.run(Progress(console, arguments.verbose))
    show(console, result)
    if arguments.json:
        result.write(arguments.json)
    return code


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--json {path} cannot be written", "name a file in a folder of yours")


class _Job:
    """One Avocado job in a process of its own, followed by its timeline."""

    def __init__(
        self, wanted: options.Settings, tests: list[str], folder: Path, timeline: Path
    ) -> None:
        self._wanted, self._folder, self._timeline = wanted, folder, timeline
        self._tests = tests or [str(options.checkout() / _TESTS)]
        self._seen = len(read_timeline(timeline))
        self._output = folder / "avocado.log"

    def run(self, progress: Progress) -> tuple[Result, int]:
        start = time.monotonic()
        environment = os.environ | options.to_environment(self._wanted)
        environment[TIMELINE_VARIABLE] = str(self._timeline)
        command = [sys.executable, "-m", "avocado", "run", *self._tests]
        # In a session of its own: Ctrl-C reaches it once, from here, not twice.
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self._follow(process, progress)
        return self._result(time.monotonic() - start)

    def _follow(self, process: subprocess.Popen[bytes], progress: Progress) -> None:
        def pass_on(number: int, _: Any) -> None:
            self._broke_off(f"interrupted by {signal.Signals(number).name}")
            process.send_signal(signal.SIGTERM)

        before = {s: signal.signal(s, pass_on) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            while process.poll() is None:
                self._show_new(progress)
                time.sleep(0.1)  # only the screen waits for this
            self._show_new(progress)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _show_new(self, progress: Progress) -> None:
        events = read_timeline(self._timeline)
        for event in events[self._seen :]:
            progress(event)
        self._seen = len(events)

    def _result(self, seconds: float) -> tuple[Result, int]:
        found = fact(read_timeline(self._timeline), "job").get("folder")
        logs = Path(found) if found else None
        avocado = _results(logs)
        if avocado is None:
            last = self._output.read_text(errors="replace").strip().splitlines()[-5:]
            self._broke_off("\n".join(["the Avocado job broke off:", *last]))
        if logs:
            (logs / "l2gate-timeline.jsonl").write_text(self._timeline.read_text())
        events = read_timeline(self._timeline)
        result = assemble(events, avocado, self._wanted.to_dict(), seconds, str(logs or "(none)"))
        return result, exit_code(result, events)

    def _broke_off(self, cause: str) -> None:
        """The first such event is the one that the result names."""
        data = {"cause": cause, "mend": "", "exit_code": BenchError.exit_code}
        FileSink(self._timeline)(Event("controller", "error", cause, data=data))


def _results(logs: Path | None) -> dict[str, Any] | None:
    try:
        loaded = json.loads((logs / "results.json").read_text()) if logs else None
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


if __name__ == "__main__":
    sys.exit(main())
