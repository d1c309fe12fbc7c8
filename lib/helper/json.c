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

static void quoted(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void lead(const char *key)
{
	if (!first)
		putchar(',');
	first = false;
	if (key) {
		quoted(key);
		putchar(':');
	}
}

static void open_with(const char *key, char bracket)
{
	lead(key);
	putchar(bracket);
	first = true;
}

static void close_with(char bracket)
{
	putchar(bracket);
	first = false;
}

void json_begin(const char *type)
{
	if (begun)
		putchar('\n'); /* an error in the middle of an answer has a line of its own */
	begun = true;
	first = true;
	open_with(NULL, '{');
	json_text("type", type);
}

void json_end(void)
{
	close_with('}');
	putchar('\n');
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
	lead(key);
	printf("%lld", value);
}

void json_real(const char *key, double value)
{
	lead(key);
	printf("%.6f", value);
}

void json_hex(const char *key, uint64_t value)
{
	lead(key);
	printf("\"0x%llx\"", (unsigned long long)value);
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
