/* SPDX-License-Identifier: GPL-2.0-only */
/* What this machine's CPU is and can do, asked of the CPU: modules differ from kernel to kernel. */
#ifndef L2GATE_CPU_H
#define L2GATE_CPU_H

#include <stdbool.h>
#include <stdint.h>

/* The value of a fact that is not to be had. */
enum { UNKNOWN = -1 };

bool cpu_has_svm(void);
/* Shadow stacks or indirect branch tracking (SDM volume 1 and APM volume 2, chapters 18). */
bool cpu_has_cet(void);
/* QEMU's TCG, which takes more as an exception than a CPU does. */
bool cpu_is_tcg(void);

/* SVM tells the next RIP (APM volume 2, 15.7.1). */
bool cpu_has_nrips(void);

/* Whether a VM entry takes an error code with any vector: IA32_VMX_BASIC, bit 56; 0, 1, UNKNOWN. */
int cpu_any_error_code(void);

#endif
