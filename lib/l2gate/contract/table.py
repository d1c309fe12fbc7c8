# SPDX-License-Identifier: MIT
"""Case tables: text files in which a kernel engineer reads and writes what KVM must do.

A line of a table is empty, a comment (`#`), one of five directives, or a row:

    contract  payload                  the contract that the rows below belong to
    let       FAULTS 0,5-7             a list with a name; $FAULTS stands for it
    given     cap=on flag=1            words that hold for the rows below; replaces earlier ones
    before    5.8 svm who exit handler what a kernel before a step does, on VMX, SVM or any, where
                                       that column's right cell is the first: the second is known
                                       then; for all rows below. `*` stands for any right cell
    columns   name vector => who code  what the cells of the rows below are

A row has one cell for each column. Left of `=>` are the case's name, conditions and words for the
helper (lib/helper/words.def lists them; a `-` leaves a word to its default):

    where   any, vmx, svm, soft (VMX, and SVM with NRIPS: KVM can deliver #BP and #OF anywhere), or
            coded (VMX whose VM entry refuses an error code that does not fit its vector)
    era     any, 6.1+, before-6.1 and so on: a step of l2gate/contract/eras.py, which says by what a
            kernel shows that it has it
    since   any, never, or such a step: who has not made it cannot break what the row says. What it
            does instead is as known, where it is what stands behind `~`, or else a finding
    seen    a series such as 6.12, or any: on which kernel the row was recorded. Only in tables of
            `contract none`, which record what happens and promise nothing (l2gate observe).

A list (`0,3,5-7`, `no,yes`) in such a cell stands for one case of each: the cases of a row are the
cross of its lists. `code=arch` is an error code for the vectors that have one (SDM volume 3, table
6-1) and none for the others; `code=wrong` is the other way round.

Right of `=>` is what must be seen, judged from left to right; `-` is not judged:

    errno      none, EINVAL, EBUSY
    who        handler (of the level that is active), exit (L1 gets a VM-exit), vmfail (L1's
               VMLAUNCH fails), entry-fails (KVM_EXIT_FAIL_ENTRY), shutdown, nobody, not-run
    code       what the receiver finds as error code: none, given (VMX: its low 16 bits), a number
    cr2, dr6   what the receiver finds there, or the vCPU holds if nobody gets it: same, payload, a
               number
    qual       VMX: the exit qualification. SVM: EXITINFO2, which means something for #PF alone.
               none: there is no exit
    length     VMX: the exit's instruction length. none: there is no exit, or it is SVM's
    gd         DR7.GD when the receiver is reached: set or clear
    returned   KVM_GET_VCPU_EVENTS right afterwards: nothing, injected, pending, pending+payload
    unchanged  whether the vCPU's state is as before the ioctl: yes or no
    exit       exception (the default for who=exit), triple-fault
    info       own: L1's VM-exit names this exception (the default for who=exit); else a number, its
               interruption information (SVM: its exit code). none: there is no exit
    vectoring  what L1 is told to have been on its way to L2 at the exit: none, or the low 12 bits
               of the IDT-vectoring information (SVM: EXITINTINFO), 0x306 for #UD, 0xb0d for #GP
               with an error code
    l0         what becomes of L0's kernel: well, warns, crashes (l2gate observe)

`right~known` tolerates a known defect of KVM: the table's header says which one, and the result
tells that it was seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from l2gate.contract import eras
from l2gate.contract.words import LANGUAGE
from l2gate.foundation.errors import CaseTableError
from l2gate.vendors import vendors

FOLDER = Path(__file__).parent / "cases"
#: Tables that record what happens and promise nothing.
QUIRKS = Path(__file__).parent / "quirks"

#: Error codes for the vectors that have one; not 0 where the architecture lets them be another.
ERROR_CODES = {8: 0, 10: 0x18, 11: 0x18, 12: 0x18, 13: 0x18, 14: 0x6, 17: 0}

#: What userspace hands to KVM: by these words a case finds its control, the same with L1 active.
SENT = LANGUAGE.sent

#: All words for the helper.
WORDS = set(LANGUAGE.words)
#: `none` is the contract of tables that promise nothing.
CONTRACTS = ("payload", "refuse")
_CONDITIONS: dict[str, tuple[str, ...]] = {
    "where": vendors.WHERES,
    "era": eras.ERAS,
    "since": eras.SINCE,
}
#: Whose CPUs a `before` is about.
_CPUS = ("any", *vendors.FORMATS)
_CHOICES: dict[str, tuple[str, ...]] = {
    "errno": ("none", "EINVAL", "EBUSY"),
    "who": ("handler", "exit", "vmfail", "entry-fails", "shutdown", "nobody", "not-run"),
    "gd": ("set", "clear"),
    "returned": ("nothing", "injected", "pending", "pending+payload"),
    "unchanged": ("yes", "no"),
    "exit": ("exception", "triple-fault"),
    "info": ("own", "none"),
    "vectoring": ("none",),
    "l0": ("well", "warns", "crashes"),
    "code": ("none", "given"),
    "cr2": ("same", "payload"),
    "dr6": ("same", "payload"),
    "qual": ("none", "same", "payload"),
    "length": ("none",),
}
#: Columns in which a number may stand.
NUMBERS = {"code", "cr2", "dr6", "qual", "length", "info", "vectoring"}


@dataclass(frozen=True)
class Expected:
    """One expected cell: what is right, and a deviation that is known."""

    right: str
    known: str | None = None

    def __str__(self) -> str:
        """As the table has it."""
        return self.right if self.known is None else f"{self.right}~{self.known}"


@dataclass(frozen=True)
class Platform:
    """What the rows' conditions are about: the host's CPU and the kernel under test.

    ``format`` is vmx or svm; ``steps`` says which steps of eras.py the kernel has, ``sync_events``
    whether it has KVM_SYNC_X86_EVENTS (4.17 and later), ``nested_state`` whether it has
    KVM_SET_NESTED_STATE. ``checks_codes``: VM entry refuses an error code that does not fit its
    vector; None if that is not known. ``injectable``: vectors that the CPU takes as an exception.
    """

    format: str
    soft_exceptions: bool
    steps: eras.Has
    sync_events: bool = True
    nested_state: bool = True
    checks_codes: bool | None = True
    injectable: frozenset[int] = frozenset(range(32))


@dataclass(frozen=True)
class Before:
    """What is known of kernels before ``step`` where a column's right cell is ``right``."""

    step: str
    where: str
    column: str
    right: str
    known: str

    def of(self, column: str, right: str, format_: str, steps: eras.Has) -> str | None:
        """The known outcome of a kernel with these steps; None if this is not about it."""
        about = column == self.column and self.right in ("*", right)
        here = self.where in ("any", format_) and not eras.promises(self.step, steps)
        return self.known if about and here else None


