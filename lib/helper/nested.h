/* SPDX-License-Identifier: GPL-2.0-only */
/* What VMX and SVM do each in its own way: all that tells them apart in the helper is in here. */
#ifndef L2GATE_NESTED_H
#define L2GATE_NESTED_H

#include <stdbool.h>
#include <stdint.h>

struct standalone_vm;
struct standalone_plan;

struct nested_ops {
	const char *name;	 /* as in answers */
	const char *module;	 /* of KVM */
	const uint8_t *l1_entry; /* where the standalone VM's L1 begins */
	uint64_t l1_cr4, l1_efer;
	uint64_t cpuid_exit; /* the exit reason by which L2 leaves to L1 */

	/*
	 * Whether KVM can deliver #BP and #OF onto any instruction: always on VMX; on SVM with
	 * NRIPS, if kvm_amd uses it (svm.c, svm_update_soft_interrupt_rip,
	 * skip_emulated_instruction before it).
	 */
	bool (*soft_exceptions)(void);

	/* Lets L1 use it, by MSRs. False: errno says why not. */
	bool (*enable)(struct standalone_vm *vm);
	/* Writes what L1 enters L2 with. */
	void (*prepare)(struct standalone_vm *vm, const struct standalone_plan *plan);
	uint64_t (*exit_reason)(const struct standalone_vm *vm);
	/* L1's VM-exit, as members of the JSON object that is open. */
	void (*print_exit)(const struct standalone_vm *vm);

	/* Set L1's VM-exit aside before the next one; NULL where L1 does not resume L2. */
	void (*keep_exit)(const struct standalone_vm *vm);
	void (*print_kept_exit)(const struct standalone_vm *vm);
};

extern const struct nested_ops vmx_ops, svm_ops;

/* Those of this machine's CPU, and those that KVM offers to a vCPU; VMX's if there are neither. */
const struct nested_ops *nested_ops_of_cpu(void);
const struct nested_ops *nested_ops_of_guests(void);

/* "vmx" or "svm", of struct kvm_nested_state's format. */
const char *nested_format_name(uint16_t format);

#endif
