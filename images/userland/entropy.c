// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hands the bytes of stdin to the kernel's random pool and has them counted (random(4),
 * RNDADDENTROPY). An emulated machine makes none by itself, and getrandom(2) would wait for minutes.
 */
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MOST 512 /* bytes */

int main(void)
{
	struct {
		struct rand_pool_info info;
		char bytes[MOST];
	} pool;
	ssize_t size = read(STDIN_FILENO, pool.info.buf, MOST);
	int random = open("/dev/random", O_WRONLY);

	if (size <= 0 || random < 0) {
		perror("l2gate-entropy");
		return 1;
	}
	pool.info.buf_size = (int)size;
	pool.info.entropy_count = (int)size * 8;
	if (ioctl(random, RNDADDENTROPY, &pool) != 0) {
		perror("l2gate-entropy: RNDADDENTROPY");
		return 1;
	}
	return 0;
}
