#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# First stage, in the initramfs of L0 and of L1: load the modules in order, find the userland
# image on the first disk that holds a squashfs, and hand over to it.
# Nothing here sleeps: in an emulated machine time is dear, and a busy look yields the CPU anyway.
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys

while read -r module parameters; do
	case $module in
	kvm-intel.ko) /bin/busybox grep -qw vmx /proc/cpuinfo || continue ;;
	kvm-amd.ko) /bin/busybox grep -qw svm /proc/cpuinfo || continue ;;
	esac
	# shellcheck disable=SC2086 # parameters are several words
	/bin/busybox insmod "/modules/$module" $parameters ||
		echo "l2gate: module $module could not be loaded" >/dev/console
done </modules/order

# Says why, and ends; the console's last words would be lost if it did not wait until they are out.
give_up() {
	echo "l2gate: $*" >/dev/console
	/bin/busybox stty -echo </dev/console
	exec /bin/busybox poweroff -f
}

lacks=
while read -r name place; do
	[ -e "$place" ] || lacks="$lacks $name"
done </modules/needs
/bin/busybox grep -qw squashfs /proc/filesystems || lacks="$lacks squashfs"
[ "$lacks" ] && give_up "this kernel has neither built in nor as a module:$lacks"

# Disks are probed side by side, so their names say nothing: their first bytes do.
image='' seed=''
until [ "$image" ] && [ "$seed" ]; do
	for disk in /dev/[sv]d[ab]; do
		[ -b "$disk" ] || continue
		case $(/bin/busybox head -c 4 "$disk") in
		hsqs) image=$disk ;;
		name) seed=$disk ;;
		esac
	done
done
/bin/busybox ln -s "$image" /dev/l2gate-image
/bin/busybox ln -s "$seed" /dev/l2gate-seed
/bin/busybox mount -t squashfs -o ro "$image" /userland ||
	give_up "$image cannot be mounted as squashfs"
# The modules lie where modprobe looks for them, as on any machine.
/bin/busybox mount -t tmpfs tmpfs /userland/lib/modules
home=/userland/lib/modules/$(/bin/busybox uname -r)
/bin/busybox mkdir "$home"
for module in /modules/*.ko; do # none where KVM and all else are built in
	[ -e "$module" ] && /bin/busybox cp "$module" "$home"
done
for place in dev proc sys; do
	/bin/busybox mount --move "/$place" "/userland/$place"
done
exec /bin/busybox switch_root /userland /sbin/init
