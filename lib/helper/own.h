/* SPDX-License-Identifier: GPL-2.0-only */
/* The helper's own VM: one vCPU, flat memory, an L1 hypervisor of ours and an L2 of ours. */
#ifndef L2GATE_OWN_H
#define L2GATE_OWN_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "own_layout.h"
#include "vcpu.h"

/* What L1 does with L2. */
struct own_plan {
	bool enter_l2;
	bool fault_first;		/* VMX only: L2 has a #PF, L1 its VM-exit, then resumes L2 */
	bool long_out;			/* L2 says that it is there by an OUT of 3 bytes, not 2 */
	uint32_t exceptions;		/* a bit for each vector that L1 intercepts */
	uint32_t pfec_mask, pfec_match; /* VMX only (SDM volume 3, 26.2, "Exceptions") */
	bool nmi_exiting;
	uint64_t dr7;			/* that L1 gives L2 */
	bool user;			/* L2 begins at CPL 3 */
};

struct own_vm {
	bool up, svm;
	bool payload, triple_fault;	/* capabilities that were enabled */
	bool immediate_exit;		/* struct kvm_run has it: since 4.11, not in 4.9 and RHEL 7 */
	bool vmcs_written;		/* what is the same for every case */
	int kvm, vm, vcpu;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *memory;
	uint32_t vmcs_revision;
	uint32_t vmx_low[4], vmx_high[4]; /* pin, primary, exit, entry: must be 1, may be 1 */
};

/* How a stretch of running came to its end. */
struct own_stop {
	int error;			/* errno of KVM_RUN; EINTR: it never left the guest */
	uint32_t reason;		/* kvm_run's exit_reason */
	int port;			/* of an OUT, else -1 */
};

/* Prints an error line that names errno, and returns false. */
bool own_fail(const char *what);
/* Both print an error line and return false on failure. */
bool own_up(struct own_vm *vm, bool payload, bool triple_fault);
/* Puts the vCPU back to L1's first instruction, with nothing in flight. */
bool own_reset(struct own_vm *vm, const struct own_plan *plan);
void own_down(struct own_vm *vm);
/*
 * Migration: takes the vCPU's state out of `from` and puts it into `to`, a VM that has never run.
 * `from` is gone afterwards; `to` has its memory. On failure both are to be taken down.
 */
bool own_move(struct own_vm *from, struct own_vm *to);
/* L0 has to map that page anew when it is used next, which is a VM-exit to L0. */
bool own_unmap(struct own_vm *vm, uint64_t page);

/* Runs until the guest says something or KVM gives up, and completes an OUT. */
struct own_stop own_run(struct own_vm *vm);
/* KVM_RUN with immediate_exit, or a signal that waits where there is none: completes what is half done; the guest does not run. */
int own_settle(struct own_vm *vm);
bool own_read(struct own_vm *vm, struct vcpu_state *state);

uint64_t *own_at(struct own_vm *vm, uint64_t where);
uint64_t own_symbol(const uint8_t *symbol);

void own_vmx_prepare(struct own_vm *vm, const struct own_plan *plan);
void own_vmx_print_exit(struct own_vm *vm);
/* Sets the log of a VM-exit aside, before the next one. */
void own_vmx_keep_exit(struct own_vm *vm);
void own_vmx_print_kept(struct own_vm *vm);
void own_svm_prepare(struct own_vm *vm, const struct own_plan *plan);
void own_svm_print_exit(struct own_vm *vm);

#define OWN_CR0 0x80010033	/* PG WP NE ET MP PE */
#define OWN_CR4 0x60		/* MCE PAE */
#define OWN_CR4_VMX 0x2060	/* and VMXE */
#define OWN_EFER 0x500		/* LMA LME */
#define OWN_EFER_SVM 0x1500	/* and SVME */
#define OWN_DR6_BEFORE 0xffff0ff2 /* B1 of an older #DB, which a new one must clear */
#define OWN_DR7_RESET 0x400
#define OWN_CR2_RESET 0xc2c2c000 /* recognizable if nobody has changed it */

extern const uint8_t own_start[], own_end[], own_l1_vmx[], own_l1_vmx_exit[], own_l1_svm[], own_l2[],
	own_stubs[];

#endif
