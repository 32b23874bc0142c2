/*
 * leaky.c - a program that loses what insight.t looks for, and keeps the rest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    char text[40];
};

void *volatile kept; /* reachable to the end */

static __attribute__((noinline)) void *grow(size_t bytes)
{
    return malloc(bytes);
}

static __attribute__((noinline)) void lose_one(void)
{
    void *volatile lost = grow(1000);
    lost = NULL;
    (void)lost;
}

static __attribute__((noinline)) void lose_list(void)
{
    struct node *volatile head = NULL;
    for (int i = 0; i < 3; i++) {
        struct node *node = calloc(1, sizeof *node);
        node->next = head;
        head = node;
    }
    head = NULL;
}

static __attribute__((noinline)) void lose_large(void)
{
    void *volatile lost = grow(1 << 20);
    lost = NULL;
    (void)lost;
}

/* What calls left on the stack could still point to what they lost. */
static __attribute__((noinline)) void stack_clear(void)
{
    volatile char bytes[16384];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = 0;
    }
}

int main(int argc, char **argv)
{
    (void)argv;
    kept = grow(123);
    free(malloc(77));
    if (argc > 1) {
        lose_one();
        lose_list();
        lose_large();
    }
    stack_clear();
    puts("done");
    return argc > 1 ? 3 : 4;
}
