/* SPDX-License-Identifier: GPL-2.0-only */
/* A bare VM: one vCPU in 64-bit mode on flat memory, for the guests of l2.c and standalone.c. */
#ifndef L2GATE_VM_H
#define L2GATE_VM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flat.h"

/* linux/kvm.h of a distribution may be older than they are. */
#ifndef KVM_CAP_EXCEPTION_PAYLOAD
#define KVM_CAP_EXCEPTION_PAYLOAD 164
#endif
#ifndef KVM_CAP_X86_TRIPLE_FAULT_EVENT
#define KVM_CAP_X86_TRIPLE_FAULT_EVENT 218
#endif

struct vm {
	const char *name, *hint; /* for error lines */
	int kvm, vm, vcpu;
	struct kvm_run *run;
	size_t run_size;
};

/* Guest-physical memory, which is guest-virtual as well. */
struct memory {
	uint8_t *host;
	uint64_t gpa;
	size_t size;
};

/* Where the tables of 64-bit mode lie. */
struct flat {
	uint64_t cr3, gdt, idt, tss;
	uint16_t idt_limit;
};

/* Prints an error line that names errno, and returns false; so do all below that return a bool. */
bool vm_fail(const struct vm *vm, const char *what);

/* A VM without memory or vCPU. */
bool vm_create(struct vm *vm, const char *name, const char *hint);
bool vm_allocate(const struct vm *vm, struct memory *memory);
bool vm_add_memory(const struct vm *vm, uint32_t slot, const struct memory *memory);
/* With all that KVM supports in its CPUID: else the guest has neither 64-bit mode, VMX nor SVM. */
bool vm_create_vcpu(struct vm *vm);
void vm_destroy(struct vm *vm);

/* Whether a guest has SVM, once there was a vCPU. */
bool vm_offers_svm(void);

struct capability {
	const char *name;
	int number;
};

/* What stands in the braces of a struct capability. */
#define CAPABILITY(name) #name, name

/* What KVM_CHECK_EXTENSION says of each, as a JSON object. */
void vm_print_capabilities(const char *key, int kvm, const struct capability *list, size_t count);

uint64_t *memory_at(const struct memory *memory, uint64_t gpa);

enum { PAGE_KERNEL = 3, PAGE_USER = 7 };	  /* present, writable; of CPL 3 too */
enum { GATE_INTERRUPT = 0x8e, GATE_TRAP = 0x8f }; /* a trap gate leaves interrupts on */

/* Identity-maps the first GiB by 2 MiB pages. */
void flat_page_tables(const struct memory *memory, uint64_t pml4, uint64_t pdpt, uint64_t pd,
		      int access);
/* A GDT, and an IDT of `count` gates to stubs of STUB_SIZE (SDM volume 3, figure 6-8). */
void flat_descriptors(const struct memory *memory, const struct flat *flat, int gate,
		      uint64_t stubs, unsigned count);
/* The registers of 64-bit mode at CPL 0; what is not about it stays. */
void flat_sregs(struct kvm_sregs *sregs, const struct flat *flat);

#endif
