/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Running ioctls inside another process.
 *
 * KVM answers EIO to a vCPU ioctl that comes from a process which does not own the VM, so the
 * ioctl has to be made by a thread of QEMU. That thread is borrowed by ptrace, and given back
 * exactly as it was.
 *
 * It is also given back when the borrower dies half-way: before its registers are touched, a
 * signal frame with all of its state is laid on its own stack, below what it uses, and the
 * instruction that makes the ioctl is one followed by `ret`, which leads to libc's rt_sigreturn.
 * A thread that loses its tracer finishes the ioctl and restores itself.
 */
#ifndef L2GATE_TRACEE_H
#define L2GATE_TRACEE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

struct tracee {
	pid_t pid, tid;
	bool attached;
	struct user_regs_struct original;
	uint64_t signal_mask;
	uint64_t syscall_ret;	       /* `syscall; ret` in the tracee */
	uint64_t restorer;	       /* `mov $15, %eax; syscall` in the tracee */
	uint64_t frame;		       /* rsp from which `ret` leads to the restorer */
	uint64_t scratch;	       /* room for an ioctl's argument, on the tracee's stack */
	struct user_regs_struct call;  /* with which it makes the last ioctl */
	uint64_t stack_from, stack_to; /* its stack's mapping, once looked for */
	char problem[256];	       /* what went wrong last */
	int problem_errno;
};

/* The largest argument tracee_ioctl takes, in bytes. */
#define TRACEE_ARGUMENT 32768

/* Chooses the thread and finds the instructions; tid 0: the thread that runs vCPU `vcpu`. */
bool tracee_find(struct tracee *tracee, pid_t pid, pid_t tid, int vcpu);
bool tracee_attach(struct tracee *tracee);
void tracee_detach(struct tracee *tracee);

/*
 * ioctl(fd, request, argument) in the tracee, `size` bytes carried there and back.
 * Returns the ioctl's result, or -errno as the kernel does; *ran is false if it could not be run.
 */
long tracee_ioctl(struct tracee *tracee, int fd, unsigned long request, void *argument, size_t size,
		  bool *ran);

/* The last ioctl once more, with what its argument is now: for one that only reads it. */
long tracee_again(struct tracee *tracee, bool *ran);

#endif
