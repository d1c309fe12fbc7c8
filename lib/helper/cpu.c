// SPDX-License-Identifier: GPL-2.0-only
/* See cpu.h. */
#include <cpuid.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"

#define MSR_VMX_BASIC 0x480
#define ANY_ERROR_CODE 56

struct leaf {
	unsigned int eax, ebx, ecx, edx;
};

static struct leaf ask(unsigned int function)
{
	struct leaf leaf = { 0 };

	__get_cpuid_count(function, 0, &leaf.eax, &leaf.ebx, &leaf.ecx, &leaf.edx);
	return leaf;
}

bool cpu_has_svm(void)
{
	return ask(0x80000001).ecx & 1U << 2;
}

bool cpu_has_cet(void)
{
	struct leaf leaf = ask(7);

	return leaf.ecx & 1U << 7 || leaf.edx & 1U << 20;
}

bool cpu_is_tcg(void)
{
	unsigned int eax, name[3] = { 0 };

	if (!(ask(1).ecx & 1U << 31))
		return false;
	__cpuid(0x40000000, eax, name[0], name[1], name[2]);
	return !memcmp(name, "TCGTCGTCGTCG", sizeof(name));
}

bool cpu_has_nrips(void)
{
	return ask(0x8000000a).edx & 1U << 3;
}

/* The bit came with CET, for whose #CP it was made: without CET there is none. */
int cpu_any_error_code(void)
{
	int msrs = open("/dev/cpu/0/msr", O_RDONLY | O_CLOEXEC), known = UNKNOWN;
	uint64_t basic;

	if (msrs >= 0 && pread(msrs, &basic, sizeof(basic), MSR_VMX_BASIC) == sizeof(basic))
		known = basic >> ANY_ERROR_CODE & 1;
	else if (!cpu_has_cet())
		known = 0;
	if (msrs >= 0)
		close(msrs);
	return known;
}
