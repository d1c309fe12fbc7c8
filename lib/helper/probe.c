// SPDX-License-Identifier: GPL-2.0-only
/*
 * probe
 *
 * Prints one line about this machine: its kernel, its CPU, which vendor module of KVM it needs and
 * has, with which parameters and who uses it, what KVM says it can do, which system calls the
 * kernel lacks, and what may keep a process from reading another. What this machine does not tell
 * is null.
 */
#include <cpuid.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"
#include "nested.h"
#include "vm.h"

static const struct capability capabilities[] = {
	{ CAPABILITY(KVM_CAP_EXCEPTION_PAYLOAD) },
	{ CAPABILITY(KVM_CAP_NESTED_STATE) },
	{ CAPABILITY(KVM_CAP_VCPU_EVENTS) },
	{ CAPABILITY(KVM_CAP_SYNC_REGS) },
	{ CAPABILITY(KVM_CAP_SET_GUEST_DEBUG) },
	{ CAPABILITY(KVM_CAP_X86_TRIPLE_FAULT_EVENT) },
	{ CAPABILITY(KVM_CAP_MCE) },
	{ CAPABILITY(KVM_CAP_X86_SMM) },
	{ CAPABILITY(KVM_CAP_HYPERV_CPUID) },
	{ CAPABILITY(KVM_CAP_ASYNC_PF_INT) },
	{ CAPABILITY(KVM_CAP_IMMEDIATE_EXIT) },
};

/* The first line of a file without its newline; false if it cannot be read. */
static bool read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");
	bool good = file && fgets(line, (int)size, file);

	if (file)
		fclose(file);
	if (good)
		line[strcspn(line, "\n")] = 0;
	return good;
}

static void print_file(const char *key, const char *path)
{
	char line[4096];

	json_text(key, read_line(path, line, sizeof(line)) ? line : NULL);
}

static void print_number_file(const char *key, const char *path)
{
	char line[64];

	if (read_line(path, line, sizeof(line)))
		json_number(key, atoll(line));
	else
		json_null(key);
}

/* Finds `name : value` of the first CPU in /proc/cpuinfo. */
static bool cpuinfo(const char *name, char *value, size_t size)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[8192];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (!colon || strncmp(line, name, strlen(name)))
			continue;
		colon[strcspn(colon, "\n")] = 0;
		snprintf(value, size, "%s", colon[1] ? colon + 2 : "");
		found = true;
	}
	if (file)
		fclose(file);
	return found;
}

static bool has_word(const char *text, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
		if ((at == text || at[-1] == ' ') && (!at[length] || at[length] == ' '))
			return true;
	return false;
}

static void print_cpu(void)
{
	char text[8192];

	json_text("cpu_vendor", cpuinfo("vendor_id", text, sizeof(text)) ? text : NULL);
	json_text("cpu_model", cpuinfo("model name", text, sizeof(text)) ? text : NULL);
	json_object("flags");
	if (!cpuinfo("flags", text, sizeof(text)))
		text[0] = 0;
	json_bool("vmx", has_word(text, "vmx"));
	json_bool("svm", has_word(text, "svm"));
	json_close_object();
	json_bool("soft_exceptions", nested_ops_of_cpu()->soft_exceptions());
	json_text("microcode", cpuinfo("microcode", text, sizeof(text)) ? text : NULL);
}

/* The name by which the hypervisor under this machine, if there is one, calls itself. */
static void print_hypervisor(void)
{
	unsigned int a, b, c, d, name[4] = { 0 };
	bool there = __get_cpuid(1, &a, &b, &c, &d) && c & 1u << 31;

	if (there)
		__cpuid(0x40000000, a, name[0], name[1], name[2]);
	json_text("hypervisor", name[0] ? (const char *)name : NULL);
}

static void print_machine(void)
{
	char vendor[128], product[128], text[260];

	if (!read_line("/sys/class/dmi/id/sys_vendor", vendor, sizeof(vendor)))
		vendor[0] = 0;
	if (!read_line("/sys/class/dmi/id/product_name", product, sizeof(product)))
		product[0] = 0;
	snprintf(text, sizeof(text), "%s%s%s", vendor, vendor[0] && product[0] ? " " : "", product);
	for (size_t end = strlen(text); end && isspace((unsigned char)text[end - 1]); end--)
		text[end - 1] = 0;
	json_text("machine", text[0] ? text : NULL);
}

static void print_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	long long kilobytes = -1;

	while (file && kilobytes < 0 && fgets(line, sizeof(line), file))
		if (!strncmp(line, "MemAvailable:", 13))
			kilobytes = atoll(line + 13);
	if (file)
		fclose(file);
	if (kilobytes < 0)
		json_null("memory_available_mb");
	else
		json_number("memory_available_mb", kilobytes / 1024);
}

static void print_parameters(const char *key, const char *module)
{
	char folder[128], path[512];
	struct dirent *entry;
	DIR *dir;

	snprintf(folder, sizeof(folder), "/sys/module/%s/parameters", module);
	json_object(key);
	dir = opendir(folder);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		print_file(entry->d_name, path);
	}
	if (dir)
		closedir(dir);
	json_close_object();
}

/* Whichever this CPU needs, if it is there; else NULL. */
static const char *kvm_module(void)
{
	const char *module = nested_ops_of_cpu()->module;
	char path[128];

	snprintf(path, sizeof(path), "/sys/module/%s", module);
	return access(path, F_OK) == 0 ? module : NULL;
}

static void print_module(void)
{
	const char *module = kvm_module();
	char path[128];

	json_text("kvm_module", module);
	print_parameters("parameters", module ? module : "kvm");
	print_parameters("kvm_parameters", "kvm");
	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", module ? module : "");
	print_number_file("kvm_users", path);
}

