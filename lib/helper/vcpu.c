// SPDX-License-Identifier: GPL-2.0-only
/*
 * vcpu --pid PID [--vcpu N] [--tid TID] [--old-kernel yes]
 *
 * Prints one line with the nested state, registers and events of vCPU N (0 if not given) of the
 * QEMU process PID, whose VM must be stopped (QMP `stop`): a running vCPU would hold its mutex.
 * TID is the thread to borrow; by default the vCPU's own. --old-kernel does as on Linux 4.12, which
 * has no KVM_GET_NESTED_STATE and does not number the vCPUs.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"
#include "nested.h"
#include "vcpu.h"

struct field {
	const char *name;
	size_t offset, size;
};

/* Name, offset and size: what stands in the braces of a struct field. */
#define FIELD(name, member)                                                                        \
	name, offsetof(struct vcpu_state, member), sizeof(((struct vcpu_state *)0)->member)
#define REG(name) FIELD(#name, regs.name)
#define SREG(name) FIELD(#name, sregs.name)
#define BASE(name) FIELD(#name "_base", sregs.name.base)
#define SELECTOR(name) FIELD(#name "_selector", sregs.name.selector)
#define EVENT(name) FIELD(#name, events.name)

static const struct field regs[] = {
	{ REG(rax) }, { REG(rbx) }, { REG(rcx) }, { REG(rdx) }, { REG(rsi) }, { REG(rdi) },
	{ REG(rsp) }, { REG(rbp) }, { REG(r8) },  { REG(r9) },	{ REG(r10) }, { REG(r11) },
	{ REG(r12) }, { REG(r13) }, { REG(r14) }, { REG(r15) }, { REG(rip) }, { REG(rflags) },
};

static const struct field sregs[] = {
	{ SREG(cr0) },
	{ SREG(cr2) },
	{ SREG(cr3) },
	{ SREG(cr4) },
	{ SREG(cr8) },
	{ SREG(efer) },
	{ SREG(apic_base) },
	{ BASE(cs) },
	{ SELECTOR(cs) },
	{ BASE(ds) },
	{ SELECTOR(ds) },
	{ BASE(es) },
	{ SELECTOR(es) },
	{ BASE(fs) },
	{ SELECTOR(fs) },
	{ BASE(gs) },
	{ SELECTOR(gs) },
	{ BASE(ss) },
	{ SELECTOR(ss) },
	{ BASE(tr) },
	{ SELECTOR(tr) },
	{ BASE(ldt) },
	{ SELECTOR(ldt) },
	{ FIELD("gdt_base", sregs.gdt.base) },
	{ FIELD("idt_base", sregs.idt.base) },
	{ FIELD("interrupt_bitmap_0", sregs.interrupt_bitmap[0]) },
	{ FIELD("interrupt_bitmap_1", sregs.interrupt_bitmap[1]) },
	{ FIELD("interrupt_bitmap_2", sregs.interrupt_bitmap[2]) },
	{ FIELD("interrupt_bitmap_3", sregs.interrupt_bitmap[3]) },
};

static const struct field debugregs[] = {
	{ FIELD("db0", debugregs.db[0]) }, { FIELD("db1", debugregs.db[1]) },
	{ FIELD("db2", debugregs.db[2]) }, { FIELD("db3", debugregs.db[3]) },
	{ FIELD("dr6", debugregs.dr6) },   { FIELD("dr7", debugregs.dr7) },
};

static const struct field events[] = {
	{ EVENT(exception.injected) },
	{ EVENT(exception.nr) },
	{ EVENT(exception.has_error_code) },
	{ EVENT(exception.pending) },
	{ EVENT(exception.error_code) },
	{ EVENT(exception_has_payload) },
	{ EVENT(exception_payload) },
	{ EVENT(interrupt.injected) },
	{ EVENT(interrupt.nr) },
	{ EVENT(interrupt.soft) },
	{ EVENT(interrupt.shadow) },
	{ EVENT(nmi.injected) },
	{ EVENT(nmi.pending) },
	{ EVENT(nmi.masked) },
	{ EVENT(sipi_vector) },
	{ EVENT(flags) },
	{ EVENT(smi.smm) },
	{ EVENT(smi.pending) },
	{ EVENT(smi.smm_inside_nmi) },
	{ EVENT(smi.latched_init) },
	{ EVENT(triple_fault.pending) },
};

