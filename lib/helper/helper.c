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

static pid_t parent_of(pid_t pid)
{
	char path[32], stat[512] = "", state;
	int parent = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	if (fgets(stat, sizeof(stat), file) && strrchr(stat, ')'))
		sscanf(strrchr(stat, ')'), ") %c %d", &state, &parent);
	fclose(file);
	return parent;
}

bool become_urgent(void)
{
	struct sched_param lowest = { .sched_priority = 1 };

	/* Its answers go through all of these: `serve`, and the SSH server. */
	for (pid_t pid = getppid(); pid > 1; pid = parent_of(pid))
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
