/*
 * symbols.h - where in its source a module's code comes from. With elfutils from its debug
 * information; without, nothing is known.
 */
#ifndef HMM_SYMBOLS_H
#define HMM_SYMBOLS_H

#include <stdint.h>
#include <stdio.h>

/* Texts live until the next call; NULL: not known. */
struct place {
    const char *function;
    const char *file;
    int line;
};

/* `offset` is an address as the module's file has it, inside a call. */
struct place symbols_find(const char *module, uintptr_t offset);

/* " in FUNCTION FILE:LINE" and a newline, as far as that is known; " (MODULE+OFFSET)" for the
 * rest. */
void symbols_print(FILE *stream, const char *module, uintptr_t offset);

#endif