static const struct group {
	const char *name;
	const struct field *fields;
	size_t count;
} groups[] = {
	{ "regs", regs, COUNT(regs) },
	{ "sregs", sregs, COUNT(sregs) },
	{ "debugregs", debugregs, COUNT(debugregs) },
	{ "events", events, COUNT(events) },
};

static uint64_t value_of(const struct vcpu_state *state, const struct field *field)
{
	uint64_t value = 0;

	memcpy(&value, (const char *)state + field->offset, field->size);
	return value;
}

static void print_group(const struct group *group, const struct vcpu_state *state)
{
	json_object(group->name);
	for (size_t i = 0; i < group->count; i++) {
		const struct field *field = &group->fields[i];

		if (field->size == 8 || group->fields != events)
			json_hex(field->name, value_of(state, field));
		else
			json_number(field->name, (long long)value_of(state, field));
	}
	json_close_object();
}

void vcpu_print(const struct vcpu_state *state)
{
	const struct nested *nested = &state->nested;

	json_object("nested");
	json_bool("supported", nested->supported);
	if (nested->supported) {
		json_text("format", nested_format_name(nested->format));
		json_hex("flags", nested->flags);
		json_bool("guest_mode", nested->flags & KVM_STATE_NESTED_GUEST_MODE);
		json_bool("run_pending", nested->flags & KVM_STATE_NESTED_RUN_PENDING);
		json_number("size", nested->size);
	}
	json_close_object();
	for (size_t i = 0; i < COUNT(groups); i++)
		print_group(&groups[i], state);
}

void vcpu_print_events(const char *key, const struct kvm_vcpu_events *sent)
{
	static struct vcpu_state state;
	struct group group = { key, events, COUNT(events) };

	state.events = *sent;
	print_group(&group, &state);
}

int vcpu_print_changes(const char *key, const struct vcpu_state *a, const struct vcpu_state *b)
{
	char name[64];
	int changes = 0;

	json_list(key);
	for (size_t g = 0; g < COUNT(groups); g++)
		for (size_t i = 0; i < groups[g].count; i++) {
			const struct field *field = &groups[g].fields[i];

			if (value_of(a, field) == value_of(b, field))
				continue;
			snprintf(name, sizeof(name), "%s.%s", groups[g].name, field->name);
			json_text(NULL, name);
			changes++;
		}
	if (a->nested.flags != b->nested.flags) {
		json_text(NULL, "nested.flags");
		changes++;
	}
	json_close_list();
	return changes;
}

bool vcpu_set_field(struct kvm_vcpu_events *target, const char *name, uint64_t value)
{
	for (size_t i = 0; i < COUNT(events); i++) {
		size_t offset = events[i].offset - offsetof(struct vcpu_state, events);
		const char *plain = events[i].name;

		/* the exception's own fields go by their bare names too: nr, injected, ... */
		if (!strncmp(plain, "exception.", 10) && !strchr(name, '.'))
			plain += 10;
		if (strcmp(plain, name))
			continue;
		memcpy((char *)target + offset, &value, events[i].size);
		return true;
	}
	return false;
}

/* --- finding and reading it ----------------------------------------------------------------- */

/*
 * Which of QEMU's files is the vCPU: /proc/PID/fd links to anon_inode:kvm-vcpu:N. Linux 4.12 says
 * no N; there all are candidates, and what KVM says of each one's local APIC tells which it is.
 */
