/*
 * announce.h - a crime says beforehand, on standard output, what the library must say about it.
 *
 * So the whole line can be compared. Words in capitals stand for what a program cannot know, and
 * crimes.t puts them into the line that came: HEAP for the address of the process heap, BYTES for a
 * size, TID for a thread.
 */
#ifndef ANNOUNCE_H
#define ANNOUNCE_H

#include "cases.h"

#include <malloc.h>
#include <stdint.h>

enum { TAG_BYTES = sizeof(uintptr_t), LIMIT_SECONDS = 30 };

/* One line, by one write and without stdio, whose buffer would be a block among those that we count
 * on. */
__attribute__((format(printf, 1, 2))) static inline void announce_line(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    REQUIRE(length > 0 && length < (int)sizeof line);
    REQUIRE(write(STDOUT_FILENO, line, (size_t)length) == length);
}

/* Before anything else: a crime that hangs dies of another signal than it should. */
static inline void announce_start(void)
{
    alarm(LIMIT_SECONDS);
}

/* `evidence` may be empty, or ends in a comma and a space. */
static inline void announce(const char *call, const void *ptr, const char *what,
                            const char *evidence)
{
    announce_line("hmm: %s(0x%lx): %s: %sheap HEAP, thread %d\n", call, (unsigned long)ptr, what,
                  evidence, (int)gettid());
}

/* Evidence: the texts live as long as the crime. */
static inline const char *block_of_bytes(const void *ptr, size_t block_bytes)
{
    static _Thread_local char text[100];
    snprintf(text, sizeof text, "block of %zu bytes at 0x%lx, ", block_bytes,
             (unsigned long)ptr - TAG_BYTES);
    return text;
}

/* A live block of malloc's. */
static inline const char *block_at(void *ptr)
{
    return block_of_bytes(ptr, malloc_usable_size(ptr) + TAG_BYTES);
}

/* A block whose size nobody can know. */
static inline const char *some_block_at(const void *ptr)
{
    static _Thread_local char text[100];
    snprintf(text, sizeof text, "block of BYTES bytes at 0x%lx, ", (unsigned long)ptr - TAG_BYTES);
    return text;
}

static inline const char *tag_at(const void *ptr)
{
    static _Thread_local char text[100];
    snprintf(text, sizeof text, "tag at 0x%lx, ", (unsigned long)ptr - TAG_BYTES);
    return text;
}

/* Changes `bytes` bytes for certain. */
static inline void damage(void *at, size_t bytes)
{
    volatile unsigned char *byte = (volatile unsigned char *)at;
    for (size_t i = 0; i < bytes; i++) {
        byte[i] = (unsigned char)~byte[i];
    }
}

#endif
