// SPDX-License-Identifier: GPL-2.0-only
/*
 * inject --pid PID [--vcpu N] [--tid TID] [--old-kernel yes] [--monitor PATH]
 *        [--urgent yes]
 *
 * KVM_SET_VCPU_EVENTS on the stopped vCPU of a QEMU process, as told on stdin. It prints a line
 * {"type":"ready"}, then one line for each line it reads. PATH is QEMU's QMP socket, which it takes for itself.
 * --urgent: it goes before QEMU's vCPU on this machine's CPU, and so does its SSH server.
 *
 *   state                      -> what the verb `vcpu` prints
 *   requeue                    -> the same, after an interrupt that is on its way has been given
 *                                 back to the local APIC, which requests it anew
 *   set FIELD=NUMBER ...       -> {"type":"set", ...}; FIELD is a field of struct kvm_vcpu_events
 *                                 (nr, injected, has_error_code, error_code, pending for those
 *                                 of .exception, interrupt.nr and so on, flags); what is not
 *                                 named is as KVM_GET_VCPU_EVENTS returned it just before
 *       repeat=N               the same ioctl N times
 *       undo=1                 an accepted exception is taken back before the vCPU can run
 *   stop, cont                 -> {"type":"qmp","reply":what QEMU answers}; the VM that was stopped
 *                                 goes on when this ends, if it does not before
 *   qmp COMMAND                -> the same, for any command of QMP, in its own JSON
 *   batch N                    -> nothing; the answers to the next N lines are written all at once
 *   quit
 *
 * QEMU's thread is borrowed for the time of one line or batch only.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helper.h"
#include "json.h"
#include "qmp.h"
#include "vcpu.h"

#define MOST_OUTCOMES 8

struct order {
	struct kvm_vcpu_events events;
	long repeat;
	bool undo;
};

/* The different results of the repeated ioctl, in the order first seen. */
struct outcomes {
	struct {
		long result, count;
	} list[MOST_OUTCOMES];
	int length;
	long first_different;
};

static struct vcpu vcpu;
static struct vcpu_state before, after, restored;

/*
 * QEMU's thread is kept for the time of a batch. Nothing runs the vCPU meanwhile, so that what it
 * was read to be at the end of one line it is at the beginning of the next.
 */
static bool attached;
static const struct vcpu_state *latest;

static bool borrow(void)
{
	if (!attached)
		attached = vcpu_attach(&vcpu);
	return attached;
}

static void give_back(void)
{
	if (attached)
		vcpu_detach(&vcpu);
	attached = false;
	latest = NULL;
}

/* What the vCPU holds, into `before`. */
static bool look(void)
{
	if (latest && latest != &before)
		before = *latest;
	else if (!latest && !vcpu_read(&vcpu, &before))
		return false;
	latest = &before;
	return true;
}

/* Reads the words of a `set` line into the order; prints an error line for a word it is not. */
static bool read_order(char *words, struct order *order)
{
	for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
		char *equals = strchr(word, '='), *end;
		unsigned long long value;

		if (!equals) {
			json_error(EINVAL, "FIELD=NUMBER", "cannot read %s", word);
			return false;
		}
		*equals = 0;
		value = strtoull(equals + 1, &end, 0);
		if (*end || end == equals + 1) {
			json_error(EINVAL, "give a number", "%s is no number", word);
			return false;
		}
		if (!strcmp(word, "repeat"))
			order->repeat = value > 0 ? (long)value : 1;
		else if (!strcmp(word, "undo"))
			order->undo = value != 0;
		else if (!vcpu_set_field(&order->events, word, value)) {
			json_error(EINVAL, "see struct kvm_vcpu_events", "there is no field %s",
				   word);
			return false;
		}
	}
	return true;
}

static void note_outcome(struct outcomes *outcomes, long result, long index)
{
	int i;

	for (i = 0; i < outcomes->length; i++)
		if (outcomes->list[i].result == result)
			break;
	if (i == MOST_OUTCOMES)
		return;
	if (i == outcomes->length) {
		outcomes->list[i].result = result;
		outcomes->length++;
		if (i == 1)
			outcomes->first_different = index;
	}
	outcomes->list[i].count++;
}

static bool repeat_set(const struct order *order, struct outcomes *outcomes)
{
	long result;

	for (long i = 0; i < order->repeat; i++) {
		if (!(i ? vcpu_again(&vcpu, &result) :
			  vcpu_set_events(&vcpu, &order->events, &result)))
			return false;
		note_outcome(outcomes, result, i);
	}
	return true;
}

