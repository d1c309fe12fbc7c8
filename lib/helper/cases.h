/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the verb `cases` share: cases.c conducts, the others each do one job of it. */
#ifndef L2GATE_CASES_H
#define L2GATE_CASES_H

#include "standalone.h"
#include "words.h"

/* One case on its way. */
struct trial {
	struct standalone_vm *vm;
	const struct injection *injection;
	struct vcpu_state before; /* the injection */
	struct vcpu_state after;  /* it; and once the vCPU ran, when somebody was reached */
};

/*
 * cases_arrive.c: brings the level to where the injection is made, and reads `before`. Prints an
 * error line and returns false on failure.
 */
bool arrive(struct trial *trial);
/* The vCPU's state goes to a VM that has never run, which takes this one's place. */
bool move(struct standalone_vm *vm);

/* cases_inject.c: an errno or 0. */
int inject(struct trial *trial);
/* Another exception first, if the case says so. */
bool inject_first(struct trial *trial);
/* What userspace does once it was accepted or refused (`error`). */
bool follow_up(struct trial *trial, int error);

/* cases_report.c: the beginning of the answer. */
void report_injection(const struct trial *trial, int error);
/*
 * Lets the vCPU run until somebody has it, and back to L1; or takes back what was injected. Goes
 * on with the answer; returns whether the VM can be used again.
 */
bool report_receiver(struct trial *trial);
bool report_taken_back(struct trial *trial);

#endif
