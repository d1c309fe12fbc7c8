// SPDX-License-Identifier: GPL-2.0-only
/* What userspace hands to KVM, and what it does afterwards; see cases.h. */
#include "cases.h"

#define BP_VECTOR 3

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

static int sync_regs(struct standalone_vm *vm, const struct kvm_vcpu_events *events,
		     const struct kvm_regs *regs)
{
	struct kvm_run *run = vm->base.run;
	int error;

	run->s.regs.events = *events;
	run->kvm_dirty_regs = KVM_SYNC_X86_EVENTS;
	if (regs) {
		run->s.regs.regs = *regs;
		run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	}
	error = standalone_settle(vm);
	run->kvm_dirty_regs = 0;
	return error;
}

static int guest_debug(struct standalone_vm *vm, uint64_t vector)
{
	struct kvm_guest_debug debug = {
		.control = vector == BP_VECTOR ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB,
	};

	return standalone_ioctl(vm, KVM_SET_GUEST_DEBUG, &debug);
}

static int machine_check(struct standalone_vm *vm)
{
	struct kvm_x86_mce mce = {
		.status = 1ULL << 63 | 1ULL << 61 | 1ULL << 60, /* VAL UC EN */
		.mcg_status = 1,				/* RIPV */
	};

	return standalone_ioctl(vm, KVM_X86_SET_MCE, &mce);
}

/* `now`: what the vCPU holds. */
static int inject_into(struct standalone_vm *vm, const struct injection *injection,
		       const struct kvm_vcpu_events *now, const struct kvm_regs *regs)
{
	struct kvm_vcpu_events events = events_of(injection, now);

	switch (injection->path) {
	case SYNC_REGS: return sync_regs(vm, &events, injection->with_regs ? regs : NULL);
	case GUEST_DEBUG: return guest_debug(vm, injection->vector);
	case MCE: return machine_check(vm);
	case NMI: return standalone_ioctl(vm, KVM_NMI, NULL);
	default: return standalone_ioctl(vm, KVM_SET_VCPU_EVENTS, &events);
	}
}

int inject(struct trial *trial)
{
	return inject_into(trial->vm, trial->injection, &trial->before.events, &trial->before.regs);
}

bool inject_first(struct trial *trial)
{
	const struct injection *injection = trial->injection;
	struct injection first = defaults;
	struct kvm_vcpu_events now;

	if (injection->first == NONE)
		return true;
	first.vector = injection->first;
	first.pending = !injection->first_injected;
	first.injected = injection->first_injected;
	first.flag = 1;
	first.path = injection->first_path;
	return standalone_ioctl(trial->vm, KVM_GET_VCPU_EVENTS, &now) == 0 &&
	       inject_into(trial->vm, &first, &now, NULL) == 0;
}

/* A userspace without payload can tell KVM the new CR2 or DR6 in no other way. */
static bool set_registers(struct standalone_vm *vm, const struct injection *injection)
{
	struct kvm_debugregs debugregs;
	struct kvm_sregs sregs;

	if (injection->cr2 != NONE) {
		if (standalone_ioctl(vm, KVM_GET_SREGS, &sregs) != 0)
			return false;
		sregs.cr2 = injection->cr2;
		if (standalone_ioctl(vm, KVM_SET_SREGS, &sregs) != 0)
			return false;
	}
	if (injection->dr6 == NONE)
		return true;
	if (standalone_ioctl(vm, KVM_GET_DEBUGREGS, &debugregs) != 0)
		return false;
	debugregs.dr6 = injection->dr6;
	return standalone_ioctl(vm, KVM_SET_DEBUGREGS, &debugregs) == 0;
}

static bool get_and_set(struct standalone_vm *vm, const struct injection *injection)
{
	struct kvm_vcpu_events events;
	struct kvm_regs regs;

	if (injection->get_set && (standalone_ioctl(vm, KVM_GET_VCPU_EVENTS, &events) != 0 ||
				   standalone_ioctl(vm, KVM_SET_VCPU_EVENTS, &events) != 0))
		return false;
	return !injection->set_regs || (standalone_ioctl(vm, KVM_GET_REGS, &regs) == 0 &&
					standalone_ioctl(vm, KVM_SET_REGS, &regs) == 0);
}

bool follow_up(struct trial *trial, int error)
{
	const struct injection *injection = trial->injection;
	struct standalone_vm *vm = trial->vm;

	return (error || set_registers(vm, injection)) && get_and_set(vm, injection) &&
	       (injection->moved != AFTER || move(vm)) &&
	       (!injection->cut_short || standalone_unmap(vm, GPA_IDT));
}
