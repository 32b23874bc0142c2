/*
 * symbols.c - a place in a module as people read it. See symbols.h.
 */
#include "symbols.h"

#include <stddef.h>

void symbols_print(FILE *stream, const char *module, uintptr_t offset)
{
    const struct place place = symbols_find(module, offset);
    if (place.function != NULL) {
        fprintf(stream, " in %s", place.function);
    }
    if (place.file != NULL) {
        fprintf(stream, " %s:%d\n", place.file, place.line);
    } else {
        fprintf(stream, " (%s+0x%zx)\n", module, (size_t)offset);
    }
}
