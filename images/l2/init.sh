#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# Process 1 of the Linux L2: a spinning process keeps the vCPU in L2, and each line on the serial
# port is answered with the same line and the count of answers.
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
exec </dev/ttyS0 >/dev/ttyS0 2>&1
/bin/busybox stty raw -echo
(while :; do :; done) &
spinner=$!
echo "l2gate: ready"
count=0
while read -r line; do
	count=$((count + 1))
	alive=no
	[ -d /proc/$spinner ] && alive=yes
	echo "answer $line count=$count spinner=$alive"
done
