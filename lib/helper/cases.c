// SPDX-License-Identifier: GPL-2.0-only
/*
 * cases
 *
 * Conducts cases on VMs of its own (standalone.h): an L1 hypervisor of ours that intercepts exactly what a
 * case says, and an L2 of ours. It prints
 *   {"type":"cases","format":"vmx"|"svm","soft_exceptions","immediate_exit","any_error_code","tcg",
 *    "cet","caps":{...}}
 * and then answers each line of stdin, one case, with one line. A case is made of words NAME=VALUE:
 *
 *   cap=on|off          KVM_CAP_EXCEPTION_PAYLOAD enabled for the VM [off]
 *   triple_cap=on|off   KVM_CAP_X86_TRIPLE_FAULT_EVENT enabled for the VM [off]
 *   active=L1|L2        who is on the vCPU at the ioctl [L2]
 *   path=               vcpu-events: KVM_SET_VCPU_EVENTS [this one]
 *                       sync-regs: the same struct by KVM_RUN, KVM_SYNC_X86_EVENTS
 *                       guest-debug: KVM_SET_GUEST_DEBUG, INJECT_BP for vector 3, else INJECT_DB
 *                       mce: KVM_X86_SET_MCE of an uncorrected error
 *                       nmi: KVM_NMI
 *   vector=N injected=0|1 pending=0|1 code=none|N payload=none|N
 *                       what is injected; payload=N sets exception_has_payload
 *   flag=0|1            KVM_VCPUEVENT_VALID_PAYLOAD [0]
 *   flags=N             more bits for kvm_vcpu_events.flags [0]
 *   keep_flags=yes|no   the flags that KVM_GET_VCPU_EVENTS returned are there as well [yes]
 *   nmi=none|0|1        nmi.pending of the same struct [none: as KVM_GET_VCPU_EVENTS returned it]
 *   interrupt=none|N    interrupt.injected and interrupt.nr of the same struct [none]
 *   shadow=none|N       interrupt.shadow of the same struct [none]
 *   with_regs=yes|no    sync-regs: the registers come along, by KVM_SYNC_X86_REGS [no]
 *   triple=none|0|1     KVM_VCPUEVENT_VALID_TRIPLE_FAULT with triple_fault.pending [none]
 *   intercept=yes|no|others
 *                       L1 intercepts that vector (with vector=2 or nmi=1 NMIs too), or all
 *                       exceptions but that one [no]
 *   cpl=0|3             L2's privilege level [0]
 *   moved=no|before|after
 *                       the vCPU's state goes to a VM that has never run, before or after the
 *                       injection, as in a migration; the kernel must have KVM_SET_NESTED_STATE [no]
 *   pfec_mask=N pfec_match=N    VMX: which #PF error codes that is about [0, 0]
 *   dr7=N               of the level that is active, by KVM_SET_DEBUGREGS [0x400]
 *   debugged=yes|no     userspace debugs the guest: KVM_GUESTDBG_ENABLE, and nothing else of it [no]
 *   old_dr6=none|N      of the level that is active, by KVM_SET_DEBUGREGS [none: DR6_BEFORE]
 *   l2_dr7=N            what L1 gives L2 in its VMCS or VMCB [0x400]
 *   earlier=yes|no      VMX: before, L2 has a #PF of its own that exits to L1 (a write to
 *                       GVA_NOT_MAPPED), and L1 resumes it [no]
 *   long_out=yes|no     L2 leaves to userspace, right before the ioctl, by an OUT of 3 bytes, not of 2
 *                       [no]
 *   first=none|N        an exception of that vector is made pending before, by KVM_SET_VCPU_EVENTS
 *   first_injected=0|1  that exception is injected already, not pending [0]
 *   first_path=         how that exception is made: vcpu-events or guest-debug [vcpu-events]
 *   cr2=none|N dr6=none|N
 *                       if it was accepted, userspace sets that register as well, by KVM_SET_SREGS
 *                       and KVM_SET_DEBUGREGS: an exception without payload leaves it to that [none]
 *   get_set=yes|no      afterwards KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS of what it said [no]
 *   set_regs=yes|no     afterwards KVM_SET_REGS of what KVM_GET_REGS says [no]
 *   cut_short=yes|no    L0 has to map the IDT anew when the exception is delivered: a VM-exit to L0
 *                       cuts the delivery short, and KVM re-injects it [no]
 *   run=yes|no          let the vCPU run on; `no` takes back what was injected before it runs [yes]
 *
 * The answer is {"type":"case","errno","nested_state","guest_mode","cr3","rip","returned":{...},
 * "changed":[...],"earlier":{...},"who","hits":[...],"exit":{...},"cr2","dr6","dr7","kvm_exit",
 * "back"}, or an error line if the case could not be conducted; then {"type":"done","seconds"}:
 *   nested_state  whether the kernel has KVM_GET_NESTED_STATE
 *   guest_mode    whether L2 is on the vCPU right before: it says so, else CR3 does
 *   returned   what KVM_GET_VCPU_EVENTS says of the exception right after the injection
 *   changed    what of the vCPU's state that injection changed
 *   who        L2-handler, L1-handler (an IDT's), L1-exit (a VM-exit), L1-vmfail (L1's VMLAUNCH
 *              fails), nobody (the level went on), shutdown, entry-fails, internal-error, hangs,
 *              not-run
 *   cr2, dr6, dr7  as KVM holds them when the handler or L1 is reached
 *   earlier    L1's log of the VM-exit before, with earlier=yes
 *   back       L2 went on afterwards and left by its CPUID to L1
 * A VM serves case after case; one that did not come back is replaced.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "cpu.h"
#include "helper.h"
#include "json.h"
#include "standalone.h"

#define NONE (~0ULL)	/* the value of a word that says `none` */
#define EXIT_REASON_CPUID_VMX 10
#define EXIT_CODE_CPUID_SVM 0x72
#define DR7_GD (1ULL << 13)
#define PF_VECTOR 14
#define OTHERS 2	/* L1 intercepts all exceptions but the case's */
#define NMI_BIT (1U << 2)

