# SPDX-License-Identifier: MIT
# PYTHON_ARGCOMPLETE_OK
"""l2gate tests whether KVM keeps userspace from injecting exceptions into a nested guest."""

from __future__ import annotations

import argparse
import importlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from l2gate.foundation import settings as options
from l2gate.foundation.cache import UNUSED_DAYS
from l2gate.foundation.errors import UsageError
from l2gate.verbs.verb import Verb

_HOST = ("host", "kernel", "expect_kernel")
_QUESTION = ("expect", "path", "case", "l2", "proof")
_LAB = ("qemu", "modules", "wait", "ssh_config")
_EMULATED = ("bochs", "fresh", "warm", "warm_minutes", "side_by_side")
_JOB = (*_HOST, *_QUESTION, *_LAB, *_EMULATED, "patience")
#: What a verb that has its own list of kernels and verdicts does not take from the environment.
_OWN_LIST = ("host", "kernel", "expect_kernel", *_QUESTION)


def _json_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=_path, metavar="FILE", help="write the whole result to FILE")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def _tests(parser: argparse.ArgumentParser) -> None:
    _json_file(parser)
    told = parser.add_argument(
        "tests",
        nargs="*",
        metavar="TEST",
        help="system tests to run: a file of tests/injection, FILE:Class, FILE:Class.test_name, or "
        "the class or Class.test_name alone [all]",
    )
    told.completer = _complete("tests")  # type: ignore[attr-defined]


def _boot(parser: argparse.ArgumentParser) -> None:
    _json(parser)
    parser.add_argument("--boot", action="store_true", help="boot L0 and ask it, even if the "
                        "source tells")  # fmt: skip


def _runs(default: int) -> Callable[[argparse.ArgumentParser], object]:
    return lambda parser: parser.add_argument(
        "--runs", type=_count, default=default, metavar="N", help=f"on each host [{default}]"
    )


def _soak(parser: argparse.ArgumentParser) -> None:
    _runs(50)(parser)
    told = parser.add_argument("--kernels", nargs="+", metavar="SPEC",
                               help="these in turn, instead of one kernel")  # fmt: skip
    told.completer = _complete("kernels")  # type: ignore[attr-defined]


def _many(parser: argparse.ArgumentParser) -> None:
    told = parser.add_argument(
        "--host", action="append", metavar="HOST",
        help="{booting}; may come more than once [all that can]",
    )  # fmt: skip
    told.completer = _complete("booting")  # type: ignore[attr-defined]
    parser.add_argument("--jobs", type=_count, default=0, metavar="N",
                        help="how many at a time [as many as there are cores]")  # fmt: skip
    parser.add_argument("--folder", type=_path, default=options.checkout() / "build",
                        help="where table and page are written [build]")  # fmt: skip


def _matrix(parser: argparse.ArgumentParser) -> None:
    told = parser.add_argument("kernels", nargs="*", metavar="SPEC", help="[all named kernels]")
    told.completer = _complete("kernels")  # type: ignore[attr-defined]
    _many(parser)


def _mutants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants, or patch files [all]")
    _many(parser)


def _eras(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trees", nargs="+", type=_path, metavar="PATH", help="Linux source trees")
    _many(parser)


def _observe(parser: argparse.ArgumentParser) -> None:
    _json_file(parser)
    parser.add_argument("--folder", type=_path, default=options.checkout() / "build/observe",
                        help="where the consoles are kept [build/observe]")  # fmt: skip


def _yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do it, do not only tell")


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="its name for ssh [the kind of host]")


def _down(parser: argparse.ArgumentParser) -> None:
    told = parser.add_argument("names", nargs="*", metavar="NAME", help="hosts to shut down")
    told.completer = _complete("persistent")  # type: ignore[attr-defined]
    parser.add_argument("--all", action="store_true", help="all hosts that are up")


def _warm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stop", action="store_true", help="end and remove all that are kept")


def _images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("series", nargs="*", metavar="SERIES",
                        help="other Debian kernels to fetch too, such as 6.1")  # fmt: skip


def _kernels(parser: argparse.ArgumentParser) -> None:
    told = parser.add_argument("--build", nargs="+", metavar="SPEC", help="build these now")
    told.completer = _complete("kernels")  # type: ignore[attr-defined]


def _cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prune", type=_count, nargs="?", const=UNUSED_DAYS, metavar="DAYS",
                        help="remove incomplete entries, and what no job has used for so many "
                        f"days [{UNUSED_DAYS}]; what is needed again is made again")  # fmt: skip