static void find_fd(struct vcpu *vcpu)
{
	char path[300], link[128], wanted[64];
	pid_t pid = vcpu->tracee.pid;
	struct dirent *entry;
	DIR *dir;

	vcpu->fd = -1;
	vcpu->candidates = 0;
	snprintf(wanted, sizeof(wanted), "anon_inode:kvm-vcpu:%d", vcpu->number);
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		ssize_t length;

		snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, entry->d_name);
		length = readlink(path, link, sizeof(link) - 1);
		link[length > 0 ? length : 0] = 0;
		if (vcpu->old_kernel && !strncmp(link, "anon_inode:kvm-vcpu:", 20))
			link[19] = 0;
		if (!strcmp(link, wanted))
			vcpu->fd = atoi(entry->d_name);
		if (!strcmp(link, "anon_inode:kvm-vcpu") && vcpu->candidates < VCPU_CANDIDATES)
			vcpu->candidate[vcpu->candidates++] = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);
}

static bool report(const struct vcpu *vcpu)
{
	const struct tracee *tracee = &vcpu->tracee;

	json_error(tracee->problem_errno,
		   tracee->problem_errno == EPERM ?
			   "run as root; see kernel.yama.ptrace_scope and kernel lockdown" :
			   NULL,
		   "%s", tracee->problem);
	return false;
}

bool vcpu_find(struct vcpu *vcpu, int argc, char **argv)
{
	const char *pid = option(argc, argv, "--pid"), *tid = option(argc, argv, "--tid");
	const char *number = option(argc, argv, "--vcpu");

	vcpu->number = number ? atoi(number) : 0;
	if (!pid || atoi(pid) <= 0) {
		json_error(0, "vcpu|inject --pid PID [--vcpu N] [--tid TID] [--old-kernel yes]",
			   "no --pid given");
		return false;
	}
	if (!tracee_find(&vcpu->tracee, atoi(pid), tid ? atoi(tid) : 0, vcpu->number))
		return report(vcpu);
	vcpu->old_kernel = option(argc, argv, "--old-kernel") != NULL;
	find_fd(vcpu);
	if (vcpu->fd >= 0 || vcpu->candidates)
		return true;
	json_error(0, "is that process a QEMU with -accel kvm, and is this user allowed to see it?",
		   "process %s has no vCPU %d", pid, vcpu->number);
	return false;
}

/* Signals that would end the helper wait until QEMU's thread has been given back. */
static void hold_signals(bool hold)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGSEGV);
	sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

void vcpu_detach(struct vcpu *vcpu)
{
	tracee_detach(&vcpu->tracee);
	hold_signals(false);
}

static bool run(struct vcpu *vcpu, unsigned long request, void *argument, size_t size, long *result)
{
	bool ran;

	*result = tracee_ioctl(&vcpu->tracee, vcpu->fd, request, argument, size, &ran);
	return ran || report(vcpu);
}

/* The candidate whose local APIC has the vCPU's number as its ID (SDM volume 3, 11.4.6). */
static bool choose(struct vcpu *vcpu)
{
	struct kvm_lapic_state apic;
	long result;

	for (int i = 0; vcpu->fd < 0 && i < vcpu->candidates; i++) {
		struct vcpu one = *vcpu;

		one.fd = vcpu->candidate[i];
		memset(&apic, 0, sizeof(apic));
		if (!run(&one, KVM_GET_LAPIC, &apic, sizeof(apic), &result))
			return false;
		if (result >= 0 && (unsigned char)apic.regs[0x23] == vcpu->number)
			vcpu->fd = one.fd;
	}
	if (vcpu->fd < 0)
		json_error(0, NULL, "none of the process's %d vCPUs has the APIC ID %d",
			   vcpu->candidates, vcpu->number);
	return vcpu->fd >= 0;
}

bool vcpu_attach(struct vcpu *vcpu)
{
	hold_signals(true);
	if (!tracee_attach(&vcpu->tracee))
		report(vcpu);
	else if (choose(vcpu))
		return true;
	else
		tracee_detach(&vcpu->tracee);
	hold_signals(false);
	return false;
}

static bool must_run(struct vcpu *vcpu, const char *name, unsigned long request, void *argument,
		     size_t size)
{
	long result;

	if (!run(vcpu, request, argument, size, &result))
		return false;
	if (result < 0)
		json_error((int)-result, NULL, "%s on the vCPU failed", name);
	return result >= 0;
}