@dataclass(frozen=True)
class Case:
    """One case of a table: what is asked of the helper, and what must be seen."""

    table: str
    contract: str
    line: int
    name: str
    where: str
    era: str
    words: Mapping[str, str]
    expected: Mapping[str, Expected]
    seen: str = "any"
    since: str = "any"
    befores: tuple[Before, ...] = ()

    @property
    def active(self) -> str:
        return self.words.get("active", "L2")

    @property
    def vector(self) -> int:
        return int(self.words.get("vector", "0"), 0)

    @property
    def path(self) -> str:
        return self.words.get("path", "vcpu-events")

    @property
    def code(self) -> int | None:
        return self._number("code")

    @property
    def payload(self) -> int | None:
        return self._number("payload")

    @property
    def request(self) -> str:
        """The line for the helper."""
        return " ".join(f"{word}={value}" for word, value in self.words.items())

    @property
    def sent(self) -> str:
        """What userspace hands to KVM, whoever is active and whatever L1 intercepts."""
        return " ".join(f"{word}={self.words[word]}" for word in SENT if word in self.words)

    def holds(self, platform: Platform) -> bool:
        """Whether the row is about such a host and kernel, and can be asked there."""
        return (
            not self.lacks(platform)
            and self._where(platform)
            and eras.may_be(self.era, platform.steps)
        )

    def unasked(self, platform: Platform) -> str:
        """What is lacking for a case that is about such a host and kernel; empty if nothing."""
        about = self._where(platform) and eras.may_be(self.era, platform.steps)
        return self.lacks(platform) if about or self.where == "coded" else ""

    def lacks(self, platform: Platform) -> str:
        """What the kernel or the CPU would need for this case and has not; empty if nothing."""
        if self.path == "sync-regs" and not platform.sync_events:
            return "KVM_SYNC_X86_EVENTS"
        if self.words.get("moved", "no") != "no" and not platform.nested_state:
            return "KVM_SET_NESTED_STATE"
        told_by = vendors.named(platform.format).code_check_told_by
        if self.where == "coded" and told_by and platform.checks_codes is None:
            return told_by
        if self._enters() and self.vector not in platform.injectable:
            return f"a CPU that takes vector {self.vector} as an exception"
        return ""

    def _where(self, platform: Platform) -> bool:
        soft, coded = platform.soft_exceptions, bool(platform.checks_codes)
        return self.where in vendors.named(platform.format).wheres(soft=soft, coded=coded)

    def _enters(self) -> bool:
        """Whether the CPU is to deliver that vector at an entry."""
        who = self.expected.get("who")
        exception = self.path not in ("nmi", "mce") and self.vector < 32
        return exception and who is not None and who.right == "handler"

    def _number(self, word: str) -> int | None:
        value = self.words.get(word, "none")
        return None if value == "none" else int(value, 0)


