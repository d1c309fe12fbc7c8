// SPDX-License-Identifier: GPL-2.0-only
/*
 * cases
 *
 * Conducts cases on standalone VMs (standalone.h): an L1 hypervisor of ours that intercepts exactly
 * what a case says, and an L2 of ours. It prints
 *   {"type":"cases","format":"vmx"|"svm","soft_exceptions","immediate_exit","any_error_code","tcg",
 *    "cet","caps":{...}}
 * and then answers each line of stdin, one case, with one line. A case is made of words NAME=VALUE,
 * which words.def lists; `l2gate-helper help cases` prints them.
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
#include "cases.h"

#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cpu.h"
#include "helper.h"
#include "json.h"

static struct standalone_vm vms[4]; /* by capabilities: payload is bit 0, triple fault bit 1 */

static struct standalone_vm *vm_for(const struct injection *injection)
{
	bool payload = injection->cap, triple = injection->triple_cap;
	struct standalone_vm *vm = &vms[payload + 2 * triple];

	if (vm->up || standalone_up(vm, payload, triple))
		return vm;
	standalone_down(vm);
	return NULL;
}

static void print_earlier(const struct standalone_vm *vm)
{
	json_object("earlier");
	vm->ops->print_kept_exit(vm);
	json_close_object();
}

/* Returns whether the VM can be used again. */
static bool conduct(struct standalone_vm *vm, const struct injection *injection)
{
	static struct trial trial;
	bool good;
	int error;

	trial.vm = vm;
	trial.injection = injection;
	if (!arrive(&trial))
		return false;
	error = inject(&trial);
	if (!standalone_read(vm, &trial.after))
		return false;
	report_injection(&trial, error);
	if (injection->earlier)
		print_earlier(vm);
	good = follow_up(&trial, error);
	good = (injection->run ? report_receiver(&trial) : report_taken_back(&trial)) && good;
	json_end();
	return good;
}

static void answer(char *line)
{
	struct injection injection;
	struct standalone_vm *vm;
	double start = seconds();

	if (read_case(line, &injection)) {
		vm = vm_for(&injection);
		if (vm && (!conduct(vm, &injection) || injection.path == MCE))
			standalone_down(vm);
	}
	json_begin("done");
	json_real("seconds", seconds() - start);
	json_end();
}

/* What tells one code era from another; l2gate/contract/eras.py says what each is taken for. */
static const struct capability capabilities[] = {
	{ CAPABILITY(KVM_CAP_EXCEPTION_PAYLOAD) }, { CAPABILITY(KVM_CAP_X86_TRIPLE_FAULT_EVENT) },
	{ CAPABILITY(KVM_CAP_SYNC_REGS) },	   { CAPABILITY(KVM_CAP_NESTED_STATE) },
	{ CAPABILITY(KVM_CAP_HYPERV_CPUID) },	   { CAPABILITY(KVM_CAP_ASYNC_PF_INT) },
};

static void print_head(const struct standalone_vm *vm)
{
	json_begin("cases");
	json_text("format", vm->ops->name);
	json_bool("soft_exceptions", nested_ops_of_cpu()->soft_exceptions());
	json_bool("immediate_exit", vm->immediate_exit);
	if (cpu_any_error_code() == UNKNOWN)
		json_null("any_error_code");
	else
		json_bool("any_error_code", cpu_any_error_code());
	json_bool("tcg", cpu_is_tcg());
	json_bool("cet", cpu_has_cet());
	vm_print_capabilities("caps", vm->base.kvm, capabilities, COUNT(capabilities));
	json_end();
}

/* Whether a request waits already: then the answer so far may wait for the next. */
static bool more_comes(void)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&in, 1, 0) == 1 && in.revents & POLLIN;
}

int verb_cases(int argc, char **argv)
{
	static char lines[1 << 16];
	char line[1024];

	(void)argc;
	(void)argv;
	if (!standalone_up(&vms[0], false, false))
		return FAILED;
	print_head(&vms[0]);
	setvbuf(stdout, lines, _IOFBF, sizeof(lines));
	while (fgets(line, sizeof(line), stdin)) {
		json_hold(true);
		answer(line);
		json_hold(more_comes());
	}
	for (size_t i = 0; i < COUNT(vms); i++)
		standalone_down(&vms[i]);
	return DONE;
}
