/*
 * privileged.c - tells whether the system calls the process privileged (AT_SECURE), and whether
 * malloc works.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

int main(void)
{
    void *block = malloc(100);
    puts(block == NULL ? "no memory" : getauxval(AT_SECURE) != 0 ? "privileged" : "ordinary");
    free(block);
    return EXIT_SUCCESS;
}