/* Takes an accepted exception back; *undone says whether the state is as it was. */
static bool undo(bool *undone)
{
	long result;

	if (!vcpu_set_events(&vcpu, &before.events, &result) || !vcpu_read(&vcpu, &restored))
		return false;
	*undone = result == 0 && !memcmp(&before.events, &restored.events, sizeof(before.events));
	return true;
}

static bool was_accepted(const struct outcomes *outcomes)
{
	for (int i = 0; i < outcomes->length; i++)
		if (outcomes->list[i].result == 0)
			return true;
	return false;
}

static void print_state(const char *key, const struct vcpu_state *state)
{
	json_object(key);
	vcpu_print(state);
	json_close_object();
}

static void print_set(const struct order *order, const struct outcomes *outcomes, bool undone,
		      double took)
{
	json_begin("set");
	vcpu_print_events("request", &order->events);
	json_number("repeat", order->repeat);
	json_list("outcomes");
	for (int i = 0; i < outcomes->length; i++) {
		json_object(NULL);
		json_number("errno", -outcomes->list[i].result);
		json_text("name", errno_name((int)-outcomes->list[i].result));
		json_number("count", outcomes->list[i].count);
		json_close_object();
	}
	json_close_list();
	if (outcomes->length > 1)
		json_number("first_different", outcomes->first_different);
	else
		json_null("first_different");
	print_state("before", &before);
	vcpu_print_events("events_after", &after.events);
	vcpu_print_changes("changed", &before, &after);
	json_bool("undone", undone);
	json_real("seconds", took);
	json_end();
}

/* False if QEMU's thread could not be used: then the conversation is over. */
static bool do_set(char *words)
{
	struct order order = { .repeat = 1 };
	struct outcomes outcomes = { 0 };
	bool good, understood, undone = false;
	double start = seconds();

	if (!borrow())
		return false;
	good = look();
	order.events = before.events;
	understood = good && read_order(words, &order);
	if (understood) {
		good = repeat_set(&order, &outcomes) && vcpu_read(&vcpu, &after);
		latest = &after;
	}
	if (understood && good && order.undo && was_accepted(&outcomes)) {
		good = undo(&undone);
		latest = &restored;
	}
	if (understood && good)
		print_set(&order, &outcomes, undone, seconds() - start);
	return good;
}

/* What the vCPU holds; requeue: once its local APIC has back what was on its way. */
static bool tell_vcpu(bool requeue)
{
	bool good;

	if (!borrow())
		return false;
	good = look() && (!requeue || vcpu_requeue(&vcpu, &before));
	if (good) {
		json_begin("vcpu");
		vcpu_print(&before);
		json_end();
	}
	return good;
}

/* False if the conversation is over. */
static bool answer(char *line)
{
	if (!strcmp(line, "state"))
		return tell_vcpu(false);
	if (!strcmp(line, "requeue"))
		return tell_vcpu(true);
	if (!strncmp(line, "set ", 4))
		return do_set(line + 4);
	give_back(); /* QEMU needs it for an answer */
	if (!strcmp(line, "stop"))
		return qmp_stop();
	if (!strcmp(line, "cont"))
		return qmp_cont();
	if (!strncmp(line, "qmp ", 4))
		return qmp_command(line + 4);
	json_error(EINVAL,
		   "state | requeue | set FIELD=NUMBER ... | stop | cont | qmp COMMAND | batch N | "
		   "quit",
		   "cannot do %s", line);
	return true;
}

static bool converse(void)
{
	char line[4096];
	long held = 0;

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strcmp(line, "quit"))
			break;
		if (!strncmp(line, "batch ", 6)) {
			held = atol(line + 6);
			json_hold(held > 0);
			continue;
		}
		if (!answer(line))
			return false;
		if (held && --held)
			continue;
		give_back();
		json_hold(false);
	}
	return true;
}

int verb_inject(int argc, char **argv)
{
	const char *monitor = option(argc, argv, "--monitor");
	static char lines[1 << 16];
	bool good;

	setvbuf(stdout, lines, _IOFBF, sizeof(lines));
	signal(SIGPIPE, SIG_IGN); /* who does not listen any more has closed stdin as well */
	if (!vcpu_find(&vcpu, argc, argv) || (monitor && !qmp_connect(monitor)))
		return FAILED;
	if (option(argc, argv, "--urgent"))
		become_urgent();
	json_begin("ready");
	json_number("pid", vcpu.tracee.pid);
	json_number("tid", vcpu.tracee.tid);
	json_number("vcpu", vcpu.number);
	json_end();
	good = converse();
	give_back();
	json_hold(false);
	qmp_close();
	return good ? DONE : FAILED;
}
