/* SPDX-License-Identifier: GPL-2.0-only */
/* What this machine's CPU is and can do, asked of the CPU: modules differ from kernel to kernel. */
#ifndef L2GATE_CPU_H
#define L2GATE_CPU_H

#include <stdbool.h>
#include <stdint.h>

/* The value of a fact that is not to be had. */
enum { UNKNOWN = -1 };

bool cpu_has_svm(void);
/* Shadow stacks or indirect branch tracking (SDM volume 1, chapter 18; APM volume 2, chapter 18). */
bool cpu_has_cet(void);
/* QEMU's TCG, which takes more as an exception than a CPU does. */
bool cpu_is_tcg(void);

/*
 * Whether KVM can deliver #BP and #OF onto any instruction: always on VMX; on SVM with NRIPS, if
 * kvm_amd uses it (svm.c, svm_update_soft_interrupt_rip, skip_emulated_instruction before it).
 */
bool cpu_soft_exceptions(void);

/* Whether a VM entry takes an error code with any vector: IA32_VMX_BASIC, bit 56; 0, 1, UNKNOWN. */
int cpu_any_error_code(void);

/* kvm_intel or kvm_amd, whichever this CPU needs, if it is there; else NULL. */
const char *cpu_kvm_module(void);

#endif
