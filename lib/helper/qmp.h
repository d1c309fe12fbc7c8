/* SPDX-License-Identifier: GPL-2.0-only */
/* QEMU's monitor, spoken to on the machine that QEMU runs on: a question costs no way over a net. */
#ifndef L2GATE_QMP_H
#define L2GATE_QMP_H

#include <stdbool.h>

/* Connects to the monitor at that unix socket, as its only client. An error line if it cannot. */
bool qmp_connect(const char *path);

/*
 * One command, as QMP has it on one line. Prints {"type":"qmp","reply":...} with QEMU's own answer,
 * be it a return or an error. False, after an error line, if there is none.
 */
bool qmp_command(const char *line);

/* `stop` and `cont`; what was stopped by the one goes on at the latest by qmp_close. */
bool qmp_stop(void);
bool qmp_cont(void);
void qmp_close(void);

#endif
