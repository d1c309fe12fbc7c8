#!/bin/sh
# SPDX-License-Identifier: MIT
# kvm-module.sh FOLDER status|nested|restore
#
# Loads this lab host's vendor module of KVM with nested=1, and puts back what was there before. Run
# it as root, under the lock of the host. FOLDER/former-module is the note of the former state: it
# is there from before the first change until the former state has been verified, so that `restore`
# works after an end at any point. FOLDER must outlive the job.
#
#   status   module M, loaded yes|no|builtin, nested VALUE|absent, users COUNT|absent, note yes|no:
#            one a line
#   nested   `unchanged`, or `changed nested FROM TO`; first what `restore` does, if there is a note
#   restore  `nothing-to-restore`, `rebooted-since`, or `restored nested VALUE`
#
# An error is two lines on stderr, `cause: ...` and `hint: ...`, and exit status 2.
set -u
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH
umask 077

sys=${L2GATE_SYS:-/sys}
proc=${L2GATE_PROC:-/proc}
patience=${L2GATE_USERS_WAIT:-3} # seconds: what was just killed may hold the module a little longer

die() {
	printf 'cause: %s\nhint: %s\n' "$1" "$2" >&2
	exit 2
}

# ---- what is there ----

# The first line of a file; nothing if it cannot be read.
line_of() {
	line=
	[ -r "$1" ] && { read -r line <"$1"; } 2>/dev/null
	printf '%s' "$line"
}

vendor_module() {
	if grep -qE '^flags[[:space:]]*:.*[[:space:]]vmx([[:space:]]|$)' "$proc/cpuinfo"; then
		echo kvm_intel
	elif grep -qE '^flags[[:space:]]*:.*[[:space:]]svm([[:space:]]|$)' "$proc/cpuinfo"; then
		echo kvm_amd
	else
		die "the CPU offers neither VMX nor SVM" \
			"turn virtualization on in the firmware, or take another host"
	fi
}

# A module that cannot be unloaded bears no count of users: it is as good as built in.
loaded() {
	if [ -e "$sys/module/$1/refcnt" ]; then
		echo yes
	elif [ -d "$sys/module/$1" ]; then
		echo builtin
	else
		echo no
	fi
}

value() {
	found=$(line_of "$sys/module/$module/parameters/$1")
	printf '%s' "${found:-absent}"
}

is_on() { [ "$1" = Y ] || [ "$1" = 1 ]; }

# Whether the process in that folder has a VM, or could make one.
has_kvm() {
	for file in "$1"/fd/*; do
		case $(readlink "$file" 2>/dev/null) in
		anon_inode:kvm-vm | /dev/kvm) return 0 ;;
		esac
	done
	return 1
}

holders() {
	comma=
	for process in "$proc"/[0-9]*; do
		has_kvm "$process" || continue
		printf '%s%s (%s)' "$comma" "${process##*/}" "$(line_of "$process/comm")"
		comma=', '
	done
}

# Refuses to go on while a module has users.
want_unused() {
	waited=0
	while users=$(line_of "$sys/module/$1/refcnt"); [ "${users:-0}" != 0 ]; do
		if [ "$waited" -ge "$patience" ]; then
			who=$(holders)
			die "$1 is in use ($users) by ${who:-no process that could be found}" \
				"end these processes, or run again later"
		fi
		sleep 1
		waited=$((waited + 1))
	done
}

# ---- loading and unloading ----

one_line() { printf '%s' "$1" | tr '\n' ' '; }

unload() {
	want_unused "$1"
	words=$(rmmod "$1" 2>&1) ||
		die "rmmod $1: $(one_line "$words")" "end what uses KVM on this host, or run again later"
	[ "$(loaded "$1")" = no ] ||
		die "rmmod $1 has not unloaded it" "look at the kernel's messages, or restart the host"
}

# $@: options. If the module is loaded already, this changes nothing.
load() {
	words=$(modprobe "$module" "$@" 2>&1) ||
		die "modprobe $module $*: $(one_line "$words")" \
			"look at the kernel's messages: dmesg | tail"
	[ "$(loaded "$module")" = yes ] ||
		die "modprobe $module has not loaded it" "look at the kernel's messages: dmesg | tail"
	# /dev/kvm is a new file now: udev gives it its owner and mode
	udevadm settle -t 5 >/dev/null 2>&1 || :
}

# Whether all files are there that lines of `modprobe -D` name.
are_there() {
	while read -r key file _; do
		[ "$key" != insmod ] || [ -f "$file" ] || return 1
	done
}

# Refuses where the module could be unloaded but not loaded again: where the kernel's package was
# removed or upgraded since the boot.
want_loadable() {
	if ! words=$(modprobe -D "$module" 2>&1) || ! printf '%s\n' "$words" | are_there; then
		die "modprobe could not load $module: $(one_line "$words")" \
			"install the modules of the kernel that runs, or restart the host"
	fi
}

# Prints `name value` of each noted parameter that is now another. $1: `nested`, if that is to
# differ; then the kernel also withdraws what only serves nested guests if the CPU lacks it.
changed_parameters() {
	while read -r key name former; do
		[ "$key" = parameter ] || continue
		case $1,$name in
		nested,nested | nested,nested_* | nested,enable_shadow_vmcs) continue ;;
		esac
		[ "$(value "$name")" = "$former" ] || printf '%s %s\n' "$name" "$former"
	done <"$note"
}

