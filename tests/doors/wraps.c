/*
 * wraps.c - a library that wraps what maps memory, as profilers and drivers do, and
 * allocates in there.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

static _Thread_local int depth;

static void *next(const char *name)
{
    if (depth++ == 0) {
        void *volatile ptr = malloc(100);
        free(ptr);
    }
    void *found = dlsym(RTLD_NEXT, name);
    depth--;
    return found;
}

void *mmap(void *start, size_t bytes, int protection, int flags, int file, off_t offset)
{
    return ((void *(*)(void *, size_t, int, int, int, off_t))next("mmap"))(start, bytes, protection,
                                                                           flags, file, offset);
}

int munmap(void *start, size_t bytes)
{
    return ((int (*)(void *, size_t))next("munmap"))(start, bytes);
}

int mprotect(void *start, size_t bytes, int protection)
{
    return ((int (*)(void *, size_t, int))next("mprotect"))(start, bytes, protection);
}

int madvise(void *start, size_t bytes, int advice)
{
    return ((int (*)(void *, size_t, int))next("madvise"))(start, bytes, advice);
}

void *mremap(void *start, size_t bytes, size_t new_bytes, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *to = va_arg(arguments, void *);
    va_end(arguments);
    return ((void *(*)(void *, size_t, size_t, int, ...))next("mremap"))(start, bytes, new_bytes,
                                                                         flags, to);
}
