/*
 * stack.c - coroutines with little stack: whatever a call has to do the first time, it needs
 * no more of it than the C library's malloc does on its first call by way of the dynamic
 * linker, twice over.
 */
#include "cases.h"

#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { STACK_BYTES = 8192, GUARD_BYTES = 65536 };

static ucontext_t outside;
static ucontext_t coroutine;

/* Each size first comes here. */
static void all_sizes(void)
{
    static char *blocks[100];
    size_t count = 0;
    for (size_t bytes = 1; bytes < (size_t)4 << 20 && count < 100; bytes += bytes / 4 + 1) {
        blocks[count] = malloc(bytes);
        REQUIRE(blocks[count] != NULL);
        memset(blocks[count], 1, bytes);
        count++;
    }
    for (size_t i = 0; i < count; i++) {
        char *moved = realloc(blocks[i], 3 * i * i + 1);
        REQUIRE(moved != NULL && *moved == 1);
        free(moved);
        free(calloc(i, i));
        free(aligned_alloc(4096, 4096 * i));
    }
}

/* Below the stack lies what must not be touched. */
static void on_a_small_stack(void (*run)(void))
{
    char *memory =
        mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    REQUIRE(mprotect(memory + GUARD_BYTES, STACK_BYTES, PROT_READ | PROT_WRITE) == 0);
    REQUIRE(getcontext(&coroutine) == 0);
    coroutine.uc_stack.ss_sp = memory + GUARD_BYTES;
    coroutine.uc_stack.ss_size = STACK_BYTES;
    coroutine.uc_link = &outside;
    makecontext(&coroutine, run, 0);
    REQUIRE(swapcontext(&outside, &coroutine) == 0);
}

static void eight_kibibytes_of_stack_are_enough(void)
{
    on_a_small_stack(all_sizes);
}

CASES_MAIN(CASE(eight_kibibytes_of_stack_are_enough))
