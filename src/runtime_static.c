/*
 * runtime_static.c - the C++ runtime that the program is linked with. See operator.h.
 */
#include "operator.h"

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

/* ----------------------------------------------------------------------- what the program replaces */

_Atomic bool hmm_runtime_is_ours;

/* Ours, and what the program is linked to by its mangled name. Weak, so that compilers do not take for granted that two
 * names are two functions. */
#define BASES(BASE)                                                                                \
    BASE(NEW_ARRAY, operator_new_array, NEW_SYMBOL(_Zna, ))                                        \
    BASE(NEW, operator_new, NEW_SYMBOL(_Znw, ))                                                    \
    BASE(NEW_ARRAY_ALIGNED, operator_new_array_aligned, NEW_SYMBOL(_Zna, St11align_val_t))         \
    BASE(NEW_ALIGNED, operator_new_aligned, NEW_SYMBOL(_Znw, St11align_val_t))                     \
    BASE(DELETE_ARRAY, operator_delete_array, "_ZdaPv")                                            \
    BASE(DELETE, operator_delete, "_ZdlPv")                                                        \
    BASE(DELETE_ARRAY_ALIGNED, operator_delete_array_aligned, "_ZdaPvSt11align_val_t")             \
    BASE(DELETE_ALIGNED, operator_delete_aligned, "_ZdlPvSt11align_val_t")

#define DECLARE(basis, function, symbol)                                                           \
    extern HMM_HIDDEN const char own_##function[] __asm__("hmm_" #function);                       \
    extern const char linked_##function[] __asm__(symbol) __attribute__((weak));

#define PAIR(basis, function, symbol) [BASIS_##basis] = {own_##function, linked_##function},

BASES(DECLARE)

static const struct {
    const char *own;
    const char *linked;
} bases[BASIS_COUNT] = {BASES(PAIR)};

static void *replacement_of(enum basis basis)
{
    return bases[basis].linked != bases[basis].own ? (void *)(uintptr_t)bases[basis].linked : NULL;
}

HMM_COLD void *hmm_runtime_replacement(enum basis basis)
{
    bool is_ours = true;
    for (unsigned other = 0; other < BASIS_COUNT; other++) {
        is_ours = is_ours && replacement_of((enum basis)other) == NULL;
    }
    atomic_store_explicit(&hmm_runtime_is_ours, is_ours, memory_order_relaxed);
    void *found = replacement_of(basis);
    return found == NULL && basis_is_array(basis) ? replacement_of(basis + 1) : found;
}
