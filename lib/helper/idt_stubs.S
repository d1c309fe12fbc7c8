/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Included by the code of both guests: the entries of an IDT. Each pushes its vector and goes to
 * `common`.
 *
 * An injection may or may not come with an error code, whatever the vector. The stack tells: the
 * CPU aligns it to 16 and pushes 40 bytes, or 48 with an error code (SDM volume 3, 6.14.2).
 */
#include "flat.h"

	.macro idt_stubs count
	vector = 0
	.rept \count
	.balign STUB_SIZE
	pushq $vector
	jmp common
	vector = vector + 1
	.endr
	.endm
