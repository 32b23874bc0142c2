/*
 * stub.c - takes the addresses of malloc and free, which in a program at fixed addresses are
 * those of stubs.
 */
#include <stdlib.h>

int main(void)
{
    void *(*volatile take)(size_t) = malloc;
    void (*volatile give)(void *) = free;
    give(take(1));
    return 0;
}
