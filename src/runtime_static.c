/*
 * runtime_static.c - the C++ runtime that the program is linked with. See operator.h.
 */
#include "operator.h"

/* A program that has operators of its own is linked to them, and to none of ours. */
_Atomic bool hmm_runtime_is_ours = true;

void *hmm_runtime_replacement(enum basis basis)
{
    (void)basis;
    return NULL;
}

extern new_handler std_get_new_handler(void) __asm__("_ZSt15get_new_handlerv");
extern _Noreturn void std_throw_bad_alloc(void) __asm__("_ZSt17__throw_bad_allocv");

new_handler hmm_runtime_new_handler(void *caller)
{
    (void)caller;
    return std_get_new_handler();
}

void hmm_runtime_throw_bad_alloc(void *caller)
{
    (void)caller;
    std_throw_bad_alloc();
}
