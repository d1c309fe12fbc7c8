# SPDX-License-Identifier: MIT
"""The bench: a booted host with L1 on it, up once per job and shared by the job's tests."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from l2gate.bench import l0 as l0_of
from l2gate.bench.facts import BenchFacts
from l2gate.bench.l0 import L0
from l2gate.contract import choice
from l2gate.foundation import debian
from l2gate.foundation.deadline import Deadline
from l2gate.foundation.errors import BenchError, L2gateError
from l2gate.foundation.events import Event, Note, StepBegan, StepEnded, Timeline
from l2gate.foundation.scratch import Scratch
from l2gate.foundation.settings import Settings
from l2gate.guests.l1vm import L1Vm, SavedL1
from l2gate.hosts import kinds, templates
from l2gate.hosts.host import Host, HostContext, TemplateCapable
from l2gate.hosts.kind import Can
from l2gate.hosts.probe import probe
from l2gate.hosts.templates import Template
from l2gate.images import build
from l2gate.images.helper import HELPER
from l2gate.kernels.described import describe
from l2gate.kernels.kernel import KernelUnderTest, prepare
from l2gate.records.descriptions import KernelDescription
from l2gate.records.events import (
    FACTS,
    ContractDecided,
    HostFound,
    KernelComplained,
    KernelFound,
    L1QemuFound,
)
from l2gate.transport.connection import Connection
from l2gate.transport.multiplexer import Multiplexer, Served
from l2gate.transport.returning import Returning
from l2gate.transport.ssh import Endpoint, SshConnection


def preflight(settings: Settings) -> None:
    """Refuse what cannot work before anything boots or builds.

    Raises UsageError for an unknown host, kernel spec or word of a case, MissingPrerequisite for
    what a make target brings.
    """
    choice.refuse_impossible(choice.parse(settings.case))
    kind = kinds.find(settings.host)
    kinds.refuse_nonsense(kind, settings)
    kind.check(settings)
    debian.find(build.GUEST_SUITE)


class Bench:
    """Host and L1, up. `down` ends both; it is idempotent and safe on a half-built bench."""

    def __init__(self, settings: Settings, folder: Path, logs: Path, timeline: Timeline) -> None:
        self.settings, self.folder, self.logs, self.timeline = settings, folder, logs, timeline
        self.kind = kinds.find(settings.host)
        self._host: Host | None = None
        self._vm: L1Vm | None = None
        self._l1: Returning | None = None
        self._multiplexer: Multiplexer | None = None
        self._facts: BenchFacts | None = None
        self._images: build.Images | None = None
        self._kernel: KernelUnderTest | None = None
        self._template: Template | None = None
        #: An L1 that was put aside on L0, for another KVM to go on with.
        self._saved: SavedL1 | None = None
        #: What L0's KVM offers a guest.
        self._offer = ""
        self._l1_count = 0
        #: How many machines there have been, one after another.
        self._machines = 1

    @classmethod
    def up(
        cls, settings: Settings, folder: Path, logs: Path, timeline: Timeline, *, l1: bool = True
    ) -> Bench:
        """Boot host and L1 (without ``l1`` the host alone, for tests on the helper's own VM).

        Call it in the main thread. Raises L2gateError, with nothing left.
        """
        preflight(settings)
        shutil.rmtree(logs, ignore_errors=True)  # an earlier console would be read as this one's
        logs.mkdir(parents=True)
        bench = cls(settings, folder, logs, timeline)
        try:
            bench._come_up(l1)
        except BaseException:
            bench.down()
            raise
        return bench

    @classmethod
    def once(cls, settings: Settings, timeline: Timeline, *, l1: bool = True) -> None:
        """Come up and go down again, for what that leaves or tells. Raises L2gateError."""
        with Scratch("once") as folder:
            cls.up(settings, folder, folder / "consoles", timeline, l1=l1).down()

    def save(self, path: Path) -> None:
        assert self._facts is not None
        self._facts.write(path)

    def check(self) -> None:
        """Raises GuestCrash if a console tells of a crash."""
        if self._host:
            self._host.check_console()
        if self._vm:
            self._vm.console.check()

    def exchange(self, kernel: KernelUnderTest, *, l1: bool) -> None:
        """Load that kernel's KVM instead of the one that is there, on the host as it runs, and
        boot an L1 of its own if ``l1`` asks for one.

        Raises BenchError where the host cannot do that; then only a new boot helps.
        """
        assert self._host is not None
        self._put_l1_aside(self._host)
        self._end_l1()
        with self.timeline.step("L0", f"exchanging KVM for {kernel.spec}", "exchange"):
            self._host.exchange_kvm(kernel)
        self._told_kernel(describe(kernel))
        l0 = self._examine(self._host)
        self._begin(self._host, l0, self._boot_l1(self._host, l0) if l1 else None)

    def renew(self) -> bool:
        """Go on with another machine from the same template, with an L1 as it was when that was
        made. False, and nothing was done, where there is no template. Raises L2gateError."""
        if self._template is None or self._host is None or self._vm is None:
            return False
        host, template = self._host, self._template
        self._record_complaint(host)
        self._close_connections()
        self._host = self._vm = None
        host.close()
        self._machines += 1
        self._or_anew(lambda: self._go_on_from(template), template, l1=True)
        return True

    @property
    def from_template(self) -> bool:
        """Whether it runs on a machine that went on from a template."""
        return self._template is not None and self._host is not None

    def another(self, folder: Path) -> Bench | None:
        """One more machine from the same template, beside this one, for tests that need no L1; its
        files are in ``folder``, which is made. None where there is none to be had."""
        if self._template is None:
            return None
        folder.mkdir(mode=0o700)
        logs = self.logs / folder.name
        logs.mkdir()
        other = Bench(self.settings, folder, logs, Timeline(self._told_beside))
        other._kernel, other._images = self._kernel, self._images
        try:
            other._go_on_from(self._template, l1=False)
        except L2gateError as error:
            self.timeline.note("controller", f"no second machine: {error.cause}", shown=True)
            other.down()
            return None
        return other

    def _told_beside(self, event: Event) -> None:
        """What it is has been told already."""
        if not isinstance(event, FACTS):
            self.timeline.record(event)

    def _go_on_from(self, template: Template, *, l1: bool = True) -> None:
        host = self._host = self.kind.make(self._context(), self._kernel)
        assert isinstance(host, TemplateCapable)
        self._resume(host, template, l1)

    @property
    def contract(self) -> str:
        """The name of the one that holds; empty if it is not known yet."""
        return self._facts.contract.name if self._facts else ""

    @property
    def alive(self) -> bool:
        """Whether L0 still answers."""
        deadline = Deadline("L0 answers", 10)
        try:
            return self._host is not None and not self._host.connection.run("true", deadline).status
        except L2gateError:
            return False

    @property
    def complaint(self) -> str | None:
        """What L0's kernel has said of a fault of its own since it was booted."""
        return self._host.complaint() if self._host else None

    def down(self) -> None:
        if self._host is None:
            return
        self._record_complaint(self._host)
        with self.timeline.step("controller", "ending L1 and L0", "teardown"):
            host = self._host
            try:
                self._end_l1()
            finally:
                self._host = None
                host.close()

    def _end_l1(self) -> None:
        vm, self._vm = self._vm, None
        self._close_connections()
        if vm:
            vm.close()

    def _close_connections(self) -> None:
        """Those of the tests, and the one to L1."""
        l1, self._l1 = self._l1, None
        multiplexer, self._multiplexer = self._multiplexer, None
        if multiplexer:
            multiplexer.close()
        if l1:
            l1.close()

    def _record_complaint(self, host: Host) -> None:
        """What the kernel under test has said of itself during the job: its end is not green."""
        if self._facts is None:
            return
        try:
            said = host.complaint()
        except L2gateError:
            return  # an L0 that is gone is reported by whoever needed it
        if said:
            text = f"the kernel under test complained during the job: {said}"
            self.timeline.record(KernelComplained(level="L0", text=text, said=said))

    def _come_up(self, l1: bool) -> None:
        """From a template of this kernel, if there is one and `fresh` does not forbid it; else by a
        boot, after which it is kept as one."""
        host = self._make_host()
        if not isinstance(host, TemplateCapable) or self.settings.fresh:
            self._boot(host, l1)
        elif template := templates.find(host.template_key):
            self._or_anew(lambda: self._resume(host, template, l1), template, l1)
        elif not (l1 and self.settings.warm and templates.make_room()):
            self._boot(host, l1)
        elif source := self._source():
            self._or_anew(lambda: self._port(source), None, l1)
        else:
            self._or_anew(lambda: self._boot_and_keep(host), None, l1)

    def _or_anew(self, come_up: Callable[[], None], template: Template | None, l1: bool) -> None:
        """Whatever goes wrong with a template costs a boot, not a verdict."""
        try:
            come_up()
        except _NoTemplate as error:
            if template:
                templates.forget(template)
            text = f"{error.cause}; {self.kind.name} is booted anew"
            self.timeline.note("controller", text, shown=True)
            host, self._host, self._vm = self._host, None, None
            self._template = self._saved = None
            self._close_connections()
            if host:
                host.close()
            self._boot(self._make_host(), l1)

    def _source(self) -> Template | None:
        """Of a kernel that differs from a stock one in patches of the user's own, the template of
        the stock one, made now if there is none: it was booted with a KVM that is known."""
        if self._kernel is None or self._kernel.stock is None:
            return None
        spec = self._kernel.stock
        stock = replace(self.settings, kernel=spec)
        with Scratch("stock") as folder:
            bench = Bench(stock, folder, folder / "consoles", Timeline(self._told_of_another))
            bench.logs.mkdir()
            try:
                host = bench._make_host()
                assert isinstance(host, TemplateCapable)
                key = host.template_key
                if template := templates.find(key):
                    return template
                bench._boot_and_keep(host)
            except L2gateError as error:
                text = f"{spec} gives no template ({error.cause}); {self._kernel.spec} is booted"
                self.timeline.note("controller", text, shown=True)
                return None
            finally:
                bench.down()
        return templates.find(key)

    def _make_host(self) -> Host:
        with self.timeline.step("controller", "kernel and images", "prepare"):
            kernel = self._kernel = self.kind.prepare_kernel(self.settings, self.timeline)
            self._images = build.images(self.timeline)
            self._host = self.kind.make(self._context(), kernel)
            return self._host

    def _context(self) -> HostContext:
        assert self._images is not None
        places = self._places("machine", self._machines)
        return HostContext(self.settings, self._images, *places, self.timeline)

    def _boot(self, host: Host, l1: bool) -> None:
        kernel = self._kernel
        if kernel:
            self._told_kernel(describe(kernel))
        does = f"boots {kernel.release}" if kernel else "is made ready"
        with self.timeline.step("L0", f"{self.kind.name} {does}", "host"):
            host.boot()
        l0 = self._examine(host)
        self._begin(host, l0, self._boot_l1(host, l0) if l1 else None)

    def _told_of_another(self, event: Event) -> None:
        """Of a bench for another kernel only what it does is told, not what that kernel is."""
        if isinstance(event, (StepBegan, StepEnded, Note)):
            self.timeline.record(event)

    def _resume(self, host: TemplateCapable, template: Template, l1: bool) -> None:
        assert self._kernel is not None
        self._told_kernel(describe(self._kernel))
        with _template_needed("a template did not come up"):
            self._resume_host(host, template)
            l0 = self._examine(host)
            self._begin(host, l0, self._adopt_l1(host, l0, template) if l1 else None)

    def _resume_host(self, host: TemplateCapable, template: Template) -> None:
        self._template = template
        text = f"{self.kind.name} goes on from a template booted at {template.booted}"
        with self.timeline.step("L0", text, "host"):
            host.resume(template)

    def _boot_and_keep(self, host: TemplateCapable) -> None:
        """Boot all, keep that, and go on as any later job will: from the template."""
        with contextlib.closing(templates.Draft()) as draft:
            host.template = draft.path
            self._boot(host, l1=True)
            with _template_needed("it could not be kept as a template"):
                template = self._keep(host, draft)
                self._resume(host, template, l1=True)

    def _port(self, source: Template) -> None:
        """Load this kernel's KVM into a machine of ``source`` instead of its own, and let L1 go on
        there; keep that, and go on from it."""
        assert self._kernel is not None
        kernel, stock = self._kernel, prepare(source.kernel, self.timeline)
        with contextlib.closing(templates.Draft()) as draft, _template_needed("no template"):
            host = self._host = self.kind.make(self._context(), stock)
            assert isinstance(host, TemplateCapable)
            host.template = draft.path
            try:
                self._resume_host(host, source)
            except L2gateError:
                templates.forget(source)
                raise
            self.exchange(kernel, l1=True)
            self._resume(host, self._keep(host, draft), l1=True)

    def _keep(self, host: TemplateCapable, draft: templates.Draft) -> Template:
        assert self._vm is not None
        with self.timeline.step("L0", "L0 and L1 are kept as a template", "keep"):
            self._close_connections()
            about = self._vm.leave(draft.path)
            self._vm = self._saved = None
            template = draft.publish(host.keep(about | {"offer": self._offer}))
            if template.folder != draft.path:
                host.stays()
            return template

    def _put_l1_aside(self, host: Host) -> None:
        """Save the L1 that is there, once, for another KVM to go on with."""
        if self._saved or not isinstance(host, TemplateCapable) or not (self._vm or self._template):
            return
        with self.timeline.step("L1", "L1 is saved", "l1"):
            if self._vm is None and self._template:
                self._vm = L1Vm(host, *self._l1_places())
                self._vm.adopt(self._template.folder, self._template.about, runs=False)
                self._offer = str(self._template.about["offer"])
            assert self._vm is not None
            self._close_connections()
            self._saved, self._vm = self._vm.save(self._offer), None

    def _told_kernel(self, kernel: KernelDescription) -> None:
        self.timeline.record(KernelFound(level="L0", text=kernel.spec, kernel=kernel))

    def _examine(self, host: Host) -> L0:
        """Judge the kernel that is there."""
        l0 = l0_of.examine(host, self.settings)
        self._offer = str(l0.found["offer"])
        self.timeline.record(HostFound(level="L0", text=host.spec, host=l0.described(host)))
        if not self.kind.boots:
            self._told_kernel(l0.running_kernel())
        contract = l0.contract
        self.timeline.record(ContractDecided(level="L0", text=contract.name, contract=contract))
        return l0

    def _begin(self, host: Host, l0: L0, l1: Connection | None) -> None:
        """Make what a test needs to reach the bench."""
        levels = {"L0": Served(host.connection, host.helper)}
        if l1:
            levels["L1"] = Served(l1, HELPER)
        socket = self.folder / "multiplexer"
        socket.unlink(missing_ok=True)
        self._multiplexer = Multiplexer(socket, levels)
        consoles = {"L0": str(host.console.log)}
        if self._vm:
            consoles["L1"] = str(self._vm.console.log)
        self._facts = BenchFacts(
            multiplexer=str(socket),
            monitor=self._vm.places.monitor if self._vm else "",
            qemu_pid=self._vm.pid if self._vm else 0,
            helper=host.helper,
            l1_helper=HELPER,
            consoles=consoles,
            contract=l0.contract,
            scale=host.budget.scale,
            l2=self.settings.l2,
            proof=self.settings.proof,
            path=self.settings.path,
            case=self.settings.case,
            owner=os.getpid(),
            soft_exceptions=l0.soft_exceptions,
            format=l0.vendor.format,
            steps=l0.steps,
        )

    def _l1_places(self) -> tuple[Path, Path]:
        self._l1_count += 1
        return self._places("l1", self._l1_count)

    def _places(self, what: str, count: int) -> tuple[Path, Path]:
        """Where the keys and the logs of the ``count``-th one go: its own, as a console is read
        whole."""
        if count <= 1:
            return self.folder, self.logs
        places = self.folder / f"{what}-{count}", self.logs / f"{what}-{count}"
        for place in places:
            place.mkdir(mode=0o700, exist_ok=True)
        return places

    def _boot_l1(self, host: Host, l0: L0) -> Returning:
        honest_since = l0.vendor.honest_msrs_since
        if Can.BE_SPENT in self.kind.can and honest_since and not l0.steps[honest_since]:
            deadline = host.budget.deadline("L0 ignores MSRs that it does not know", 10)
            host.connection.run("echo 1 >/sys/module/kvm/parameters/ignore_msrs", deadline)
        with self.timeline.step("L1", "QEMU on L0 boots the L1 VM", "l1"):
            vm = self._vm = L1Vm(host, *self._l1_places())
            saved = self._saved
            if saved and saved.offer == self._offer:
                return self._reach_l1(host, l0, vm, vm.restore(saved), has_helper=True)
            return self._reach_l1(host, l0, vm, vm.boot(), has_helper=False)

    def _adopt_l1(self, host: Host, l0: L0, template: Template) -> Returning:
        """The L1 of a template; it has the helper, until it starts anew."""
        with self.timeline.step("L1", "L1 goes on", "l1"):
            vm = self._vm = L1Vm(host, *self._l1_places())
            endpoint = vm.adopt(template.folder, template.about)
            return self._reach_l1(host, l0, vm, endpoint, has_helper=True)

    def _reach_l1(
        self, host: Host, l0: L0, vm: L1Vm, endpoint: Endpoint, *, has_helper: bool
    ) -> Returning:
        """L1's connection, made anew when L1 has started anew; then it has the helper no more."""
        assert self._images is not None
        helper, brings = self._images.helper, iter((not has_helper,))
        self.timeline.record(L1QemuFound(level="L0", text=vm.version, version=vm.version))

        def connect() -> SshConnection:
            return _equip_l1(host, l0, endpoint, helper if next(brings, True) else None)

        self._l1 = Returning("L1", connect)
        return self._l1


class _NoTemplate(BenchError):
    """A template could not be made or started from."""


@contextlib.contextmanager
def _template_needed(what: str) -> Iterator[None]:
    """Raises _NoTemplate, which says ``what`` and why, for any L2gateError inside."""
    try:
        yield
    except _NoTemplate:
        raise
    except L2gateError as error:
        raise _NoTemplate(f"{what}: {error.cause}") from error


def _equip_l1(host: Host, l0: L0, endpoint: Endpoint, helper: Path | None) -> SshConnection:
    """Connect to L1, and bring the ``helper`` if it is not there."""
    deadline = host.budget.deadline("L1 lets SSH in and takes the helper", 20)
    l1 = SshConnection.to_level(endpoint, deadline, via=host.connection)
    if helper:
        l1.put(helper, HELPER, deadline, mode="700")
    found = probe(l1, HELPER, "L1", host.budget)
    if found["dev_kvm_error"]:
        raise BenchError(
            f"L1 has no KVM ({found['dev_kvm_error']}): L0's nested KVM offers it no "
            f"{l0.vendor.format}",
            "see L1's console",
        )
    return l1
