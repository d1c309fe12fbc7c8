// SPDX-License-Identifier: GPL-2.0-only
/*
 * words
 *
 * The language of cases for a program, a JSON object a line:
 *   {"type":"constant","name","value","meaning"}
 *   {"type":"word","name","takes":[...],"default","sent","meaning"}
 * `takes` has the texts that the word takes, "N" standing for any number; `sent` tells whether it
 * is about what userspace hands to KVM. See words.def.
 */
#include "words.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helper.h"
#include "json.h"

#define ANY_NUMBER "N"
#define LONGEST 64 /* of a text that a word takes, with its end */

enum role { SENT, SCENE };

static const struct {
	const char *name;
	uint64_t number;
	const char *meaning;
} constants[] = {
#define CONSTANT(name, number, meaning) { #name, number, meaning },
#include "words.def"
};

static const struct {
	const char *text;
	uint64_t number;
} values[] = {
#define VALUE(name, number, text) { text, number },
#include "words.def"
};

static const struct word {
	const char *name, *takes;
	size_t offset;
	enum role role;
	const char *meaning;
} words[] = {
#define WORD(name, takes, fallback, role, meaning)                                                 \
	{ #name, takes, offsetof(struct injection, name), role, meaning },
#include "words.def"
};

const struct injection defaults = {
#define WORD(name, takes, fallback, role, meaning) .name = fallback,
#include "words.def"
};

static uint64_t *place_of(struct injection *injection, const struct word *word)
{
	return (uint64_t *)((char *)injection + word->offset);
}

/* The next text of `a|b|c`, put into `text`; NULL after the last one. */
static const char *next_taken(const char *takes, char text[LONGEST])
{
	size_t length = strcspn(takes, "|");

	if (!*takes)
		return NULL;
	snprintf(text, LONGEST, "%.*s", (int)length, takes);
	return takes + length + (takes[length] == '|');
}

static bool is_number(const char *text, uint64_t *number)
{
	char *end;

	*number = strtoull(text, &end, 0);
	return end != text && !*end;
}

/* The number that a text of a word stands for. */
static uint64_t number_of(const char *text)
{
	uint64_t number = 0;

	for (size_t i = 0; i < COUNT(values); i++)
		if (!strcmp(text, values[i].text))
			return values[i].number;
	is_number(text, &number);
	return number;
}

static bool read_value(const struct word *word, const char *text, uint64_t *value)
{
	uint64_t number, taken_number;
	bool numeric = is_number(text, &number);
	char taken[LONGEST];

	for (const char *rest = word->takes; (rest = next_taken(rest, taken));) {
		bool same = !strcmp(text, taken);

		if (numeric)
			same = !strcmp(taken, ANY_NUMBER) ||
			       (is_number(taken, &taken_number) && number == taken_number);
		if (same) {
			*value = numeric ? number : number_of(text);
			return true;
		}
	}
	json_error(EINVAL, word->takes, "%s cannot be %s", word->name, text);
	return false;
}

static bool read_word(struct injection *injection, char *text)
{
	char *equals = strchr(text, '=');

	if (equals)
		*equals = 0;
	for (size_t i = 0; equals && i < COUNT(words); i++)
		if (!strcmp(text, words[i].name))
			return read_value(&words[i], equals + 1, place_of(injection, &words[i]));
	json_error(EINVAL, "`l2gate-helper help cases` lists them", "there is no word %s", text);
	return false;
}

bool read_case(char *line, struct injection *injection)
{
	*injection = defaults;
	for (char *text = strtok(line, " \n"); text; text = strtok(NULL, " \n"))
		if (!read_word(injection, text))
			return false;
	return true;
}

/* As a case would say it. */
static const char *default_of(const struct word *word)
{
	static char text[LONGEST];
	struct injection injection = defaults;
	uint64_t number = *place_of(&injection, word);

	for (const char *rest = word->takes; (rest = next_taken(rest, text));)
		if (strcmp(text, ANY_NUMBER) && number_of(text) == number)
			return text;
	snprintf(text, sizeof(text), number < 10 ? "%llu" : "%#llx", (unsigned long long)number);
	return text;
}

static void help_role(enum role role)
{
	for (size_t i = 0; i < COUNT(words); i++)
		if (words[i].role == role)
			printf("  %s=%s [%s]\n      %s\n", words[i].name, words[i].takes,
			       default_of(&words[i]), words[i].meaning);
}

void help_cases(void)
{
	printf("A case is a line of words NAME=VALUE; [what holds where it does not say one].\n\n"
	       "What userspace hands to KVM:\n");
	help_role(SENT);
	printf("\nWhat is made ready before, and done afterwards:\n");
	help_role(SCENE);
	printf("\nConstants:\n");
	for (size_t i = 0; i < COUNT(constants); i++)
		printf("  %s %#llx\n      %s\n", constants[i].name,
		       (unsigned long long)constants[i].number, constants[i].meaning);
}

static void print_word(const struct word *word)
{
	char text[LONGEST];

	json_begin("word");
	json_text("name", word->name);
	json_list("takes");
	for (const char *rest = word->takes; (rest = next_taken(rest, text));)
		json_text(NULL, text);
	json_close_list();
	json_text("default", default_of(word));
	json_bool("sent", word->role == SENT);
	json_text("meaning", word->meaning);
	json_end();
}

int verb_words(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	for (size_t i = 0; i < COUNT(constants); i++) {
		json_begin("constant");
		json_text("name", constants[i].name);
		json_hex("value", constants[i].number);
		json_text("meaning", constants[i].meaning);
		json_end();
	}
	for (size_t i = 0; i < COUNT(words); i++)
		print_word(&words[i]);
	return DONE;
}