enum { BEFORE = 1, AFTER }; /* moved */
enum { VCPU_EVENTS, SYNC_REGS, GUEST_DEBUG, MCE, NMI };

struct injection {
	uint64_t cap, triple_cap, active, path, vector, injected, pending, code, payload, flag,
		flags, triple, intercept, pfec_mask, pfec_match, dr7, l2_dr7, earlier, long_out,
		first, first_injected, first_path, cr2, dr6, get_set, set_regs, run, keep_flags,
		nmi, interrupt, shadow, with_regs, cpl, moved, old_dr6, cut_short, debugged;
};

static const struct injection nothing_said = {
	.active = 2, .code = NONE, .payload = NONE, .triple = NONE, .first = NONE,
	.cr2 = NONE, .dr6 = NONE, .dr7 = DR7_RESET, .l2_dr7 = DR7_RESET, .run = 1,
	.keep_flags = 1, .nmi = NONE, .interrupt = NONE, .shadow = NONE, .old_dr6 = NONE,
};

static const struct {
	const char *name;
	size_t offset;
} words[] = {
#define WORD(name) { #name, offsetof(struct injection, name) }
	WORD(cap), WORD(triple_cap), WORD(active), WORD(path), WORD(vector), WORD(injected),
	WORD(pending), WORD(code), WORD(payload), WORD(flag), WORD(flags), WORD(triple),
	WORD(intercept), WORD(pfec_mask), WORD(pfec_match), WORD(dr7), WORD(l2_dr7), WORD(earlier),
	WORD(long_out), WORD(first), WORD(first_injected), WORD(first_path), WORD(cr2), WORD(dr6),
	WORD(get_set), WORD(set_regs), WORD(run), WORD(keep_flags), WORD(nmi), WORD(interrupt),
	WORD(shadow), WORD(with_regs), WORD(cpl), WORD(moved), WORD(old_dr6), WORD(cut_short),
	WORD(debugged),
};

