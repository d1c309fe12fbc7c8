/* SPDX-License-Identifier: GPL-2.0-only */
/* The standalone VM: one vCPU, flat memory, an L1 hypervisor of ours and an L2 of ours. */
#ifndef L2GATE_STANDALONE_H
#define L2GATE_STANDALONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nested.h"
#include "standalone_layout.h"
#include "vcpu.h"
#include "vm.h"
#include "words.h"

/* What L1 does with L2. */
struct standalone_plan {
	bool enter_l2;
	bool fault_first;    /* VMX only: L2 has a #PF, L1 its VM-exit, then resumes L2 */
	bool long_out;	     /* L2 says that it is there by an OUT of 3 bytes, not 2 */
	uint32_t exceptions; /* a bit for each vector that L1 intercepts */
	uint32_t pfec_mask, pfec_match; /* VMX only (SDM volume 3, 26.2, "Exceptions") */
	bool nmi_exiting;
	uint64_t dr7; /* that L1 gives L2 */
	bool user;    /* L2 begins at CPL 3 */
};

/* What the CPU says of its VMCS; of pin, primary, exit and entry controls: must be 1, may be 1. */
struct vmx_state {
	bool vmcs_written; /* what is the same for every case */
	uint32_t vmcs_revision;
	uint32_t must_be_1[4], may_be_1[4];
};

struct standalone_vm {
	bool up;
	struct vm base;
	struct memory memory;
	const struct nested_ops *ops;
	bool payload, triple_fault; /* capabilities that were enabled */
	bool immediate_exit;	    /* struct kvm_run has it: since 4.11, not in 4.9 and RHEL 7 */
	struct vmx_state vmx;
};

/* How a stretch of running came to its end. */
struct standalone_stop {
	int error;	 /* errno of KVM_RUN; EINTR: it never left the guest */
	uint32_t reason; /* kvm_run's exit_reason */
	int port;	 /* of an OUT, else -1 */
};

/* Prints an error line that names errno, and returns false. */
bool standalone_fail(const struct standalone_vm *vm, const char *what);
/* Both print an error line and return false on failure. */
bool standalone_up(struct standalone_vm *vm, bool payload, bool triple_fault);
/* Puts the vCPU back to L1's first instruction, with nothing in flight. */
bool standalone_reset(struct standalone_vm *vm, const struct standalone_plan *plan);
void standalone_down(struct standalone_vm *vm);
/*
 * Migration: takes the vCPU's state out of `from` and puts it into `to`, a VM that has never run.
 * `from` is gone afterwards; `to` has its memory. On failure both are to be taken down.
 */
bool standalone_move(struct standalone_vm *from, struct standalone_vm *to);
/* L0 has to map that page anew when it is used next, which is a VM-exit to L0. */
bool standalone_unmap(struct standalone_vm *vm, uint64_t page);

/* Runs until the guest says something or KVM gives up, and completes an OUT. */
struct standalone_stop standalone_run(struct standalone_vm *vm);
/*
 * KVM_RUN with immediate_exit, or a signal that waits where there is none: completes what is half
 * done; the guest does not run. Returns an errno or 0.
 */
int standalone_settle(struct standalone_vm *vm);
bool standalone_read(struct standalone_vm *vm, struct vcpu_state *state);

/* ioctl on the vCPU: an errno or 0. */
int standalone_ioctl(const struct standalone_vm *vm, unsigned long request, void *argument);
bool standalone_set_msr(const struct standalone_vm *vm, uint32_t index, uint64_t value);
bool standalone_get_msr(const struct standalone_vm *vm, uint32_t index, uint64_t *value);

uint64_t *standalone_at(const struct standalone_vm *vm, uint64_t where);
uint64_t standalone_symbol(const uint8_t *symbol);

#define DR7_RESET 0x400

extern const uint8_t standalone_start[], standalone_end[], standalone_l1_vmx[],
	standalone_l1_vmx_exit[], standalone_l1_svm[], standalone_l2[], standalone_stubs[];

#endif
