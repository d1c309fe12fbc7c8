/* SPDX-License-Identifier: GPL-2.0-only */
/* Where things lie in the standalone VM; shared by C and standalone_guest.S. */
#ifndef L2GATE_STANDALONE_LAYOUT_H
#define L2GATE_STANDALONE_LAYOUT_H

/* One slot of memory from 0; guest-physical is guest-virtual, in L1 as in L2. */
#define MEMORY_SIZE 0x40000
#define GPA_L1_CR3 0x1000
#define GPA_PDPT 0x2000
#define GPA_PD 0x3000
#define GPA_L2_CR3 0x4000 /* shares the PDPT; recognizable in the evidence */
#define GPA_GDT 0x5000
#define GPA_IDT 0x6000
#define GPA_TSS 0x7000
#define GPA_L1_STACK 0x9000 /* tops, 16-aligned */
#define GPA_L2_STACK 0xb000
#define GPA_VMXON 0xc000
#define GPA_HOST_SAVE GPA_VMXON /* SVM (APM volume 2, 15.30.4) */
#define GPA_VMCS 0xd000
#define GPA_VMCB GPA_VMCS
#define GPA_VMWRITES 0xe000
#define GPA_VMREADS 0xf000
#define GPA_CODE 0x20000
#define VECTORS 32

#define GVA_NOT_MAPPED 0x40005000

#define IDT_LIMIT (VECTORS * 16 - 1)

/* Fields of the VMCS that L1's code names itself; vmx.h has all others. */
#define FIELD_VM_INSTRUCTION_ERROR 0x4400
#define FIELD_GUEST_RIP 0x681e

/* The shared page. */
#define GPA_SHARED 0x10000
#define SHARED_STAY_IN_L1 0 /* do not enter L2 */
#define SHARED_IN_VMX 8	    /* VMXON has been done */
#define SHARED_L1_CR2 16    /* what L1 reads after a VM-exit */
#define SHARED_L1_DR6 24
#define SHARED_HIT_COUNT 32
#define SHARED_FAULT 40		 /* L2 has a #PF before it says that it is there */
#define SHARED_RESUME 48	 /* L1 resumes L2 after its next VM-exit */
#define SHARED_LONG_OUT 56	 /* L2 says that it is there by a longer OUT */
#define SHARED_LOG 0x100	 /* VMX: the fields in the order of vmx.c */
#define SHARED_EARLIER_LOG 0x200 /* a log set aside */
#define SHARED_HITS 0x400	 /* records of 64 bytes, the first 16 */
#define HIT_SHIFT 6

/* A record of an exception. */
#define HIT_VECTOR 0
#define HIT_HAS_CODE 8
#define HIT_ERROR_CODE 16
#define HIT_CR2 24
#define HIT_DR6 32
#define HIT_DR7 40
#define HIT_RIP 48
#define HIT_CR3 56 /* whose IDT it was: L1's or L2's */

/* Ports, which L1 never intercepts: what L1 and L2 say by an OUT. */
#define PORT_L1_READY 0xe0 /* the next instruction enters L2 */
#define PORT_L2_READY 0xe1
#define PORT_NOTHING 0xe2 /* the level went on: nothing hit it */
#define PORT_HIT 0xe3	  /* an exception came in; debug registers are not read yet */
#define PORT_RECORDED 0xe4
#define PORT_EXIT 0xe5	 /* L1 has a VM-exit */
#define PORT_FAILED 0xe6 /* VMLAUNCH failed */

#endif
