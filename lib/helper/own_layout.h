/* SPDX-License-Identifier: GPL-2.0-only */
/* Where things lie in the helper's own VM; shared by own*.c and own_guest.S. */
#ifndef L2GATE_OWN_LAYOUT_H
#define L2GATE_OWN_LAYOUT_H

/* One slot of memory from 0; guest-physical is guest-virtual, in L1 as in L2. */
#define OWN_MEMORY 0x40000
#define OWN_L1_CR3 0x1000
#define OWN_PDPT 0x2000
#define OWN_PD 0x3000
#define OWN_L2_CR3 0x4000 /* shares the PDPT; recognizable in the evidence */
#define OWN_GDT 0x5000
#define OWN_IDT 0x6000
#define OWN_TSS 0x7000
#define OWN_L1_STACK 0x9000 /* tops, 16-aligned */
#define OWN_L2_STACK 0xb000
#define OWN_VMXON 0xc000 /* SVM: the host save area */
#define OWN_VMCS 0xd000	 /* SVM: the VMCB */
#define OWN_WRITES 0xe000
#define OWN_READS 0xf000
#define OWN_CODE 0x20000
#define OWN_STUB_SIZE 16
#define OWN_VECTORS 32

#define OWN_FAULT_ADDRESS 0x40005000 /* not mapped */

#define OWN_GDT_LIMIT 0x2f
#define OWN_IDT_LIMIT (OWN_VECTORS * 16 - 1)
#define OWN_CODE_SELECTOR 8
#define OWN_DATA_SELECTOR 0x10
#define OWN_TSS_SELECTOR 0x18

/* The shared page. */
#define OWN_SHARED 0x10000
#define OWN_STAY_IN_L1 0 /* do not enter L2 */
#define OWN_IN_VMX 8	 /* VMXON has been done */
#define OWN_L1_CR2 16	 /* what L1 reads after a VM-exit */
#define OWN_L1_DR6 24
#define OWN_HIT_COUNT 32
#define OWN_FAULT 40	 /* L2 has a #PF before it says that it is there */
#define OWN_RESUME 48	 /* L1 resumes L2 after its next VM-exit */
#define OWN_LONG_OUT 56	 /* L2 says that it is there by a longer OUT */
#define OWN_LOG 0x100  /* VMX: the fields in the order of own_vmx.c */
#define OWN_KEPT 0x200 /* a log set aside */
#define OWN_HITS 0x400 /* records of 64 bytes, the first 16 */
#define OWN_HIT_SHIFT 6

/* A record of an exception. */
#define OWN_VECTOR 0
#define OWN_HAS_CODE 8
#define OWN_ERROR_CODE 16
#define OWN_CR2 24
#define OWN_DR6 32
#define OWN_DR7 40
#define OWN_RIP 48
#define OWN_CR3 56 /* whose IDT it was: L1's or L2's */

/* Ports, which L1 never intercepts: what L1 and L2 say by an OUT. */
#define OWN_PORT_L1_READY 0xe0 /* the next instruction enters L2 */
#define OWN_PORT_L2_READY 0xe1
#define OWN_PORT_NOTHING 0xe2 /* the level went on: nothing hit it */
#define OWN_PORT_HIT 0xe3     /* an exception came in; debug registers are not read yet */
#define OWN_PORT_RECORDED 0xe4
#define OWN_PORT_EXIT 0xe5   /* L1 has a VM-exit */
#define OWN_PORT_FAILED 0xe6 /* VMLAUNCH failed */

/*
 * Interrupts on, though none ever come (the VM has no interrupt controller): Bochs does not leave a
 * guest that was entered with IF=0 for an external interrupt, and L0 would get no timer.
 */
#define OWN_RFLAGS 0x202
#define OWN_RFLAGS_USER 0x3202 /* and IOPL 3, for OUT at CPL 3 */

#endif
