/*
 * own_malloc.c - a program with an allocator of its own, which comes before any preloaded one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Alignas(16) char memory[1 << 20];
static size_t used;

void *malloc(size_t bytes)
{
    char *block = memory + used;
    used += (bytes + 15) & ~(size_t)15;
    return used <= sizeof memory ? block : NULL;
}

void free(void *ptr)
{
    (void)ptr;
}

void *calloc(size_t count, size_t bytes)
{
    return malloc(count * bytes);
}

void *realloc(void *ptr, size_t bytes)
{
    void *block = malloc(bytes);
    return ptr != NULL && block != NULL ? memmove(block, ptr, bytes) : block;
}

int main(void)
{
    char *text = strdup("mine");
    puts(text);
    free(text);
    return 0;
}
