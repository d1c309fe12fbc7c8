/* SPDX-License-Identifier: GPL-2.0-only */
/* What both guests of ours have in common, in C and in assembly: 64-bit mode on flat memory. */
#ifndef L2GATE_FLAT_H
#define L2GATE_FLAT_H

#define CODE_SELECTOR 0x08
#define DATA_SELECTOR 0x10
#define TSS_SELECTOR 0x18
#define GDT_LIMIT 0x2f
#define TSS_LIMIT 0x67

#define STUB_SIZE 16 /* of an entry of the IDT's code */

#define CR0_FLAT 0x80010033  /* PG WP NE ET MP PE */
#define CR4_FLAT 0x60	     /* MCE PAE: without MCE a machine check would be a shutdown */
#define CR4_FLAT_VMX 0x2060  /* and VMXE */
#define EFER_FLAT 0x500	     /* LMA LME */
#define EFER_FLAT_SVM 0x1500 /* and SVME */

/*
 * Interrupts on, though none ever come (the VM has no interrupt controller): Bochs does not leave a
 * guest that was entered with IF=0 for an external interrupt, and L0 would get no timer.
 */
#define RFLAGS_FLAT 0x202
#define RFLAGS_FLAT_USER 0x3202 /* and IOPL 3, for OUT at CPL 3 */

#endif
