// SPDX-License-Identifier: GPL-2.0-only
/* The writer of one-line JSON objects; see json.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "helper.h"
#include "json.h"

static bool first = true;
static bool begun; /* a line is not at its end */
static bool held;  /* lines wait for each other */

/* One thread writes, and an emulated CPU feels a lock for each character. */
static void put(int c)
{
	putchar_unlocked(c);
}

static void quoted(const char *text)
{
	put('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c);
		else
			put(c);
	}
	put('"');
}

static void lead(const char *key)
{
	if (!first)
		put(',');
	first = false;
	if (key) {
		quoted(key);
		put(':');
	}
}

static void open_with(const char *key, char bracket)
{
	lead(key);
	put(bracket);
	first = true;
}

static void close_with(char bracket)
{
	put(bracket);
	first = false;
}

void json_begin(const char *type)
{
	if (begun)
		put('\n'); /* an error in the middle of an answer has a line of its own */
	begun = true;
	first = true;
	open_with(NULL, '{');
	json_text("type", type);
}

void json_end(void)
{
	close_with('}');
	put('\n');
	if (!held)
		fflush(stdout);
	first = true;
	begun = false;
}

void json_object(const char *key)
{
	open_with(key, '{');
}

void json_close_object(void)
{
	close_with('}');
}

void json_list(const char *key)
{
	open_with(key, '[');
}

void json_close_list(void)
{
	close_with(']');
}

void json_text(const char *key, const char *value)
{
	lead(key);
	if (value)
		quoted(value);
	else
		fputs("null", stdout);
}

void json_number(const char *key, long long value)
{
	char digits[24];
	int length = 0;
	unsigned long long left = value < 0 ? 0 - (unsigned long long)value :
					      (unsigned long long)value;

	lead(key);
	if (value < 0)
		put('-');
	do
		digits[length++] = (char)('0' + left % 10);
	while (left /= 10);
	while (length)
		put(digits[--length]);
}

void json_real(const char *key, double value)
{
	lead(key);
	printf("%.6f", value);
}

void json_hex(const char *key, uint64_t value)
{
	int shift = 60;

	lead(key);
	put('"');
	put('0');
	put('x');
	while (shift && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		put("0123456789abcdef"[value >> shift & 15]);
	put('"');
}

void json_raw(const char *key, const char *json, size_t length)
{
	lead(key);
	fwrite(json, 1, length, stdout);
}

void json_hold(bool hold)
{
	held = hold;
	if (!hold)
		fflush(stdout);
}

void json_bool(const char *key, bool value)
{
	lead(key);
	fputs(value ? "true" : "false", stdout);
}

void json_null(const char *key)
{
	json_text(key, NULL);
}

const char *errno_name(int number)
{
	static char other[16];
	const char *name;

	if (!number)
		return NULL;
	name = strerrorname_np(number);
	if (name)
		return name;
	snprintf(other, sizeof(other), "errno %d", number);
	return other;
}

int json_error(int number, const char *hint, const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	json_begin("error");
	json_text("what", text);
	json_number("errno", number);
	json_text("name", errno_name(number));
	json_text("hint", hint);
	json_end();
	return FAILED;
}
