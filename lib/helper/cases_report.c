// SPDX-License-Identifier: GPL-2.0-only
/* What an injection did and who got it; see cases.h, and cases.c for the answer. */
#include <errno.h>
#include <string.h>

#include "cases.h"
#include "json.h"

#define DR7_GD (1ULL << 13)
#define MOST_HITS 16

/* Whether L2 is on the vCPU. Linux 4.12 to 4.19 have no KVM_GET_NESTED_STATE: there CR3 tells. */
static bool guest_mode(const struct vcpu_state *state)
{
	if (state->nested.supported)
		return state->nested.flags & KVM_STATE_NESTED_GUEST_MODE;
	return state->sregs.cr3 == GPA_L2_CR3;
}

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

void report_injection(const struct trial *trial, int error)
{
	const struct vcpu_state *before = &trial->before;

	json_begin("case");
	json_text("errno", errno_name(error));
	json_bool("nested_state", before->nested.supported);
	json_bool("guest_mode", guest_mode(before));
	json_hex("cr3", before->sregs.cr3);
	json_hex("rip", before->regs.rip);
	print_returned(&trial->after.events);
	vcpu_print_changes("changed", before, &trial->after);
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

static void print_exit(const struct standalone_vm *vm)
{
	json_object("exit");
	vm->ops->print_exit(vm);
	json_close_object();
}

static void print_stop(const struct trial *trial, const struct standalone_stop *stop,
		       const char *who)
{
	const struct standalone_vm *vm = trial->vm;

	json_text("who", who);
	json_hex("cr2", trial->after.sregs.cr2);
	json_hex("dr6", trial->after.debugregs.dr6);
	json_hex("dr7", trial->after.debugregs.dr7);
	json_number("kvm_exit", stop->reason);
	if (!strcmp(who, "entry-fails"))
		json_hex("entry_failure", vm->base.run->fail_entry.hardware_entry_failure_reason);
	if (!strcmp(who, "L1-exit"))
		print_exit(vm);
}

static void print_hit(const uint64_t *hit)
{
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

static void print_hits(const struct standalone_vm *vm)
{
	uint64_t count = *standalone_at(vm, GPA_SHARED + SHARED_HIT_COUNT);

	json_list("hits");
	for (uint64_t i = 0; i < count && i < MOST_HITS; i++)
		print_hit(standalone_at(vm, GPA_SHARED + SHARED_HITS + (i << HIT_SHIFT)));
	json_close_list();
}

/* The handler reads DR6 and DR7 next: with DR7.GD still set that would be another #DB. */
static bool let_record(struct trial *trial)
{
	struct kvm_debugregs debugregs = trial->after.debugregs;

	if (debugregs.dr7 & DR7_GD) {
		debugregs.dr7 &= ~DR7_GD;
		if (standalone_ioctl(trial->vm, KVM_SET_DEBUGREGS, &debugregs) != 0)
			return false;
	}
	return standalone_run(trial->vm).port == PORT_RECORDED;
}

/* L2 leaves to L1 by CPUID; then the vCPU is where it can be reset. */
static bool leave_l2(struct standalone_vm *vm)
{
	return standalone_run(vm).port == PORT_EXIT &&
	       vm->ops->exit_reason(vm) == vm->ops->cpuid_exit;
}

bool report_receiver(struct trial *trial)
{
	struct standalone_stop stop = standalone_run(trial->vm);
	bool good = stop.port >= 0, l2;

	if (!standalone_read(trial->vm, &trial->after))
		return false;
	l2 = guest_mode(&trial->after);
	print_stop(trial, &stop, receiver(&stop, l2));
	if (stop.port == PORT_HIT)
		good = let_record(trial);
	print_hits(trial->vm);
	if (good && l2)
		good = leave_l2(trial->vm);
	json_bool("back", good);
	return good;
}

/* The level must then go on as if nothing had been injected. */
static bool take_back(struct trial *trial)
{
	struct standalone_vm *vm = trial->vm;

	if (standalone_ioctl(vm, KVM_SET_VCPU_EVENTS, &trial->before.events) != 0 ||
	    standalone_run(vm).port != PORT_NOTHING)
		return false;
	return !guest_mode(&trial->before) || leave_l2(vm);
}

bool report_taken_back(struct trial *trial)
{
	bool good;

	json_text("who", "not-run");
	good = take_back(trial);
	json_bool("back", good);
	return good;
}
