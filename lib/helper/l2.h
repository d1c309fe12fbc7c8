/* SPDX-License-Identifier: GPL-2.0-only */
/* Where things lie in the tiny L2's memory; shared by l2.c and l2_guest.S. */
#ifndef L2GATE_L2_H
#define L2GATE_L2_H

/* Data: guest-physical is guest-virtual. */
#define L2_DATA 0xd10000
#define L2_DATA_SIZE 0x20000
#define L2_GDT 0xd10000
#define L2_IDT 0xd11000
#define L2_TSS 0xd12000
#define L2_STACK_TOP 0xd14f00 /* 16-aligned */
#define L2_CR3 0xd15000	      /* recognizable: nobody else's page tables are there */
#define L2_SHARED 0xd20000

/* Code, and the registers that L2 alone has. */
#define L2_CODE 0xc0de000
#define L2_CODE_SIZE 0x4000
#define L2_R15 0x6c32676174654c32 /* "l2gateL2" */
#define L2_R14 0x4c32

/* The shared page. */
#define L2_HEARTBEAT 0
#define L2_HITS 8	  /* how many exceptions there were */
#define L2_TRAP 16	  /* from which heartbeat on it executes one INT3; -1: never */
#define L2_ORDER 0x40	  /* the vectors of the last 16 */
#define L2_RECORDS 0x1000 /* one of 64 bytes for each vector */
#define L2_RECORD_SHIFT 6

/* A record. */
#define L2_COUNT 0
#define L2_HAS_CODE 8
#define L2_CODE_VALUE 16
#define L2_CR2 24
#define L2_DR6 32
#define L2_RIP 40

#endif
