// SPDX-License-Identifier: GPL-2.0-only
/*
 * l2gate-helper VERB [ARGUMENT ...]
 *
 * The part of l2gate that runs on L0 and in L1. Each verb lives in a file of its own, which says
 * what it takes and what it prints. Answers are JSON objects, one a line, on stdout.
 * Exit status: 0 done, 1 failed (an error line says why), 64 called wrongly.
 */
#include <stdio.h>
#include <string.h>

#include "helper.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what;
} verbs[] = {
	{ "probe", verb_probe, "tell about this machine's kernel and its KVM" },
	{ "vcpu", verb_vcpu, "read the stopped vCPU of a QEMU process" },
	{ "inject", verb_inject, "KVM_SET_VCPU_EVENTS on that vCPU, as stdin says" },
	{ "bridge", verb_bridge, "carry stdin and stdout to a unix socket" },
	{ "l2", verb_l2, "run the tiny nested guest" },
	{ "cases", verb_cases, "conduct cases on a VM of its own, as stdin says" },
	{ "victim", verb_victim, "a process that takes exceptions as signals" },
	{ "supervise", verb_supervise, "hold what a job has on a lab host, and put it away" },
	{ "kmsg", verb_kmsg, "print the kernel's messages" },
};

const char *option(int argc, char **argv, const char *name)
{
	for (int i = 0; i + 1 < argc; i++)
		if (!strcmp(argv[i], name))
			return argv[i + 1];
	return NULL;
}

bool given(int argc, char **argv, const char *name)
{
	for (int i = 0; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return false;
}

static int usage(void)
{
	fprintf(stderr, "usage: l2gate-helper VERB [ARGUMENT ...]\n");
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		fprintf(stderr, "  %-9s %s\n", verbs[i].name, verbs[i].what);
	return MISUSED;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 1 << 16);
	for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].run(argc - 2, argv + 2);
	return usage();
}
