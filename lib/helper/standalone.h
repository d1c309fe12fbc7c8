/* SPDX-License-Identifier: GPL-2.0-only */
/* The helper's own VM: one vCPU, flat memory, an L1 hypervisor of ours and an L2 of ours. */
#ifndef L2GATE_STANDALONE_H
#define L2GATE_STANDALONE_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "standalone_layout.h"
#include "vcpu.h"

/* What L1 does with L2. */
struct standalone_plan {
	bool enter_l2;
	bool fault_first;		/* VMX only: L2 has a #PF, L1 its VM-exit, then resumes L2 */
	bool long_out;			/* L2 says that it is there by an OUT of 3 bytes, not 2 */
	uint32_t exceptions;		/* a bit for each vector that L1 intercepts */
	uint32_t pfec_mask, pfec_match; /* VMX only (SDM volume 3, 26.2, "Exceptions") */
	bool nmi_exiting;
	uint64_t dr7;			/* that L1 gives L2 */
	bool user;			/* L2 begins at CPL 3 */
};

struct standalone_vm {
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
struct standalone_stop {
	int error;			/* errno of KVM_RUN; EINTR: it never left the guest */
	uint32_t reason;		/* kvm_run's exit_reason */
	int port;			/* of an OUT, else -1 */
};

/* Prints an error line that names errno, and returns false. */
bool standalone_fail(const char *what);
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
/* KVM_RUN with immediate_exit, or a signal that waits where there is none: completes what is half done; the guest does not run. */
int standalone_settle(struct standalone_vm *vm);
bool standalone_read(struct standalone_vm *vm, struct vcpu_state *state);

uint64_t *standalone_at(struct standalone_vm *vm, uint64_t where);
uint64_t standalone_symbol(const uint8_t *symbol);

void vmx_prepare(struct standalone_vm *vm, const struct standalone_plan *plan);
void vmx_print_exit(struct standalone_vm *vm);
/* Sets the log of a VM-exit aside, before the next one. */
void vmx_keep_exit(struct standalone_vm *vm);
void vmx_print_kept(struct standalone_vm *vm);
void svm_prepare(struct standalone_vm *vm, const struct standalone_plan *plan);
void svm_print_exit(struct standalone_vm *vm);

#define CR0_FLAT 0x80010033	/* PG WP NE ET MP PE */
#define CR4_FLAT 0x60		/* MCE PAE */
#define CR4_FLAT_VMX 0x2060	/* and VMXE */
#define EFER_FLAT 0x500		/* LMA LME */
#define EFER_FLAT_SVM 0x1500	/* and SVME */
#define DR6_BEFORE 0xffff0ff2 /* B1 of an older #DB, which a new one must clear */
#define DR7_RESET 0x400
#define CR2_BEFORE 0xc2c2c000 /* recognizable if nobody has changed it */

extern const uint8_t standalone_start[], standalone_end[], standalone_l1_vmx[], standalone_l1_vmx_exit[], standalone_l1_svm[], standalone_l2[],
	standalone_stubs[];

#endif
