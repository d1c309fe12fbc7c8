// SPDX-License-Identifier: GPL-2.0-only
/* What the verbs share; see helper.h. */
#include "helper.h"

#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

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

/* Whether a process is one of those that pass answers on: `serve`, or L0's and L1's SSH server. */
static bool passes_on(pid_t pid, pid_t *parent)
{
	char path[32], stat[512] = "", name[32] = "", state;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (!fgets(stat, sizeof(stat), file))
		stat[0] = 0;
	fclose(file);
	return sscanf(stat, "%*d (%31[^)]) %c %d", name, &state, parent) == 3 &&
	       (!strcmp(name, "helper") || !strcmp(name, "dropbear"));
}

bool become_urgent(void)
{
	struct sched_param lowest = { .sched_priority = 1 };

	for (pid_t pid = getppid(), parent; passes_on(pid, &parent); pid = parent)
		sched_setscheduler(pid, SCHED_RR | SCHED_RESET_ON_FORK, &lowest);
	return sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &lowest) == 0;
}

void let_others_run(bool urgent)
{
	struct timespec moment = { .tv_nsec = 50000 };

	if (urgent)
		nanosleep(&moment, NULL);
	else
		sched_yield(); /* never a sleep: beside a busy guest in an emulator it lasts long */
}