static const struct {
	const char *name;
	uint64_t value;
} values[] = {
	{ "none", NONE }, { "off", 0 }, { "on", 1 }, { "no", 0 }, { "yes", 1 },
	{ "others", OTHERS }, { "before", BEFORE }, { "after", AFTER }, { "L1", 1 }, { "L2", 2 },
	{ "vcpu-events", VCPU_EVENTS }, { "sync-regs", SYNC_REGS }, { "guest-debug", GUEST_DEBUG },
	{ "mce", MCE }, { "nmi", NMI },
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static struct standalone_vm vms[4]; /* by capabilities: payload is bit 0, triple fault bit 1 */
static struct vcpu_state before, after;

/* --- reading a case -------------------------------------------------------------------------- */

static bool read_value(const char *text, uint64_t *value)
{
	char *end;

	for (size_t i = 0; i < COUNT(values); i++)
		if (!strcmp(text, values[i].name)) {
			*value = values[i].value;
			return true;
		}
	*value = strtoull(text, &end, 0);
	return end != text && !*end;
}

static bool read_word(struct injection *injection, char *word)
{
	char *equals = strchr(word, '=');

	if (!equals)
		return false;
	*equals = 0;
	for (size_t i = 0; i < COUNT(words); i++)
		if (!strcmp(word, words[i].name))
			return read_value(equals + 1, (uint64_t *)((char *)injection +
								   words[i].offset));
	return false;
}

static bool read_case(char *line, struct injection *injection)
{
	*injection = nothing_said;
	for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
		if (!read_word(injection, word)) {
			json_error(EINVAL, "lib/helper/cases.c lists them", "there is no word %s",
				   word);
			return false;
		}
	return true;
}

/* --- to the place where it is injected ------------------------------------------------------- */

static struct standalone_vm *vm_for(const struct injection *injection)
{
	bool payload = injection->cap, triple = injection->triple_cap;
	struct standalone_vm *vm = &vms[payload + 2 * triple];

	if (vm->up || standalone_up(vm, payload, triple))
		return vm;
	standalone_down(vm);
	return NULL;
}

/* What L1 intercepts: the case's vector, and the #PF that L2 has before. */
static uint32_t exceptions_of(const struct injection *injection)
{
	uint32_t exceptions = injection->earlier ? 1U << PF_VECTOR : 0;
	uint32_t own = injection->vector < 32 ? 1U << injection->vector : 0;

	if (injection->intercept)
		exceptions |= (injection->intercept == OTHERS ? ~own : own) & ~NMI_BIT;
	return exceptions;
}

/* Brings L1, or through it L2, to the instruction before which the injection is made. */
static bool arrive(struct standalone_vm *vm, const struct injection *injection)
{
	bool l2 = injection->active == 2;
	struct standalone_plan plan = {
		.enter_l2 = l2,
		.fault_first = injection->earlier,
		.long_out = injection->long_out,
		.exceptions = exceptions_of(injection),
		.pfec_mask = (uint32_t)injection->pfec_mask,
		.pfec_match = (uint32_t)injection->pfec_match,
		.nmi_exiting = injection->intercept && (injection->vector == 2 || injection->nmi == 1),
		.dr7 = injection->l2_dr7,
		.user = injection->cpl == 3,
	};
	struct standalone_stop stop;

	if (vm->svm && injection->earlier) {
		json_error(EINVAL, NULL, "earlier=yes is for VMX");
		return false;
	}
	if (!standalone_reset(vm, &plan))
		return false;
	stop = standalone_run(vm);
	if (l2 && stop.port == PORT_L1_READY)
		stop = standalone_run(vm);
	if (injection->earlier && stop.port == PORT_EXIT) {
		vmx_keep_exit(vm);
		stop = standalone_run(vm);
	}
	if (stop.port == (l2 ? PORT_L2_READY : PORT_L1_READY))
		return true;
	json_error(stop.error, NULL,
		   "the level does not start: port %#x, KVM exit %u, VM-instruction error or exit %#llx",
		   stop.port, stop.reason,
		   (unsigned long long)*standalone_at(vm, GPA_SHARED + SHARED_LOG));
	return false;
}

/* --- injecting ------------------------------------------------------------------------------- */

/* What the case says; the rest is as KVM_GET_VCPU_EVENTS returned it. */
static struct kvm_vcpu_events events_of(const struct injection *injection,
					const struct kvm_vcpu_events *now)
{
	struct kvm_vcpu_events events = *now;

	events.flags &= ~(uint32_t)(KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
	if (!injection->keep_flags)
		events.flags = 0;
	events.flags |= (uint32_t)injection->flags;
	if (injection->flag)
		events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (injection->triple != NONE) {
		events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
		events.triple_fault.pending = injection->triple != 0;
	}
	events.exception.nr = (uint8_t)injection->vector;
	events.exception.injected = injection->injected != 0;
	events.exception.pending = injection->pending != 0;
	events.exception.has_error_code = injection->code != NONE;
	events.exception.error_code = injection->code == NONE ? 0 : (uint32_t)injection->code;
	events.exception_has_payload = injection->payload != NONE;
	events.exception_payload = injection->payload == NONE ? 0 : injection->payload;
	if (injection->nmi != NONE)
		events.nmi.pending = injection->nmi != 0;
	if (injection->interrupt != NONE) {
		events.interrupt.injected = 1;
		events.interrupt.nr = (uint8_t)injection->interrupt;
	}
	if (injection->shadow != NONE)
		events.interrupt.shadow = (uint8_t)injection->shadow;
	return events;
}

static int sync_regs(struct standalone_vm *vm, const struct kvm_vcpu_events *events, bool with_regs)
{
	int error;

	vm->run->s.regs.events = *events;
	vm->run->kvm_dirty_regs = KVM_SYNC_X86_EVENTS;
	if (with_regs) {
		vm->run->s.regs.regs = before.regs;
		vm->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	}
	error = standalone_settle(vm);
	vm->run->kvm_dirty_regs = 0;
	return error;
}

static int guest_debug(struct standalone_vm *vm, uint64_t vector)
{
	struct kvm_guest_debug debug = {
		.control = vector == 3 ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB,
	};

	return ioctl(vm->vcpu, KVM_SET_GUEST_DEBUG, &debug) == 0 ? 0 : errno;
}

static int machine_check(struct standalone_vm *vm)
{
	struct kvm_x86_mce mce = {
		.status = 1ULL << 63 | 1ULL << 61 | 1ULL << 60, /* VAL UC EN */
		.mcg_status = 1,				/* RIPV */
	};

	return ioctl(vm->vcpu, KVM_X86_SET_MCE, &mce) == 0 ? 0 : errno;
}

static int inject(struct standalone_vm *vm, const struct injection *injection,
		  const struct kvm_vcpu_events *events)
{
	switch (injection->path) {
	case SYNC_REGS:
		return sync_regs(vm, events, injection->with_regs);
	case GUEST_DEBUG:
		return guest_debug(vm, injection->vector);
	case MCE:
		return machine_check(vm);
	case NMI:
		return ioctl(vm->vcpu, KVM_NMI) == 0 ? 0 : errno;
	default:
		return ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, events) == 0 ? 0 : errno;
	}
}

static bool set_debug_registers(struct standalone_vm *vm, const struct injection *injection)
{
	struct kvm_debugregs debugregs;

	if (injection->dr7 == DR7_RESET && injection->old_dr6 == NONE)
		return true;
	if (ioctl(vm->vcpu, KVM_GET_DEBUGREGS, &debugregs) != 0)
		return false;
	debugregs.dr7 = injection->dr7;
	if (injection->old_dr6 != NONE)
		debugregs.dr6 = injection->old_dr6;
	return ioctl(vm->vcpu, KVM_SET_DEBUGREGS, &debugregs) == 0;
}

/* To a VM that takes this one's place. */
static bool move(struct standalone_vm *vm)
{
	struct standalone_vm to = { 0 };
	bool good = standalone_move(vm, &to);

	standalone_down(vm);
	*vm = to;
	return good;
}

static bool debug(struct standalone_vm *vm)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE };

	return ioctl(vm->vcpu, KVM_SET_GUEST_DEBUG, &debug) == 0;
}

