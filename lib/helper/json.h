/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A writer of one-line JSON objects. It keeps count of the commas, so that callers read as the
 * object they print; a key of NULL stands for an element of a list.
 */
#ifndef L2GATE_JSON_H
#define L2GATE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void json_begin(const char *type); /* { "type": type */
void json_end(void);		   /* } and the end of the line */
void json_object(const char *key);
void json_close_object(void);
void json_list(const char *key);
void json_close_list(void);
void json_text(const char *key, const char *value); /* NULL is null */
void json_number(const char *key, long long value);
void json_real(const char *key, double value);
void json_hex(const char *key, uint64_t value); /* as text: JSON numbers end at 2^53 */
void json_bool(const char *key, bool value);
void json_null(const char *key);
void json_raw(const char *key, const char *json, size_t length); /* as it is */

/* Whether lines wait for each other, to be written together when this is off again. */
void json_hold(bool hold);

/* EINVAL for 22; NULL for 0. */
const char *errno_name(int number);

/* A whole error line. `number` 0: no errno. Returns FAILED. */
int json_error(int number, const char *hint, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
