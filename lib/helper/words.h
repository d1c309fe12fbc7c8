/* SPDX-License-Identifier: GPL-2.0-only */
/* The language of cases, made from words.def. */
#ifndef L2GATE_WORDS_H
#define L2GATE_WORDS_H

#include <stdbool.h>
#include <stdint.h>

enum constant {
#define CONSTANT(name, number, meaning) name = number,
#include "words.def"
};

enum value {
#define VALUE(name, number, text) name = number,
#include "words.def"
};

/* A case: what each word says, or its default. */
struct injection {
#define WORD(name, takes, fallback, role, meaning) uint64_t name;
#include "words.def"
};

extern const struct injection defaults;

/* Reads a line of words NAME=VALUE; prints an error line and returns false if it cannot. */
bool read_case(char *line, struct injection *injection);

/* For a person, and a JSON line for each constant and word. */
void help_cases(void);
int verb_words(int argc, char **argv);

#endif
