/*
 * freestanding.c - what the block heap wants of its surroundings, where there is no system.
 *
 * The last file of the two-file form. Without a kernel there is no secret: checksums and seals then
 * find accidents, and tell one heap's tags from another's, but stop nobody who means harm. A target
 * that has random numbers gives them by HmmHeapEntropy.
 */
#include "handle.h"

/* The default: nobody listens. */
__attribute__((weak)) void HmmHeapOnFatal(const char *call, const void *ptr, const char *crime)
{
    (void)call;
    (void)ptr;
    (void)crime;
}

/* The default: there are none. */
__attribute__((weak)) unsigned long long HmmHeapEntropy(void)
{
    return 0;
}

void hmm_fatal(const char *call, const void *pointer, const struct crime *crime, const void *heap)
{
    (void)heap;
    HmmHeapOnFatal(call, pointer, crime->what);
    __builtin_trap();
}

/* Differs from heap to heap, and from one life of the same memory to the next. */
uint64_t hmm_handle_secret(const void *memory)
{
    static uint32_t lives;
    lives++;
    return ((uint64_t)(uintptr_t)memory + lives) * 0x9e3779b97f4a7c15u ^ HmmHeapEntropy();
}

/* There are no options. */
HmmHardening hmm_handle_hardening(void)
{
    return HMM_HARDENING_NONE;
}

bool hmm_handle_has_sites(void)
{
    return false;
}

uint32_t hmm_handle_site(void)
{
    return 0;
}

bool hmm_handle_ignores_claims(void)
{
    return false;
}

/* There are no operators. */
bool hmm_handle_has_mixed_operators(void)
{
    return false;
}

const HmmHeap *hmm_handle_owner(const void *ptr)
{
    (void)ptr;
    return NULL;
}
