#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# Second stage of L0 and of L1, run once by busybox init (which then reaps what dies): take the keys
# from the second disk (a plain tar), bring up the network, and let SSH in.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
for place in /tmp /run /root /var; do
	mount -t tmpfs -o mode=755 tmpfs $place
done
mkdir -p /dev/pts /run/l2gate /var/lib
chmod 700 /run/l2gate
mount -t devpts devpts /dev/pts
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null

tar -x -C /run/l2gate -f /dev/l2gate-seed
chmod 600 /run/l2gate/*

say() { echo "l2gate: $*" >/dev/console; }

# Before anything asks for random bytes: nothing here would ever fill the pool.
l2gate-entropy </run/l2gate/entropy || say "the random pool was not filled"

hostname "$(cat /run/l2gate/name)"
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do :; done
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
depmod

dropbear -s -m -D /run/l2gate -r /run/l2gate/host_key -P /run/l2gate/dropbear.pid -p 22 ||
	say "sshd did not start"
say "ready"