static bool make_first(struct standalone_vm *vm, const struct injection *injection)
{
	struct injection first = nothing_said;
	struct kvm_vcpu_events events;

	if (injection->first == NONE)
		return true;
	first.vector = injection->first;
	first.pending = !injection->first_injected;
	first.injected = injection->first_injected;
	first.flag = 1;
	if (ioctl(vm->vcpu, KVM_GET_VCPU_EVENTS, &events) != 0)
		return false;
	events = events_of(&first, &events);
	first.path = injection->first_path;
	return inject(vm, &first, &events) == 0;
}

/* A userspace without payload can tell KVM the new CR2 or DR6 in no other way. */
static bool set_registers(struct standalone_vm *vm, const struct injection *injection)
{
	struct kvm_debugregs debugregs;
	struct kvm_sregs sregs;

	if (injection->cr2 != NONE) {
		if (ioctl(vm->vcpu, KVM_GET_SREGS, &sregs) != 0)
			return false;
		sregs.cr2 = injection->cr2;
		if (ioctl(vm->vcpu, KVM_SET_SREGS, &sregs) != 0)
			return false;
	}
	if (injection->dr6 == NONE)
		return true;
	if (ioctl(vm->vcpu, KVM_GET_DEBUGREGS, &debugregs) != 0)
		return false;
	debugregs.dr6 = injection->dr6;
	return ioctl(vm->vcpu, KVM_SET_DEBUGREGS, &debugregs) == 0;
}

