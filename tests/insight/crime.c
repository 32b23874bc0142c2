/*
 * crime.c - a double free, of a block of the size that is given, by functions that have names.
 */
#include <stdlib.h>

static __attribute__((noinline)) void *make(size_t bytes)
{
    return malloc(bytes);
}

static __attribute__((noinline)) void drop(void *block)
{
    free(block);
}

int main(int argc, char **argv)
{
    void *block = make(argc > 1 ? strtoul(argv[1], NULL, 10) : 40);
    drop(block);
    drop(block);
    return 0;
}
