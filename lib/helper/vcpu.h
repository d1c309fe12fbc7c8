/* SPDX-License-Identifier: GPL-2.0-only */
/* The state of a vCPU that another process owns: reading it, printing it, telling what changed. */
#ifndef L2GATE_VCPU_H
#define L2GATE_VCPU_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "tracee.h"

struct nested {
	bool supported; /* the kernel knows KVM_GET_NESTED_STATE */
	uint16_t flags, format;
	uint32_t size;
};

/* VMX needs 8 KiB and the header; too small is E2BIG. */
union nested_buffer {
	struct kvm_nested_state state;
	uint8_t room[16384];
};

struct vcpu_state {
	struct nested nested;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_debugregs debugregs;
	struct kvm_vcpu_events events;
};

enum { VCPU_CANDIDATES = 64 };

struct vcpu {
	struct tracee tracee;
	int number, fd; /* fd as QEMU numbers it; -1 until it is chosen of the candidates */
	int candidates, candidate[VCPU_CANDIDATES];
	bool old_kernel; /* do without what Linux 4.12 has not */
};

/* Finds vCPU `number` of the process; on failure prints an error line and returns false. */
bool vcpu_find(struct vcpu *vcpu, int argc, char **argv);

/* Both need the tracee attached; on failure they print an error line and return false. */
bool vcpu_read(struct vcpu *vcpu, struct vcpu_state *state);
bool vcpu_again(struct vcpu *vcpu, long *result); /* the very ioctl that was the last one */
bool vcpu_set_events(struct vcpu *vcpu, const struct kvm_vcpu_events *events, long *result);

/*
 * Gives an interrupt that is on its way back to the local APIC: requested again, no more in
 * service. If there is none, or it is not the APIC's, nothing is done. `state` is read anew.
 */
bool vcpu_requeue(struct vcpu *vcpu, struct vcpu_state *state);

bool vcpu_attach(struct vcpu *vcpu);
void vcpu_detach(struct vcpu *vcpu);

/* What is told of a nested state. */
void vcpu_note_nested(struct nested *nested, const struct kvm_nested_state *state);

/* The fields of the state as members of the JSON object that is open. */
void vcpu_print(const struct vcpu_state *state);
void vcpu_print_events(const char *key, const struct kvm_vcpu_events *events);
/* The names of the fields that differ, as a JSON list; returns how many. */
int vcpu_print_changes(const char *key, const struct vcpu_state *a, const struct vcpu_state *b);

/* Sets the field of struct kvm_vcpu_events with that name; false if there is none. */
bool vcpu_set_field(struct kvm_vcpu_events *events, const char *name, uint64_t value);

#endif
