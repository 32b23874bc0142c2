/*
 * symbols.h - where in its source a module's code comes from. With elfutils from its debug
 * information; without, nothing is known.
 */
#ifndef HMM_SYMBOLS_H
#define HMM_SYMBOLS_H

#include <stdint.h>

/* Texts live until the next call; NULL: not known. */
struct place {
    const char *function;
    const char *file;
    int line;
};

/* `offset` is an address as the module's file has it, inside a call. */
struct place symbols_find(const char *module, uintptr_t offset);

#endif