static bool follow_up(struct standalone_vm *vm, const struct injection *injection)
{
	struct kvm_vcpu_events events;
	struct kvm_regs regs;

	if (injection->get_set && (ioctl(vm->vcpu, KVM_GET_VCPU_EVENTS, &events) != 0 ||
				   ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &events) != 0))
		return false;
	return !injection->set_regs || (ioctl(vm->vcpu, KVM_GET_REGS, &regs) == 0 &&
					ioctl(vm->vcpu, KVM_SET_REGS, &regs) == 0);
}

/* --- who gets it ----------------------------------------------------------------------------- */

/* Whether L2 is on the vCPU. Linux 4.12 to 4.19 have no KVM_GET_NESTED_STATE: there CR3 tells. */
static bool guest_mode(const struct vcpu_state *state)
{
	if (state->nested.supported)
		return state->nested.flags & KVM_STATE_NESTED_GUEST_MODE;
	return state->sregs.cr3 == GPA_L2_CR3;
}

static const char *receiver(const struct standalone_stop *stop, bool l2)
{
	if (stop->error == EINTR)
		return "hangs";
	switch (stop->port) {
	case PORT_HIT: return l2 ? "L2-handler" : "L1-handler";
	case PORT_EXIT: return "L1-exit";
	case PORT_FAILED: return "L1-vmfail";
	case PORT_NOTHING: return "nobody";
	}
	switch (stop->reason) {
	case KVM_EXIT_SHUTDOWN: return "shutdown";
	case KVM_EXIT_FAIL_ENTRY: return "entry-fails";
	case KVM_EXIT_INTERNAL_ERROR: return "internal-error";
	default: return "another";
	}
}

/* The handler reads DR6 and DR7 next: with DR7.GD still set that would be another #DB. */
static bool let_record(struct standalone_vm *vm)
{
	struct kvm_debugregs debugregs = after.debugregs;

	if (debugregs.dr7 & DR7_GD) {
		debugregs.dr7 &= ~DR7_GD;
		if (ioctl(vm->vcpu, KVM_SET_DEBUGREGS, &debugregs) != 0)
			return false;
	}
	return standalone_run(vm).port == PORT_RECORDED;
}