def _shell(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"))


_ASK, _HOSTS, _KERNELS, _PROVE = (
    "test a kernel", "hosts", "kernels and images", "many kernels, and the suite itself"
)  # fmt: skip

VERBS = (
    Verb("run", _ASK, "test one kernel on one host", "asking.run",
         (*_JOB, "keep"), _tests),
    Verb("contract", _ASK, "which contract a kernel has to keep, why, and what is expected",
         "asking.contract",
         ("host", "kernel", "expect", "path", "ssh_config", "bochs", "patience"), _boot),
    Verb("doctor", _HOSTS, "check every prerequisite of a host, with hints", "hosts.doctor",
         ("host", "kernel", "expect_kernel", "l2", *_LAB, "bochs", "patience"), _json),
    Verb("hosts", _HOSTS, "list the hosts and whether they can be used", "hosts.hosts",
         ("bochs",)),
    Verb("prepare", _HOSTS, "say what a lab host lacks, and install it with --yes",
         "hosts.prepare", ("host", "qemu", "ssh_config", "patience"), _yes),
    Verb("restore", _HOSTS, "restore a KVM module that an interrupted job has changed",
         "hosts.restore", ("host", "wait", "ssh_config", "patience")),
    Verb("up", _HOSTS, "boot a host that stays, as a lab machine", "hosts.up",
         ("host", "kernel", "bochs", "patience"), _name),
    Verb("down", _HOSTS, "shut down what `l2gate up` has booted", "hosts.down", (), _down),
    Verb("warm", _HOSTS, "keep a booted machine for later jobs to start from, or end all that are "
         "kept", "warm.warm", ("host", "kernel", "bochs", "warm_minutes", "patience"), _warm),
    Verb("images", _KERNELS, "fetch and build everything that jobs need", "kernels.images", (),
         _images),
    Verb("kernels", _KERNELS, "list the named kernels, or build some",
         "kernels.kernels", (), _kernels),
    Verb("cache", _KERNELS, "list what the cache holds, or prune it", "kernels.cache", (), _cache),
    Verb("matrix", _PROVE, "many kernels on many hosts, one table and one page", "many.matrix",
         ("bochs", "patience"), _matrix, _OWN_LIST),
    Verb("mutants", _PROVE, "is each broken KVM caught for the right reason?", "many.mutants",
         ("bochs", "patience"), _mutants, _OWN_LIST),
    Verb("eras", _PROVE, "build and test kernels from source trees of yours", "many.eras",
         ("bochs", "patience"), _eras, _OWN_LIST),
    Verb("observe", _PROVE, "record what a kernel does where nothing is promised", "many.observe",
         ("host", "kernel", "bochs", "patience"), _observe, _QUESTION),
    Verb("compare", _PROVE, "the same cases on all emulated hosts, side by side", "many.compare",
         ("kernel", *_QUESTION, "bochs", "patience"), None, ("host",)),
    Verb("bench", _PROVE, "measure the phases of several jobs", "many.bench", _JOB, _runs(3)),
    Verb("soak", _PROVE, "repeat a job and compare the verdicts", "many.soak", _JOB, _soak),
    Verb("schema", _PROVE, "print the JSON Schema of what `run --json` writes", "schema.schema"),
    Verb("completion", _PROVE, "print completion code for a shell", "shell.completion",
         (), _shell),
)  # fmt: skip

_EPILOG = """\
exit codes: 0 pass, 1 the kernel broke the promise, 2 something else broke, 3 nothing was proven or
nothing could be asked, 4 usage error, 130 interrupted. Each setting is also L2GATE_NAME in the
environment and a line in avocado.cfg. `l2gate VERB --help` lists a verb's options.
"""


def main(argv: Sequence[str]) -> int:
    """Returns the exit code; the README lists what each means. Raises L2gateError."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments = parser.parse_args(argv)
    if arguments.verb is None:
        parser.print_help()
        return UsageError.exit_code
    options.from_environment()  # a variable that is misspelt is told by every verb
    module, _, function = arguments.verb.body.partition(".")
    body = getattr(importlib.import_module(f"l2gate.verbs.{module}"), function)
    return int(body(arguments))


#: Options that are no settings, and that verbs have.
_OF_VERBS = ("--json", "-q", "--quiet", "-v", "--verbose")
_UNKNOWN = "unrecognized arguments: "


class _Formatter(argparse.HelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """With what the hosts say of themselves, asked only where help is wanted."""
        from l2gate.hosts import kinds

        return kinds.told(action.help) if action.help else action.help


class _Parser(argparse.ArgumentParser):
    def __init__(self, **how: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **how)

    def print_help(self, file: Any = None) -> None:
        """argparse passes over what cannot be written."""
        print(self.format_help(), end="", file=file, flush=True)

    def error(self, message: str) -> NoReturn:
        """A usage error, with the nearest right name of what is not known."""
        hint = f"{self.prog} --help"
        choice = re.fullmatch(r"(.*invalid choice: '(.*)') \(choose from (.*)\)", message)
        if choice:
            message = choice[1]
            hint = options.nearest(choice[2], choice[3].replace("'", "").split(", "))
        if message.startswith(_UNKNOWN):
            hint = self._hint(message.removeprefix(_UNKNOWN).partition(" ")[0].partition("=")[0])
        self.exit(UsageError.exit_code, f"{self.prog}: {message}\n  hint: {hint}\n")

    def _hint(self, word: str) -> str:
        """For an option that is none here."""
        name = word.removeprefix("--").replace("-", "_")
        others = [verb.name for verb in VERBS if name in verb.options]
        if others:
            return f"leave {word} out: {self.prog} does not use it; {', '.join(others)} do"
        known = [flag for one in self._actions for flag in one.option_strings if flag[1] == "-"]
        return options.nearest(word, known)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What a verb does not know is its own error, not that of the words before it."""
        found, extra = super().parse_known_args(args, namespace)
        if extra:
            self.error(f"{_UNKNOWN}{' '.join(extra)}")
        return found, extra


class _Main(_Parser):
    """Lists the verbs by what they are for."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """An option before the verb would make its value the verb."""
        first = args[0] if args else ""
        name = first.removeprefix("--").partition("=")[0].replace("-", "_")
        if first.startswith("-") and (name in options.BY_NAME or first in _OF_VERBS):
            words = (
                f"{self.prog}: {first} comes after the verb\n  hint: {self.prog} run {first} ...\n"
            )
            self.exit(UsageError.exit_code, words)
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        lines = [self.format_usage().strip(), "", str(self.description), ""]
        for group in dict.fromkeys(verb.group for verb in VERBS):
            lines.append(f"{group}:")
            lines += [f"  {v.name:<12}{v.help}" for v in VERBS if v.group == group]
            lines.append("")
        lines += ["  -h, --help    show this", "  --version     version and commit", "", _EPILOG]
        return "\n".join(lines)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from l2gate.report.provenance import version_line

        print(version_line())
        parser.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Main(prog="l2gate", description=__doc__, usage="l2gate VERB [OPTION...]")
    parser.add_argument("--version", action=_Version, nargs=0)
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(metavar="VERB", prog="l2gate", parser_class=_Parser)
    for verb in VERBS:
        one = verbs.add_parser(verb.name, help=verb.help, description=verb.help)
        one.set_defaults(verb=verb)
        if verb.words:
            verb.words(one)
        one.add_argument("-q", "--quiet", action="store_true", help="print the result alone")
        one.add_argument("-v", "--verbose", action="store_true", help="print every step")
        for group, title in options.GROUPS.items():
            mine = [o for o in options.OPTIONS if o.name in verb.options and o.group == group]
            if mine:
                _add_options(one.add_argument_group(title), mine)
    return parser


def _add_options(group: Any, mine: Sequence[options.Option]) -> None:
    for option in mine:
        if option.type is bool:
            group.add_argument(
                option.flag, action=argparse.BooleanOptionalAction, default=None,
                help=f"{option.help} [{option.default}]",
            )  # fmt: skip
            continue
        default = f" [{option.default}]" if option.default else ""
        told = group.add_argument(
            option.flag,
            choices=option.choices or None,
            metavar=option.metavar or None,
            help=f"{option.help}{default}".replace("%", "%%"),
        )
        if option.name in ("host", "kernel"):
            told.completer = _complete(f"{option.name}s")


def _complete(what: str) -> Callable[..., Sequence[str]]:
    """A completer (argcomplete), which imports what it needs only when a shell asks."""

    def complete(**_: object) -> Sequence[str]:
        from l2gate.verbs import shell

        return shell.candidates(what)

    return complete


def _path(text: str) -> Path:
    """A path, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; is a variable not set?")
    return options.path_of(text)


def _count(text: str) -> int:
    """A number of 1 or more, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: use a number of 1 or more")
    return number