# Loads the module with nested=$1 (if not empty) and all else as noted. $2: as for
# changed_parameters. The options of modprobe.d may differ from those of the former load: what then
# differs is given in a second load.
load_as() {
	load ${1:+"nested=$1"}
	options=$(changed_parameters "$2" | while read -r name former; do
		case $former in
		*[!A-Za-z0-9_.,:/+-]*) ;; # words of the kernel's, such as `not required`: no option
		*) [ "$name" = nested ] || printf '%s=%s ' "$name" "$former" ;;
		esac
	done)
	if [ -n "$options" ]; then
		unload "$module"
		# each option is one word, and bears no pattern
		# shellcheck disable=SC2086
		load ${1:+"nested=$1"} $options
	fi
	different=$(changed_parameters "$2")
	[ -z "$different" ] ||
		die "$module does not take these parameters back: $(one_line "$different")" \
			"load $module by hand as you want it, or restart the host"
}

# ---- the note ----

noted() { sed -n "s/^$1 //p" "$note"; }

# Whole or not there at all.
write_note() {
	mkdir -p "$folder" || die "cannot create $folder" "choose another folder"
	{
		echo "boot $boot"
		echo "module $module"
		echo "loaded $(loaded "$module")"
		echo "kvm $(loaded kvm)"
		for file in "$sys/module/$module/parameters"/*; do
			text=$(line_of "$file")
			[ -z "$text" ] || printf 'parameter %s %s\n' "${file##*/}" "$text"
		done
		echo "end"
	} >"$note.new" || die "$note.new cannot be written" "free space, or choose another folder"
	sync "$note.new" 2>/dev/null || sync
	mv -f "$note.new" "$note" || die "$note cannot be written" "choose another folder"
}

drop_note() {
	rm -f "$note" || die "$note cannot be removed" "remove it by hand: all else is done"
}

# ---- the verbs ----

status() {
	echo "module $module"
	echo "loaded $(loaded "$module")"
	echo "nested $(value nested)"
	users=$(line_of "$sys/module/$module/refcnt")
	echo "users ${users:-absent}"
	if [ -e "$note" ]; then echo "note yes"; else echo "note no"; fi
}

restore() {
	if [ ! -e "$note" ]; then
		echo "nothing-to-restore"
		return
	fi
	if [ "$(noted boot)" != "$boot" ]; then
		drop_note
		echo "rebooted-since"
		return
	fi
	if [ "$(tail -n 1 "$note")" != end ] || [ "$(noted module)" != "$module" ]; then
		die "$note is damaged" "see to $module by hand, then remove the note"
	fi
	if [ "$(noted loaded)" = no ]; then
		restore_unloaded
	else
		restore_loaded
	fi
	drop_note
	echo "restored nested $(value nested)"
}

restore_unloaded() {
	[ "$(loaded "$module")" = no ] || unload "$module"
	if [ "$(noted kvm)" = no ] && [ "$(loaded kvm)" = yes ]; then
		unload kvm
	fi
}

restore_loaded() {
	if [ "$(loaded "$module")" != no ]; then
		# ended before the first change, or after the last: nobody needs to be disturbed
		[ -n "$(changed_parameters all)" ] || return 0
		unload "$module"
	fi
	former=$(noted "parameter nested")
	load_as "$former" all
}

nested() {
	if [ -e "$note" ]; then
		restore
	fi
	from=$(value nested)
	if is_on "$from"; then
		echo "unchanged"
		return
	fi
	if [ "$(loaded "$module")" = builtin ]; then
		die "$module is built into the kernel, or cannot be unloaded, and nested is $from" \
			"boot the host with $module.nested=1"
	fi
	want_unused "$module"
	want_loadable
	write_note
	if words=$(switch_on 2>&1); then
		echo "changed nested $from $(value nested)"
		return
	fi
	if more=$(restore 2>&1); then
		printf '%s\n' "$words" >&2
		exit 2
	fi
	die "$(part cause "$words"); and then: $(part cause "$more")" "$(part hint "$more")"
}

switch_on() {
	[ "$(loaded "$module")" = no ] || unload "$module"
	load_as 1 nested
	is_on "$(value nested)" ||
		die "$module was loaded with nested=1, but nested is $(value nested)" \
			"look at the kernel's messages: dmesg | grep -i kvm"
}

part() { printf '%s\n' "$2" | sed -n "s/^$1: //p"; }

[ $# = 2 ] || die "called as kvm-module.sh $*" "kvm-module.sh FOLDER status|nested|restore"
folder=$1
note=$folder/former-module
module=$(vendor_module) || exit 2
boot=$(line_of "$proc/sys/kernel/random/boot_id")
[ -n "$boot" ] || die "$proc/sys/kernel/random/boot_id cannot be read" "mount /proc"
case $2 in
status | nested | restore) "$2" ;;
*) die "kvm-module.sh has no verb $2" "kvm-module.sh FOLDER status|nested|restore" ;;
esac