/* L2 leaves to L1 by CPUID; then the vCPU is where it can be reset. */
static bool leave_l2(struct standalone_vm *vm)
{
	uint64_t reason;

	if (standalone_run(vm).port != PORT_EXIT)
		return false;
	reason = vm->svm ? *standalone_at(vm, GPA_VMCS + 0x70) : *standalone_at(vm, GPA_SHARED + SHARED_LOG);
	return reason == (vm->svm ? EXIT_CODE_CPUID_SVM : EXIT_REASON_CPUID_VMX);
}

static void print_hits(struct standalone_vm *vm)
{
	uint64_t count = *standalone_at(vm, GPA_SHARED + SHARED_HIT_COUNT);

	json_list("hits");
	for (uint64_t i = 0; i < count && i < 16; i++) {
		uint64_t *hit = standalone_at(vm, GPA_SHARED + SHARED_HITS + (i << HIT_SHIFT));

		json_object(NULL);
		json_number("vector", (long long)hit[HIT_VECTOR / 8]);
		if (hit[HIT_HAS_CODE / 8])
			json_hex("code", hit[HIT_ERROR_CODE / 8]);
		else
			json_null("code");
		json_hex("cr2", hit[HIT_CR2 / 8]);
		json_hex("dr6", hit[HIT_DR6 / 8]);
		json_hex("dr7", hit[HIT_DR7 / 8]);
		json_hex("rip", hit[HIT_RIP / 8]);
		json_hex("cr3", hit[HIT_CR3 / 8]);
		json_close_object();
	}
	json_close_list();
}

static void print_stop(struct standalone_vm *vm, const struct standalone_stop *stop, const char *who)
{
	json_text("who", who);
	json_hex("cr2", after.sregs.cr2);
	json_hex("dr6", after.debugregs.dr6);
	json_hex("dr7", after.debugregs.dr7);
	json_number("kvm_exit", stop->reason);
	if (!strcmp(who, "entry-fails"))
		json_hex("entry_failure", vm->run->fail_entry.hardware_entry_failure_reason);
	if (!strcmp(who, "L1-exit")) {
		json_object("exit");
		if (vm->svm)
			svm_print_exit(vm);
		else
			vmx_print_exit(vm);
		json_close_object();
	}
}

/* Lets the vCPU run until somebody has it, and back to L1. Returns whether the VM can be reused. */
static bool see_who(struct standalone_vm *vm)
{
	struct standalone_stop stop = standalone_run(vm);
	bool good = stop.port >= 0, l2;
	const char *who;

	if (!standalone_read(vm, &after))
		return false;
	l2 = guest_mode(&after);
	who = receiver(&stop, l2);
	print_stop(vm, &stop, who);
	if (stop.port == PORT_HIT)
		good = let_record(vm);
	print_hits(vm);
	if (good && l2)
		good = leave_l2(vm);
	json_bool("back", good);
	return good;
}

/* Takes back what was injected; the level must then go on as if nothing had been. */
static bool take_back(struct standalone_vm *vm)
{
	json_text("who", "not-run");
	if (ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &before.events) != 0 ||
	    standalone_run(vm).port != PORT_NOTHING)
		return false;
	return !guest_mode(&before) || leave_l2(vm);
}

/* --- a case ---------------------------------------------------------------------------------- */

static void print_returned(const struct kvm_vcpu_events *events)
{
	json_object("returned");
	json_number("injected", events->exception.injected);
	json_number("pending", events->exception.pending);
	json_number("vector", events->exception.nr);
	json_number("has_code", events->exception.has_error_code);
	json_hex("code", events->exception.error_code);
	json_number("has_payload", events->exception_has_payload);
	json_hex("payload", events->exception_payload);
	json_number("nmi_pending", events->nmi.pending);
	json_number("triple_fault", events->triple_fault.pending);
	json_close_object();
}

