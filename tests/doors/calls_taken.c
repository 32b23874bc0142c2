/*
 * calls_taken.c - a library that has its own syscall(), as torsocks has, in which malloc must not
 * arrive: what that does there may itself wait for malloc's caller.
 */
#include <stdlib.h>

long syscall(long number, ...)
{
    (void)number;
    abort();
}
