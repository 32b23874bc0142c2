/*
 * own_operators.h - what own_operators.cc makes, and ends.
 */
#ifndef OWN_OPERATORS_H
#define OWN_OPERATORS_H

#include <cstddef>

struct small {
    char bytes[40];
};

struct medium {
    char bytes[20000];
};

struct large {
    char bytes[500000];
};

struct alignas(128) lined {
    char bytes[100];
};

small *make_small();
medium *make_medium();
large *make_large();
lined *make_lined();
char *make_bytes(std::size_t count);
void end(small *thing);
void end(medium *thing);
void end(large *thing);
void end(lined *thing);

#endif