static void print_injection(int error)
{
	json_begin("case");
	json_text("errno", errno_name(error));
	json_bool("nested_state", before.nested.supported);
	json_bool("guest_mode", guest_mode(&before));
	json_hex("cr3", before.sregs.cr3);
	json_hex("rip", before.regs.rip);
	print_returned(&after.events);
	vcpu_print_changes("changed", &before, &after);
}

/* To where the injection is made. Prints an error line and returns false on failure. */
static bool set_up(struct standalone_vm *vm, const struct injection *injection)
{
	return arrive(vm, injection) &&
	       (set_debug_registers(vm, injection) || standalone_fail("KVM_SET_DEBUGREGS")) &&
	       (injection->moved != BEFORE || move(vm)) &&
	       (!injection->debugged || debug(vm) || standalone_fail("KVM_SET_GUEST_DEBUG")) &&
	       (make_first(vm, injection) || standalone_fail("an exception before it")) &&
	       standalone_read(vm, &before);
}

/* Returns whether the VM can be used again. */
static bool conduct(struct standalone_vm *vm, const struct injection *injection)
{
	struct kvm_vcpu_events events;
	bool good;
	int error;

	if (!set_up(vm, injection))
		return false;
	events = events_of(injection, &before.events);
	error = inject(vm, injection, &events);
	if (!standalone_read(vm, &after))
		return false;
	print_injection(error);
	if (injection->earlier)
		vmx_print_kept(vm);
	good = (error || set_registers(vm, injection)) && follow_up(vm, injection) &&
	       (injection->moved != AFTER || move(vm)) &&
	       (!injection->cut_short || standalone_unmap(vm, GPA_IDT));
	if (injection->run) {
		good = see_who(vm) && good;
	} else {
		good = take_back(vm) && good;
		json_bool("back", good);
	}
	json_end();
	return good;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void answer(char *line)
{
	double start = seconds();
	struct injection injection;
	struct standalone_vm *vm;

	if (read_case(line, &injection)) {
		vm = vm_for(&injection);
		if (vm && (!conduct(vm, &injection) || injection.path == MCE))
			standalone_down(vm);
	}
	json_begin("done");
	json_real("seconds", seconds() - start);
	json_end();
}

/* What tells one code era from another; contract/table.py says what each is taken for. */
static const struct {
	const char *name;
	int number;
} capabilities[] = {
#define CAPABILITY(name) { #name, name }
	CAPABILITY(KVM_CAP_EXCEPTION_PAYLOAD), CAPABILITY(KVM_CAP_X86_TRIPLE_FAULT_EVENT),
	CAPABILITY(KVM_CAP_SYNC_REGS), CAPABILITY(KVM_CAP_NESTED_STATE),
	CAPABILITY(KVM_CAP_HYPERV_CPUID), CAPABILITY(KVM_CAP_ASYNC_PF_INT),
};

static void print_head(const struct standalone_vm *vm)
{
	json_begin("cases");
	json_text("format", vm->svm ? "svm" : "vmx");
	json_bool("soft_exceptions", cpu_soft_exceptions());
	json_bool("immediate_exit", vm->immediate_exit);
	if (cpu_any_error_code() == UNKNOWN)
		json_null("any_error_code");
	else
		json_bool("any_error_code", cpu_any_error_code());
	json_bool("tcg", cpu_is_tcg());
	json_bool("cet", cpu_has_cet());
	json_object("caps");
	for (size_t i = 0; i < COUNT(capabilities); i++)
		json_number(capabilities[i].name,
			    ioctl(vm->kvm, KVM_CHECK_EXTENSION, capabilities[i].number));
	json_close_object();
	json_end();
}

int verb_cases(int argc, char **argv)
{
	char line[1024];

	(void)argc;
	(void)argv;
	if (!standalone_up(&vms[0], false, false))
		return FAILED;
	print_head(&vms[0]);
	while (fgets(line, sizeof(line), stdin))
		answer(line);
	for (size_t i = 0; i < COUNT(vms); i++)
		standalone_down(&vms[i]);
	return DONE;
}
