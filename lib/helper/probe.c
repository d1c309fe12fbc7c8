// SPDX-License-Identifier: GPL-2.0-only
/*
 * probe
 *
 * Prints one line about this machine: its kernel, its CPU, which vendor module of KVM is loaded
 * with which parameters, and what KVM says it can do.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "helper.h"
#include "json.h"

#ifndef KVM_CAP_X86_TRIPLE_FAULT_EVENT
#define KVM_CAP_X86_TRIPLE_FAULT_EVENT 218
#endif
#ifndef KVM_CAP_EXCEPTION_PAYLOAD
#define KVM_CAP_EXCEPTION_PAYLOAD 164
#endif

#define CAPABILITY(name) { #name, name }
static const struct {
	const char *name;
	int number;
} capabilities[] = {
	CAPABILITY(KVM_CAP_EXCEPTION_PAYLOAD), CAPABILITY(KVM_CAP_NESTED_STATE),
	CAPABILITY(KVM_CAP_VCPU_EVENTS),       CAPABILITY(KVM_CAP_SYNC_REGS),
	CAPABILITY(KVM_CAP_SET_GUEST_DEBUG),   CAPABILITY(KVM_CAP_X86_TRIPLE_FAULT_EVENT),
	CAPABILITY(KVM_CAP_MCE),               CAPABILITY(KVM_CAP_X86_SMM),
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
}

static void print_parameters(const char *module)
{
	char folder[128], path[512];
	struct dirent *entry;
	DIR *dir;

	snprintf(folder, sizeof(folder), "/sys/module/%s/parameters", module);
	json_object("parameters");
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

static void print_module(void)
{
	const char *module = NULL;

	if (access("/sys/module/kvm_intel", F_OK) == 0)
		module = "kvm_intel";
	else if (access("/sys/module/kvm_amd", F_OK) == 0)
		module = "kvm_amd";
	json_text("kvm_module", module);
	print_parameters(module ? module : "kvm");
}

static void print_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	json_text("dev_kvm_error", kvm < 0 ? errno_name(errno) : NULL);
	json_object("caps");
	for (size_t i = 0; kvm >= 0 && i < sizeof(capabilities) / sizeof(capabilities[0]); i++)
		json_number(capabilities[i].name,
			    ioctl(kvm, KVM_CHECK_EXTENSION, capabilities[i].number));
	json_close_object();
	json_number("kvm_api", kvm < 0 ? -1 : ioctl(kvm, KVM_GET_API_VERSION, 0));
	if (kvm >= 0)
		close(kvm);
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
	print_module();
	print_kvm();
	print_number_file("yama_ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope");
	print_number_file("tainted", "/proc/sys/kernel/tainted");
	json_end();
	return DONE;
}
