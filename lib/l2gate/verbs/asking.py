# SPDX-License-Identifier: MIT
"""`l2gate run` and `l2gate contract`: one kernel is asked."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress

from l2gate.bench import oracle
from l2gate.bench.bench import preflight
from l2gate.foundation.errors import BenchError, MissingPrerequisite
from l2gate.foundation.events import FileSink, Timeline
from l2gate.foundation.files import check_file
from l2gate.foundation.scratch import Scratch
from l2gate.hosts import kinds
from l2gate.jobs.job import Job
from l2gate.report.terminal import show
from l2gate.verbs.screen import beside, progress, screen
from l2gate.verbs.verb import wanted


def run(arguments: argparse.Namespace) -> int:
    """Ask, show, write. Returns the exit code that the verdict means."""
    settings, console = wanted(arguments), screen()
    tests = _references(arguments.tests)
    if arguments.json:
        check_file(arguments.json, "--json")
    preflight(settings)
    with Scratch("run") as folder, progress(arguments, console) as shown:
        timeline = folder / "timeline.jsonl"
        # Built here and not in the job: a patch that does not compile is bad usage.
        with_console = Timeline(shown, FileSink(timeline))
        with suppress(MissingPrerequisite):  # the job says so itself, and skips its tests
            kinds.find(settings.host).prepare_kernel(settings, with_console)
        job = Job(settings, tests, folder, timeline)
        result, code = job.run(shown)
    try:
        if arguments.json:  # first: what reads the screen may be gone
            result.write(arguments.json)
    except OSError as error:
        raise BenchError(
            f"--json {arguments.json} could not be written: {error.strerror}",
            "free space there; the verdict above stands",
        ) from None
    finally:
        show(console, result, quiet=arguments.quiet)
    return code


def _references(tests: list[str]) -> list[str]:
    if not tests:
        return []
    from l2gate.plugins.known import references

    return references(tests)


def contract(arguments: argparse.Namespace) -> int:
    """Tell what a kernel has promised."""
    settings = wanted(arguments)
    answer = oracle.ask(settings, beside(arguments), boot=arguments.boot)
    if arguments.json:
        print(json.dumps(answer.to_json(), indent=1))
    else:
        oracle.show(screen(), answer)
    return 0