@dataclass(frozen=True)
class Row:
    """A row as it is written, its $LISTS put in, and the cases that it stands for."""

    given: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[str, ...]
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Table:
    """A file of cases; ``header`` is the comment at its top."""

    name: str
    header: str
    rows: tuple[Row, ...]

    @property
    def cases(self) -> tuple[Case, ...]:
        return tuple(case for row in self.rows for case in row.cases)

    def under(self, contract: str) -> tuple[Case, ...]:
        """The cases that belong to that contract."""
        return tuple(case for case in self.cases if case.contract == contract)


@dataclass
class _Reader:
    """The state of reading one file, line by line."""

    name: str
    path: str
    contract: str = ""
    lists: dict[str, str] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    befores: tuple[Before, ...] = ()
    number: int = 0

    def broken(self, why: str) -> CaseTableError:
        place = f"{self.path}:{self.number}"
        return CaseTableError(f"{place}: {why}", "l2gate/contract/table.py documents the format")

    def read(self, text: str) -> Table:
        rows: list[Row] = []
        for self.number, line in enumerate(text.splitlines(), 1):
            cells = line.partition("#")[0].split()
            if cells and (row := self._line(cells)):
                rows.append(row)
        if not self.contract:
            raise self.broken("the table says no contract")
        return Table(self.name, _header(text), tuple(rows))

    def _line(self, cells: list[str]) -> Row | None:
        directive = {
            "contract": self._contract,
            "let": self._let,
            "given": self._given,
            "before": self._before,
            "columns": self._columns,
        }.get(cells[0])
        if directive is None:
            return self._row(cells)
        directive(cells[1:])
        return None

    def _contract(self, cells: list[str]) -> None:
        if len(cells) != 1 or cells[0] not in (*CONTRACTS, "none"):
            raise self.broken("contract is payload, refuse or none")
        self.contract = cells[0]
        self.given, self.asked = {}, ()

    def _let(self, cells: list[str]) -> None:
        if len(cells) != 2:
            raise self.broken("let NAME LIST")
        self.lists[cells[0]] = cells[1]

    def _given(self, cells: list[str]) -> None:
        pairs = [cell.partition("=") for cell in cells]
        for word, equals, value in pairs:
            if not equals or not value or word not in WORDS:
                raise self.broken(f"given takes WORD=VALUE, not {word}{equals}{value}")
        self.given = {word: value for word, _, value in pairs}

    def _before(self, cells: list[str]) -> None:
        if len(cells) != 5 or cells[0] not in eras.NAMES or cells[1] not in _CPUS:
            raise self.broken(f"before STEP {'|'.join(_CPUS)} COLUMN RIGHT KNOWN")
        if cells[2] not in _CHOICES:
            raise self.broken(f"nothing is expected of {cells[2]}")
        for value in cells[3:] if cells[3] != "*" else cells[4:]:
            self._expected(cells[2], value)
        self.befores = (*self.befores, Before(*cells))

    def _columns(self, cells: list[str]) -> None:
        if cells.count("=>") != 1 or "name" not in cells:
            raise self.broken("columns name ... => ...")
        cut = cells.index("=>")
        self.asked, self.wanted = tuple(cells[:cut]), tuple(cells[cut + 1 :])
        for column in self.asked:
            known = column in _CONDITIONS or column in WORDS or column in ("name", "seen")
            if not known:
                raise self.broken(f"no case has a word {column}")
        for column in self.wanted:
            if column not in _CHOICES:
                raise self.broken(f"nothing is expected of {column}")

    def _row(self, cells: list[str]) -> Row:
        if not self.contract:
            raise self.broken("a row before any contract")
        if not self.asked:
            raise self.broken("a row before any columns")
        if len(cells) != len(self.asked) + len(self.wanted):
            raise self.broken(
                f"{len(cells)} cells, but {len(self.asked) + len(self.wanted)} columns"
            )
        asked = dict(zip(self.asked, cells, strict=False))
        wanted = dict(zip(self.wanted, cells[len(self.asked) :], strict=True))
        name, seen = asked.pop("name"), asked.pop("seen", "any")
        conditions = {key: self._condition(key, asked.pop(key, "any")) for key in _CONDITIONS}
        expected = {key: self._expected(key, cell) for key, cell in wanted.items() if cell != "-"}
        words = {**self.given, **{k: v for k, v in asked.items() if v != "-"}}
        cases = tuple(
            Case(self.name, self.contract, self.number, name, words=one, expected=expected,
                 seen=seen, befores=self.befores, **conditions)
            for one in self._cross(words)
        )  # fmt: skip
        given = tuple(f"{word}={self._plain(value)}" for word, value in self.given.items())
        plain = tuple(self._plain(cell) for cell in cells)
        return Row(given, (*self.asked, "=>", *self.wanted), plain, cases)

    def _condition(self, column: str, cell: str) -> str:
        if cell not in _CONDITIONS[column]:
            raise self.broken(f"{column} is one of {', '.join(_CONDITIONS[column])}, not {cell}")
        return cell

    def _expected(self, column: str, cell: str) -> Expected:
        right, tilde, known = cell.partition("~")
        for value in (right, known) if tilde else (right,):
            if value not in _CHOICES[column] and not (column in NUMBERS and _is_number(value)):
                raise self.broken(f"{column} cannot be {value or 'empty'}")
        return Expected(right, known if tilde else None)

    def _cross(self, words: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """One dictionary for each combination of the words' lists."""
        lists = [self._list(word, value) for word, value in words.items()]
        for values in itertools.product(*lists):
            one = dict(zip(words, values, strict=True))
            code = one.get("code")
            if code in ("arch", "wrong"):
                one["code"] = self._code(code, one)
            yield one

    def _list(self, word: str, value: str) -> list[str]:
        value = self._plain(value)
        found: list[str] = []
        for part in value.split(","):
            first, dash, last = part.partition("-")
            if word == "vector" and dash:
                if not (_is_number(first) and _is_number(last)):
                    raise self.broken(f"{part} is no range of vectors")
                found.extend(str(v) for v in range(int(first, 0), int(last, 0) + 1))
            elif not part or (word == "vector" and not _is_number(part)):
                raise self.broken(f"{word} cannot be {value}")
            else:
                found.append(part)
        return found

    def _plain(self, value: str) -> str:
        """A cell with its list put in."""
        if not value.startswith("$"):
            return value
        if value[1:] not in self.lists:
            raise self.broken(f"there is no list {value}")
        return self.lists[value[1:]]

    def _code(self, kind: str, words: Mapping[str, str]) -> str:
        if "vector" not in words:
            raise self.broken(f"code={kind} needs a vector")
        code = ERROR_CODES.get(int(words["vector"], 0))
        if kind == "wrong":
            return "none" if code is not None else "0x18"
        return "none" if code is None else f"{code:#x}"


def _header(text: str) -> str:
    """The comment at the top of a table, without its marks."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join(line[1:].removeprefix(" ") for line in lines)


def _is_number(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        return False
    return True


def parse(name: str, text: str, path: str = "") -> Table:
    """The table in ``text``. Raises CaseTableError naming file and line."""
    return _Reader(name, path or name).read(text)


def load(name: str, folder: Path = FOLDER) -> Table:
    """The table of that name among l2gate's own. Raises CaseTableError."""
    path = folder / f"{name}.txt"
    if not path.exists():
        raise CaseTableError(f"there is no case table {name}", f"tables are in {folder}")
    return parse(name, path.read_text(), str(path))


def all_tables() -> tuple[Table, ...]:
    """All of l2gate's own tables, by name. Raises CaseTableError."""
    return tuple(load(path.stem) for path in sorted(FOLDER.glob("*.txt")))
