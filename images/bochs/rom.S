/* SPDX-License-Identifier: MIT */
/*
 * The ROM of the emulated Intel machine, at 0xc0000. It stands in for a boot loader: the kernel is
 * in RAM at power-on, unpacked, so nothing is read from a disk and nothing is unpacked.
 *
 * Two option ROMs in one image. The BIOS calls the first where it looks for a VGA BIOS, and the
 * second when the machine is set up.
 *
 * Bochs gives RAM to the guest in blocks, in the order in which they are first touched, but puts an
 * image file into one piece of its own memory. So that it is known which block is where, the first
 * ROM touches them from the lowest up. By then the BIOS has touched two: the lowest, and the
 * highest, where its ACPI tables are.
 *
 * What the controller leaves at HANDOVER (lib/l2gate/hosts/emulated/ramboot.py writes it):
 */
#define HANDOVER 0x100000
#define MAGIC 0		/* the value that also stands at END */
#define END 8		/* physical address of the image's last 8 bytes */
#define PAGES 16	/* CR3: identity-maps the first 4 GiB */
#define PARAMETERS 24	/* struct boot_params */
#define ENTRY 32	/* the kernel's 64-bit entry */

#define BLOCK 0x800000	/* Bochs' memory blocks (its option block_size), bytes */
#define ROM 0xc0000
#define SECOND 0x8000	/* the second ROM's offset: the BIOS looks for VGA below it */
#define AT(label) (ROM + label - rom)

	.code16
	.text
	.globl _start
_start:
rom:
	.byte 0x55, 0xaa, 1	/* 512 bytes */
	jmp touch
	.balign 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff	/* 0x08: 32-bit code */
	.quad 0x00af9b000000ffff	/* 0x10: 64-bit code, as the boot protocol wants it */
	.quad 0x00cf93000000ffff	/* 0x18: data */
gdt_descriptor:
	.word gdt_descriptor - gdt - 1
	.long AT(gdt)

touch:
	pushal
	pushw %ds
	cli
	lgdtl %cs:(gdt_descriptor - rom)
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	mov $0x18, %bx
	mov %bx, %ds		/* its limit of 4 GiB outlives protected mode */
	and $0xfe, %al
	mov %eax, %cr0
	xor %ax, %ax
	mov %ax, %ds
	mov $HANDOVER, %ebx
	mov END(%ebx), %ecx
	xor %esi, %esi
1:	movb (%esi), %al
	add $BLOCK, %esi
	cmp %ecx, %esi
	jbe 1b
	popw %ds
	popal
	lretw

	.org SECOND
	.byte 0x55, 0xaa, 1
	jmp boot
boot:
	cli
	cld
	lgdtl %cs:(1f - rom - SECOND)
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $0x08, $AT(protected)
1:	.word gdt_descriptor - gdt - 1
	.long AT(gdt)

	.code32
protected:
	mov $0x18, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $HANDOVER, %ebx
	mov END(%ebx), %ecx
	mov MAGIC(%ebx), %eax
	test %eax, %eax
	jz tell
	mov $AT(words), %esi
	cmp %eax, (%ecx)
	jne say		/* the image is not where it should be */
	mov %cr4, %eax
	or $0x20, %eax		/* PAE */
	mov %eax, %cr4
	mov PAGES(%ebx), %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	ljmpl $0x10, $AT(long_mode)

/* No image was given: l2gate only wants to know whether this CPU has VMX (CPUID.1:ECX bit 5). */
tell:
	mov $1, %eax
	cpuid
	mov $AT(vmx), %esi
	test $0x20, %ecx
	jnz say
	mov $AT(no_vmx), %esi

/* Writes the text at esi to the serial port, and stops. */
say:
	mov $0x3fb, %edx	/* line control: the divisor is 1, then 8 bits, no parity */
	mov $0x80, %al
	outb %al, %dx
	mov $0x3f9, %edx
	xor %eax, %eax
	outb %al, %dx
	mov $0x3f8, %edx
	inc %eax
	outb %al, %dx
	mov $0x3fb, %edx
	mov $3, %al
	outb %al, %dx
	mov $0x3f8, %edx
2:	add $5, %edx		/* wait until the line is free */
	inb %dx, %al
	sub $5, %edx
	test $0x20, %al
	jz 2b
	lodsb
	test %al, %al
	jz 3f
	outb %al, %dx
	jmp 2b
3:	hlt
	jmp 3b
words:
	.asciz "l2gate: the RAM image went astray\n"
vmx:
	.asciz "l2gate: VMX\n"
no_vmx:
	.asciz "l2gate: no VMX\n"

	.code64
long_mode:
	mov PARAMETERS(%rbx), %rsi
	jmp *ENTRY(%rbx)

	.org SECOND + 512
