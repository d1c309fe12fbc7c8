// SPDX-License-Identifier: GPL-2.0-only
/* What the verbs share; see helper.h. */
#include "helper.h"

#include <sched.h>
#include <stddef.h>
#include <string.h>
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

bool become_urgent(void)
{
	struct sched_param lowest = { .sched_priority = 1 };

	sched_setscheduler(getppid(), SCHED_RR | SCHED_RESET_ON_FORK, &lowest);
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