#define MUST_RUN(vcpu, request, argument)                                                          \
	must_run(vcpu, #request, request, argument, sizeof(*(argument)))

void vcpu_note_nested(struct nested *nested, const struct kvm_nested_state *state)
{
	*nested = (struct nested){
		.supported = true,
		.flags = state->flags,
		.format = state->format,
		.size = state->size,
	};
}

static bool read_nested(struct vcpu *vcpu, struct nested *nested)
{
	static union nested_buffer buffer;
	long result;

	nested->supported = false;
	if (vcpu->old_kernel)
		return true;
	memset(&buffer, 0, sizeof(buffer));
	buffer.state.size = sizeof(buffer);
	/* the rest, which KVM writes beside it, is of interest to nobody */
	if (!run(vcpu, KVM_GET_NESTED_STATE, &buffer, sizeof(buffer.state), &result))
		return false;
	if (result == -E2BIG) {
		json_error(E2BIG, NULL, "nested state of %u bytes", buffer.state.size);
		return false;
	}
	if (result >= 0)
		vcpu_note_nested(nested, &buffer.state);
	return true;
}

bool vcpu_read(struct vcpu *vcpu, struct vcpu_state *state)
{
	memset(state, 0, sizeof(*state));
	return read_nested(vcpu, &state->nested) && MUST_RUN(vcpu, KVM_GET_REGS, &state->regs) &&
	       MUST_RUN(vcpu, KVM_GET_SREGS, &state->sregs) &&
	       MUST_RUN(vcpu, KVM_GET_DEBUGREGS, &state->debugregs) &&
	       MUST_RUN(vcpu, KVM_GET_VCPU_EVENTS, &state->events);
}

bool vcpu_set_events(struct vcpu *vcpu, const struct kvm_vcpu_events *wanted, long *result)
{
	struct kvm_vcpu_events sent = *wanted;

	return run(vcpu, KVM_SET_VCPU_EVENTS, &sent, sizeof(sent), result);
}

bool vcpu_again(struct vcpu *vcpu, long *result)
{
	bool ran;

	*result = tracee_again(&vcpu->tracee, &ran);
	return ran || report(vcpu);
}

/* Moves the vector from ISR to IRR (SDM volume 3, 11.8.4); false if it is not in service. */
static bool back_to_irr(struct kvm_lapic_state *apic, uint8_t vector)
{
	enum { ISR = 0x100, IRR = 0x200 };
	size_t offset = (vector / 32) * 16 + vector % 32 / 8;
	char bit = (char)(1 << vector % 8);

	if (!(apic->regs[ISR + offset] & bit))
		return false;
	apic->regs[ISR + offset] &= (char)~bit;
	apic->regs[IRR + offset] |= bit;
	return true;
}

bool vcpu_requeue(struct vcpu *vcpu, struct vcpu_state *state)
{
	struct kvm_vcpu_events events = state->events;
	struct kvm_lapic_state apic;

	if (!events.interrupt.injected || events.interrupt.soft)
		return true;
	memset(&apic, 0, sizeof(apic));
	if (!MUST_RUN(vcpu, KVM_GET_LAPIC, &apic))
		return false;
	if (!back_to_irr(&apic, events.interrupt.nr))
		return true;
	events.interrupt.injected = 0;
	return MUST_RUN(vcpu, KVM_SET_VCPU_EVENTS, &events) &&
	       MUST_RUN(vcpu, KVM_SET_LAPIC, &apic) && vcpu_read(vcpu, state);
}

int verb_vcpu(int argc, char **argv)
{
	static struct vcpu vcpu;
	static struct vcpu_state state;
	bool good;

	if (!vcpu_find(&vcpu, argc, argv) || !vcpu_attach(&vcpu))
		return FAILED;
	good = vcpu_read(&vcpu, &state);
	vcpu_detach(&vcpu);
	if (!good)
		return FAILED;
	json_begin("vcpu");
	vcpu_print(&state);
	json_end();
	return DONE;
}
