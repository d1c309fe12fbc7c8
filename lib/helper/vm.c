// SPDX-License-Identifier: GPL-2.0-only
/* See vm.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "json.h"
#include "vm.h"

#define CPUID_ENTRIES 256

/* What KVM supports, asked once: an emulated CPU takes its time over each CPUID. */
static struct {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[CPUID_ENTRIES];
} cpuid;

bool vm_fail(const struct vm *vm, const char *what)
{
	json_error(errno, vm->hint, "%s: %s", vm->name, what);
	return false;
}

bool vm_create(struct vm *vm, const char *name, const char *hint)
{
	*vm = (struct vm){ .name = name, .hint = hint, .vm = -1, .vcpu = -1 };
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		return vm_fail(vm, "opening /dev/kvm");
	vm->vm = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->vm < 0)
		return vm_fail(vm, "KVM_CREATE_VM");
	ioctl(vm->vm, KVM_SET_TSS_ADDR, 0xfffbd000UL); /* Intel wants it; AMD ignores it */
	return true;
}

bool vm_allocate(const struct vm *vm, struct memory *memory)
{
	void *host =
		mmap(NULL, memory->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (host == MAP_FAILED)
		return vm_fail(vm, "its memory");
	memory->host = host;
	return true;
}

bool vm_add_memory(const struct vm *vm, uint32_t slot, const struct memory *memory)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = memory->gpa,
		.memory_size = memory->size,
		.userspace_addr = (uint64_t)memory->host,
	};

	return ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region) == 0 ||
	       vm_fail(vm, "KVM_SET_USER_MEMORY_REGION");
}

/*
 * Addresses of 48 bits, all that the guests use: kernels before 4.14 refuse others
 * (kvm_check_cpuid), though they hand on what the CPU has.
 */
static void clamp(struct kvm_cpuid_entry2 *entry)
{
	enum { LA57 = 1 << 16 };

	if (entry->function == 0x80000008 && (entry->eax >> 8 & 0xff) > 48)
		entry->eax = (entry->eax & ~0xff00U) | 48 << 8;
	if (entry->function == 7)
		entry->ecx &= ~(uint32_t)LA57;
}

static bool set_cpuid(const struct vm *vm)
{
	if (!cpuid.head.nent) {
		cpuid.head.nent = CPUID_ENTRIES;
		if (ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) != 0) {
			cpuid.head.nent = 0;
			return false;
		}
		for (uint32_t i = 0; i < cpuid.head.nent; i++)
			clamp(&cpuid.entries[i]);
	}
	return ioctl(vm->vcpu, KVM_SET_CPUID2, &cpuid) == 0;
}

bool vm_offers_svm(void)
{
	enum { SVM = 1 << 2 };

	for (uint32_t i = 0; i < cpuid.head.nent; i++)
		if (cpuid.entries[i].function == 0x80000001)
			return cpuid.entries[i].ecx & SVM;
	return false;
}

bool vm_create_vcpu(struct vm *vm)
{
	void *run;

	vm->vcpu = ioctl(vm->vm, KVM_CREATE_VCPU, 0);
	if (vm->vcpu < 0)
		return vm_fail(vm, "KVM_CREATE_VCPU");
	vm->run_size = (size_t)ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	if (run == MAP_FAILED)
		return vm_fail(vm, "mapping kvm_run");
	vm->run = run;
	return set_cpuid(vm) || vm_fail(vm, "KVM_SET_CPUID2");
}

void vm_destroy(struct vm *vm)
{
	if (vm->run)
		munmap(vm->run, vm->run_size);
	close(vm->vcpu);
	close(vm->vm);
	close(vm->kvm);
}

void vm_print_capabilities(const char *key, int kvm, const struct capability *list, size_t count)
{
	json_object(key);
	for (size_t i = 0; i < count; i++)
		json_number(list[i].name, ioctl(kvm, KVM_CHECK_EXTENSION, list[i].number));
	json_close_object();
}

uint64_t *memory_at(const struct memory *memory, uint64_t gpa)
{
	return (uint64_t *)(memory->host + (gpa - memory->gpa));
}

void flat_page_tables(const struct memory *memory, uint64_t pml4, uint64_t pdpt, uint64_t pd,
		      int access)
{
	enum { LARGE = 0x80 };
	uint64_t bits = (uint64_t)access;

	*memory_at(memory, pml4) = pdpt | bits;
	*memory_at(memory, pdpt) = pd | bits;
	for (uint64_t i = 0; i < 512; i++)
		memory_at(memory, pd)[i] = i << 21 | LARGE | bits;
}

void flat_descriptors(const struct memory *memory, const struct flat *flat, int gate,
		      uint64_t stubs, unsigned count)
{
	uint64_t *gdt = memory_at(memory, flat->gdt), *idt = memory_at(memory, flat->idt);

	gdt[CODE_SELECTOR / 8] = 0x00af9b000000ffff; /* 64-bit code */
	gdt[DATA_SELECTOR / 8] = 0x00cf93000000ffff;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t to = stubs + i * STUB_SIZE;

		idt[2 * i] = (to & 0xffff) | CODE_SELECTOR << 16 | (uint64_t)gate << 40 |
			     (to & 0xffff0000) << 32;
		idt[2 * i + 1] = to >> 32;
	}
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.db = !code,
		.s = 1,
		.l = code,
		.g = 1,
	};
}

void flat_sregs(struct kvm_sregs *sregs, const struct flat *flat)
{
	struct kvm_segment data = segment(DATA_SELECTOR, 3, false);

	sregs->cs = segment(CODE_SELECTOR, 11, true);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = (struct kvm_segment){
		.base = flat->tss,
		.limit = TSS_LIMIT,
		.selector = TSS_SELECTOR,
		.type = 11,
		.present = 1,
	};
	sregs->ldt = (struct kvm_segment){ .unusable = 1 };
	sregs->gdt = (struct kvm_dtable){ .base = flat->gdt, .limit = GDT_LIMIT };
	sregs->idt = (struct kvm_dtable){ .base = flat->idt, .limit = flat->idt_limit };
	sregs->cr0 = CR0_FLAT;
	sregs->cr3 = flat->cr3;
	sregs->cr4 = CR4_FLAT;
	sregs->efer = EFER_FLAT;
}