/* All that could provide KVM, those that we do not know included. */
static void print_modules(void)
{
	DIR *dir = opendir("/sys/module");
	struct dirent *entry;

	json_list("kvm_modules");
	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "kvm", 3))
			json_text(NULL, entry->d_name);
	if (dir)
		closedir(dir);
	json_close_list();
}

static bool has_vm(const char *pid)
{
	static const char vm[] = "anon_inode:kvm-vm";
	char folder[64], path[512], target[64];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(folder, sizeof(folder), "/proc/%.16s/fd", pid);
	dir = opendir(folder);
	while (dir && !found && (entry = readdir(dir))) {
		ssize_t length;

		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		length = readlink(path, target, sizeof(target));
		found = length == sizeof(vm) - 1 && !memcmp(target, vm, sizeof(vm) - 1);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* The processes that have a VM, as far as we may look. */
static void print_vms(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	char path[64];

	json_list("other_vms");
	while (dir && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]) || !has_vm(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%.16s/comm", entry->d_name);
		json_object(NULL);
		json_number("pid", atoll(entry->d_name));
		print_file("comm", path);
		json_close_object();
	}
	if (dir)
		closedir(dir);
	json_close_list();
}

enum { MOST_LEAVES = 256, MOST_MSRS = 512 };

static void mix(uint64_t *digest, const void *data, size_t size)
{
	const uint8_t *byte = data;

	while (size--)
		*digest = (*digest ^ *byte++) * 0x100000001b3; /* FNV-1a */
}

static void mix_cpuid(uint64_t *digest, int kvm)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[MOST_LEAVES];
	} leaves;

	leaves.head.nent = MOST_LEAVES;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &leaves) == 0)
		mix(digest, leaves.entries, leaves.head.nent * sizeof(*leaves.entries));
}

/* Each by itself: KVM stops at the first that it does not have after all. */
static void mix_msrs(uint64_t *digest, int kvm)
{
	static struct {
		struct kvm_msr_list head;
		uint32_t indices[MOST_MSRS];
	} list;

	list.head.nmsrs = MOST_MSRS;
	if (ioctl(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST, &list) != 0)
		return;
	for (uint32_t i = 0; i < list.head.nmsrs; i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} msr = { { .nmsrs = 1 }, { .index = list.indices[i] } };

		ioctl(kvm, KVM_GET_MSRS, &msr);
		mix(digest, &msr.entry, sizeof(msr.entry));
	}
}

/*
 * All that this KVM offers a guest, in one number: a guest that has seen one KVM may go on under
 * another only if that offers the same (CPUID, and the MSRs that describe VMX).
 */
static void print_offer(int kvm)
{
	uint64_t digest = 0xcbf29ce484222325;

	mix_cpuid(&digest, kvm);
	mix_msrs(&digest, kvm);
	json_hex("offer", digest);
}

static void print_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	json_text("dev_kvm_error", kvm < 0 ? errno_name(errno) : NULL);
	vm_print_capabilities("caps", kvm, capabilities, kvm < 0 ? 0 : COUNT(capabilities));
	json_number("kvm_api", kvm < 0 ? -1 : ioctl(kvm, KVM_GET_API_VERSION, 0));
	if (kvm < 0) {
		json_null("offer");
		return;
	}
	print_offer(kvm);
	close(kvm);
}

/* Whether the kernel has no such system call; the arguments are wrong on purpose. */
#define MISSING(...) (syscall(__VA_ARGS__) == -1 && errno == ENOSYS)

/* System calls that the suite or QEMU cannot do without, and the options that bring them. */
static void print_lacks(void)
{
	struct iovec here = { &(char){ 0 }, 1 }, there = here;
	const struct {
		const char *option;
		bool missing;
	} tried[] = {
		{ "CONFIG_FILE_LOCKING", MISSING(SYS_flock, -1, LOCK_UN) },
		{ "CONFIG_EVENTFD", MISSING(SYS_eventfd2, 0, ~0) },
		{ "CONFIG_EPOLL", MISSING(SYS_epoll_create1, ~0) },
		{ "CONFIG_SIGNALFD", MISSING(SYS_signalfd4, -1, NULL, 0, ~0) },
		{ "CONFIG_TIMERFD", MISSING(SYS_timerfd_create, ~0, ~0) },
		{ "CONFIG_AIO", MISSING(SYS_io_setup, 0, NULL) },
		{ "CONFIG_CROSS_MEMORY_ATTACH",
		  MISSING(SYS_process_vm_readv, getpid(), &here, 1, &there, 1, ~0) },
	};

	json_list("lacks");
	for (size_t i = 0; i < COUNT(tried); i++)
		if (tried[i].missing)
			json_text(NULL, tried[i].option);
	json_close_list();
}

int verb_probe(int argc, char **argv)
{
	struct utsname name;

	(void)argc;
	(void)argv;
	uname(&name);
	json_begin("probe");
	json_text("release", name.release);
	json_text("version", name.version);
	print_file("cmdline", "/proc/cmdline");
	print_cpu();
	print_hypervisor();
	print_machine();
	print_memory();
	print_module();
	print_modules();
	print_kvm();
	print_vms();
	print_lacks();
	print_number_file("yama_ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope");
	print_number_file("tainted", "/proc/sys/kernel/tainted");
	print_file("lockdown", "/sys/kernel/security/lockdown");
	print_file("lsm", "/sys/kernel/security/lsm");
	print_number_file("selinux_enforcing", "/sys/fs/selinux/enforce");
	print_number_file("selinux_deny_ptrace", "/sys/fs/selinux/booleans/deny_ptrace");
	print_file("boot_id", "/proc/sys/kernel/random/boot_id");
	json_number("uid", geteuid());
	json_number("clock", time(NULL));
	json_end();
	return DONE;
}
