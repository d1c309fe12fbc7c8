/* SPDX-License-Identifier: GPL-2.0-only */
/* What the verbs share: how they are called and how they answer. */
#ifndef L2GATE_HELPER_H
#define L2GATE_HELPER_H

#include <stdbool.h>

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* Exit status of a verb. */
enum { DONE = 0, FAILED = 1, MISUSED = 64 };

int verb_probe(int argc, char **argv);
int verb_vcpu(int argc, char **argv);
int verb_inject(int argc, char **argv);
int verb_bridge(int argc, char **argv);
int verb_l2(int argc, char **argv);
int verb_victim(int argc, char **argv);
int verb_supervise(int argc, char **argv);
int verb_kmsg(int argc, char **argv);
int verb_cases(int argc, char **argv);
int verb_words(int argc, char **argv);
int verb_serve(int argc, char **argv);

/* Run the verb argv[0]. Returns its exit status. */
int run_verb(int argc, char **argv);

/* Whether a verb puts away what it holds at the end of its stdin, and must have the time for it. */
bool verb_keeps(const char *name);

/* Of a clock that only goes forward. */
double seconds(void);

/* The value after `name` in argv, or NULL. */
const char *option(int argc, char **argv, const char *name);

/* Whether `name` is in argv. */
bool given(int argc, char **argv, const char *name);

/*
 * From now on this thread goes before all that is not so urgent, as soon as it has something to do:
 * a scheduler that lets who runs use up its time would let an answer wait for as long as a busy
 * guest runs, on an emulated CPU a twentieth of a second. So do those that its answers go through:
 * `serve` and the SSH server. What they start is as before. False where it is not allowed.
 */
bool become_urgent(void);

/* Lets others run for a moment: those that are less urgent as well. */
void let_others_run(bool urgent);

#endif
