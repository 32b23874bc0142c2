/*
 * names.h - the names under which glibc offers the family, which no header of it declares.
 */
#ifndef TESTS_DOORS_NAMES_H
#define TESTS_DOORS_NAMES_H

#include <stddef.h>

void *__libc_malloc(size_t bytes);
void __libc_free(void *ptr);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *ptr, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void *__libc_valloc(size_t bytes);
void *__libc_pvalloc(size_t bytes);

#endif
