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
#include "words.h"

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
	{ "cases", verb_cases, "conduct cases on standalone VMs, as stdin says" },
	{ "words", verb_words, "tell the language of cases" },
	{ "victim", verb_victim, "a process that takes exceptions as signals" },
	{ "supervise", verb_supervise, "hold what a job has on a lab host, and put it away" },
	{ "kmsg", verb_kmsg, "print the kernel's messages" },
	{ "serve", verb_serve, "many of all this, and commands, over one conversation" },
};

static void list_verbs(FILE *file)
{
	fprintf(file, "usage: l2gate-helper VERB [ARGUMENT ...]\n");
	for (size_t i = 0; i < COUNT(verbs); i++)
		fprintf(file, "  %-9s %s\n", verbs[i].name, verbs[i].what);
	fprintf(file, "  %-9s %s\n", "help", "this list; help cases: the words of a case");
}

/* help [cases] */
static int help(int argc, char **argv)
{
	if (argc == 1 && !strcmp(argv[0], "cases")) {
		help_cases();
		return DONE;
	}
	if (argc)
		return MISUSED;
	list_verbs(stdout);
	return DONE;
}

int run_verb(int argc, char **argv)
{
	if (argc && !strcmp(argv[0], "help"))
		return help(argc - 1, argv + 1);
	for (size_t i = 0; argc && i < COUNT(verbs); i++)
		if (!strcmp(argv[0], verbs[i].name))
			return verbs[i].run(argc - 1, argv + 1);
	list_verbs(stderr);
	return MISUSED;
}

bool verb_keeps(const char *name)
{
	return !strcmp(name, "supervise") || !strcmp(name, "serve");
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 1 << 16);
	return run_verb(argc - 1, argv + 1);
}
