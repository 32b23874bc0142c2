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

/* -------------------------------------------------------------------- what the program replaces */

_Atomic bool hmm_runtime_is_ours;

/* Ours, and what the program is linked to by its mangled name: of their own types, for who links
 * all of it at once compares these with the definitions. */
#define BASES(BASE)                                                                                \
    BASE(NEW_ARRAY, void *, operator_new_array, NEW_SYMBOL(_Zna, ), size_t bytes)                  \
    BASE(NEW, void *, operator_new, NEW_SYMBOL(_Znw, ), size_t bytes)                              \
    BASE(NEW_ARRAY_ALIGNED, void *, operator_new_array_aligned, NEW_SYMBOL(_Zna, St11align_val_t), \
         size_t bytes, size_t alignment)                                                           \
    BASE(NEW_ALIGNED, void *, operator_new_aligned, NEW_SYMBOL(_Znw, St11align_val_t),             \
         size_t bytes, size_t alignment)                                                           \
    BASE(DELETE_ARRAY, void, operator_delete_array, "_ZdaPv", void *ptr)                           \
    BASE(DELETE, void, operator_delete, "_ZdlPv", void *ptr)                                       \
    BASE(DELETE_ARRAY_ALIGNED, void, operator_delete_array_aligned, "_ZdaPvSt11align_val_t",       \
         void *ptr, size_t alignment)                                                              \
    BASE(DELETE_ALIGNED, void, operator_delete_aligned, "_ZdlPvSt11align_val_t", void *ptr,        \
         size_t alignment)

#define DECLARE(basis, type, function, symbol, ...)                                                \
    extern HMM_HIDDEN type own_##function(__VA_ARGS__) __asm__("hmm_" #function);                  \
    extern type linked_##function(__VA_ARGS__) __asm__(symbol) __attribute__((weak));

#define PAIR(basis, type, function, symbol, ...)                                                   \
    [BASIS_##basis] = {(any_function)own_##function, (any_function)linked_##function},

BASES(DECLARE)

typedef void (*any_function)(void);

static const struct {
    any_function own;
    any_function linked;
} bases[BASIS_COUNT] = {BASES(PAIR)};

/* An address of which compilers know nothing: they take for granted that two names
 * are two functions. */
static uintptr_t address_of(any_function function)
{
    uintptr_t address = (uintptr_t)function;
    __asm__("" : "+r"(address));
    return address;
}

static void *replacement_of(enum basis basis)
{
    uintptr_t linked = address_of(bases[basis].linked);
    return linked != address_of(bases[basis].own) ? (void *)linked : NULL;
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
