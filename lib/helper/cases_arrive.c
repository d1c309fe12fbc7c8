// SPDX-License-Identifier: GPL-2.0-only
/* To the place where a case injects; see cases.h. */
#include <errno.h>

#include "cases.h"
#include "json.h"

#define NMI_VECTOR 2
#define PF_VECTOR 14
#define EXCEPTIONS 32

/* What L1 intercepts: the case's vector, and the #PF that L2 has before. */
static uint32_t exceptions_of(const struct injection *injection)
{
	uint32_t exceptions = injection->earlier ? 1U << PF_VECTOR : 0;
	uint32_t own = injection->vector < EXCEPTIONS ? 1U << injection->vector : 0;

	if (injection->intercept)
		exceptions |= (injection->intercept == OTHERS ? ~own : own) & ~(1U << NMI_VECTOR);
	return exceptions;
}

static struct standalone_plan plan_of(const struct injection *injection)
{
	bool nmi = injection->vector == NMI_VECTOR || injection->nmi == 1;

	return (struct standalone_plan){
		.enter_l2 = injection->active == L2,
		.fault_first = injection->earlier,
		.long_out = injection->long_out,
		.exceptions = exceptions_of(injection),
		.pfec_mask = (uint32_t)injection->pfec_mask,
		.pfec_match = (uint32_t)injection->pfec_match,
		.nmi_exiting = injection->intercept && nmi,
		.dr7 = injection->l2_dr7,
		.user = injection->cpl == 3,
	};
}

/* Brings L1, or through it L2, to the instruction before which the injection is made. */
static bool start_level(struct standalone_vm *vm, const struct injection *injection)
{
	struct standalone_plan plan = plan_of(injection);
	bool l2 = plan.enter_l2;
	struct standalone_stop stop;

	if (injection->earlier && !vm->ops->keep_exit) {
		json_error(EINVAL, NULL, "earlier=yes is not for %s", vm->ops->name);
		return false;
	}
	if (!standalone_reset(vm, &plan))
		return false;
	stop = standalone_run(vm);
	if (l2 && stop.port == PORT_L1_READY)
		stop = standalone_run(vm);
	if (injection->earlier && stop.port == PORT_EXIT) {
		vm->ops->keep_exit(vm);
		stop = standalone_run(vm);
	}
	if (stop.port == (l2 ? PORT_L2_READY : PORT_L1_READY))
		return true;
	json_error(stop.error, NULL,
		   "the level does not start: port %#x, KVM exit %u, VM-instruction error or exit "
		   "%#llx",
		   stop.port, stop.reason,
		   (unsigned long long)*standalone_at(vm, GPA_SHARED + SHARED_LOG));
	return false;
}

static bool set_debug_registers(struct standalone_vm *vm, const struct injection *injection)
{
	struct kvm_debugregs debugregs;

	if (injection->dr7 == DR7_RESET && injection->old_dr6 == NONE)
		return true;
	if (standalone_ioctl(vm, KVM_GET_DEBUGREGS, &debugregs) != 0)
		return false;
	debugregs.dr7 = injection->dr7;
	if (injection->old_dr6 != NONE)
		debugregs.dr6 = injection->old_dr6;
	return standalone_ioctl(vm, KVM_SET_DEBUGREGS, &debugregs) == 0;
}

bool move(struct standalone_vm *vm)
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

	return standalone_ioctl(vm, KVM_SET_GUEST_DEBUG, &debug) == 0;
}

bool arrive(struct trial *trial)
{
	const struct injection *injection = trial->injection;
	struct standalone_vm *vm = trial->vm;

	return start_level(vm, injection) &&
	       (set_debug_registers(vm, injection) || standalone_fail(vm, "KVM_SET_DEBUGREGS")) &&
	       (injection->moved != BEFORE || move(vm)) &&
	       (!injection->debugged || debug(vm) || standalone_fail(vm, "KVM_SET_GUEST_DEBUG")) &&
	       (inject_first(trial) || standalone_fail(vm, "an exception before it")) &&
	       standalone_read(vm, &trial->before);
}
