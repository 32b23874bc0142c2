/*
 * api_new.c - the door for C++: operator new and delete, by their mangled names.
 *
 * Written in C so that the library needs no C++ runtime; compiled with -fexceptions, because the
 * new-handler and bad_alloc unwind through it.
 */
#include "operator.h"
#include "operators.h"

/* The handler frees memory, and then it is worth another try; or throws; or ends the program. No
 * memory is enough for what is no alignment. */
static HMM_COLD void *new_retry(size_t alignment, size_t bytes, enum origin origin, void *caller)
{
    void *ptr = NULL;
    while (ptr == NULL) {
        new_handler handler = hmm_runtime_new_handler(caller);
        if (handler == NULL || !is_power_of_two(alignment)) {
            hmm_runtime_throw_bad_alloc(caller);
        }
        handler();
        ptr = new_try(alignment, bytes, origin);
    }
    return ptr;
}

static HMM_COLD void *new_slow(size_t alignment, size_t bytes, enum origin origin, void *caller)
{
    void *ptr = new_try(alignment, bytes, origin);
    return LIKELY(ptr != NULL) ? ptr : new_retry(alignment, bytes, origin, caller);
}

/* What is not short may still be in a guarded thread's bin. */
static HMM_NOINLINE void *new_long(size_t bytes, enum origin origin, void *caller)
{
    void *ptr = hmm_guard_malloc(bytes, origin);
    return LIKELY(ptr != NULL) ? ptr : new_slow(1, bytes, origin, caller);
}

typedef void *(*replaced_new)(size_t bytes);
typedef void *(*replaced_new_aligned)(size_t bytes, size_t alignment);
typedef void (*replaced_delete)(void *ptr);
typedef void (*replaced_delete_aligned)(void *ptr, size_t alignment);

/* What a bin has needs no frame. */
static inline void *new_or_throw(size_t bytes, enum origin origin, void *caller)
{
    if (HMM_SECURE) {
        void *ptr = guard_malloc_short(bytes, origin);
        return LIKELY(ptr != NULL) ? ptr : new_long(bytes, origin, caller);
    }
    if (LIKELY(bytes <= SMALL_BYTES_MAX)) {
        struct slot *slot = bin_pop(class_of(bytes));
        if (LIKELY(slot != NULL)) {
            return slot;
        }
    }
    return new_slow(1, bytes, origin, caller);
}

static HMM_COLD void *new_array_replaced(size_t bytes, void *caller)
{
    void *replacement = hmm_runtime_replacement(BASIS_NEW);
    return replacement != NULL ? ((replaced_new)(uintptr_t)replacement)(bytes)
                               : new_or_throw(bytes, ORIGIN_NEW_ARRAY, caller);
}

HMM_COLD bool hmm_new_is_replaced(void)
{
    return hmm_runtime_replacement(BASIS_NEW_ARRAY) != NULL ||
           hmm_runtime_replacement(BASIS_NEW_ARRAY_ALIGNED) != NULL;
}

/* --------------------------------------------------------------------------------- operator new */

OPERATOR(void *, operator_new, _Znw, , size_t bytes)
{
    return new_or_throw(bytes, ORIGIN_NEW, CALLER);
}

OPERATOR(void *, operator_new_aligned, _Znw, St11align_val_t, size_t bytes, size_t alignment)
{
    return new_slow(alignment, bytes, ORIGIN_NEW, CALLER);
}

OPERATOR(void *, operator_new_array, _Zna, , size_t bytes)
{
    if (operators_may_be_replaced()) {
        return new_array_replaced(bytes, CALLER);
    }
    return new_or_throw(bytes, ORIGIN_NEW_ARRAY, CALLER);
}

OPERATOR(void *, operator_new_array_aligned, _Zna, St11align_val_t, size_t bytes, size_t alignment)
{
    void *replacement =
        operators_may_be_replaced() ? hmm_runtime_replacement(BASIS_NEW_ALIGNED) : NULL;
    if (UNLIKELY(replacement != NULL)) {
        return ((replaced_new_aligned)(uintptr_t)replacement)(bytes, alignment);
    }
    return new_slow(alignment, bytes, ORIGIN_NEW_ARRAY, CALLER);
}

/* ------------------------------------------------------------------------------ operator delete */

/* Apart, so that what most calls do keeps the claim in registers. */
static HMM_NOINLINE void delete_slow(void *ptr, const char *call, size_t bytes, bool has_bytes,
                                     size_t alignment, enum origin origin)
{
    hmm_free_claimed(ptr, &(struct claim){.call = call,
                                          .bytes = bytes,
                                          .alignment = alignment,
                                          .origin = origin,
                                          .has_bytes = has_bytes});
}

static HMM_COLD bool delete_by_replacement(enum basis basis, void *ptr, size_t alignment)
{
    void *replacement = hmm_runtime_replacement(basis);
    if (replacement == NULL) {
        return false;
    }
    if (basis == BASIS_DELETE_ALIGNED || basis == BASIS_DELETE_ARRAY_ALIGNED) {
        ((replaced_delete_aligned)(uintptr_t)replacement)(ptr, alignment);
    } else {
        ((replaced_delete)(uintptr_t)replacement)(ptr);
    }
    return true;
}

/* What they are told besides is for the guard: without one, all of them free. */
#define OPERATOR_DELETE(function, symbol, its_call, its_origin, its_bytes, has_its_bytes,          \
                        its_alignment, its_basis, ...)                                             \
    static inline void function##_ours(void *ptr, size_t bytes, size_t alignment)                  \
    {                                                                                              \
        const struct claim claim = {.call = its_call,                                              \
                                    .bytes = bytes,                                                \
                                    .alignment = alignment,                                        \
                                    .origin = its_origin,                                          \
                                    .has_bytes = has_its_bytes};                                   \
        if (UNLIKELY(!free_try(ptr, &claim))) {                                                    \
            delete_slow(ptr, its_call, bytes, has_its_bytes, alignment, its_origin);               \
        }                                                                                          \
    }                                                                                              \
    static HMM_COLD void function##_replaced(void *ptr, size_t bytes, size_t alignment)            \
    {                                                                                              \
        if (!delete_by_replacement(its_basis, ptr, alignment)) {                                   \
            function##_ours(ptr, bytes, alignment);                                                \
        }                                                                                          \
    }                                                                                              \
    OPERATOR_NAMED(void, function, symbol, __VA_ARGS__)                                            \
    {                                                                                              \
        if ((its_basis) != BASIS_NONE && operators_may_be_replaced()) {                            \
            function##_replaced(ptr, its_bytes, its_alignment);                                    \
        } else {                                                                                   \
            function##_ours(ptr, its_bytes, its_alignment);                                        \
        }                                                                                          \
    }

#define DELETE(function, symbol, basis, bytes, has_bytes, alignment, ...)                          \
    OPERATOR_DELETE(operator_delete##function, symbol, "operator delete", ORIGIN_NEW, bytes,       \
                    has_bytes, alignment, BASIS_##basis, __VA_ARGS__)
#define DELETE_ARRAY(function, symbol, basis, bytes, has_bytes, alignment, ...)                    \
    OPERATOR_DELETE(operator_delete_array##function, symbol, "operator delete[]",                  \
                    ORIGIN_NEW_ARRAY, bytes, has_bytes, alignment, BASIS_##basis, __VA_ARGS__)

#define UNUSED __attribute__((unused))

DELETE(, "_ZdlPv", NONE, 0, false, 0, void *ptr)
DELETE(_sized, NEW_SYMBOL(_ZdlPv, ), DELETE, bytes, true, 0, void *ptr, size_t bytes)
DELETE(_nothrow, "_ZdlPvRKSt9nothrow_t", DELETE, 0, false, 0, void *ptr, UNUSED const void *nothrow)
DELETE(_aligned, "_ZdlPvSt11align_val_t", NONE, 0, false, alignment, void *ptr, size_t alignment)
DELETE(_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t", DELETE_ALIGNED, 0, false, alignment,
       void *ptr, size_t alignment, UNUSED const void *nothrow)
DELETE(_sized_aligned, NEW_SYMBOL(_ZdlPv, St11align_val_t), DELETE_ALIGNED, bytes, true, alignment,
       void *ptr, size_t bytes, size_t alignment)
DELETE_ARRAY(, "_ZdaPv", DELETE, 0, false, 0, void *ptr)
DELETE_ARRAY(_sized, NEW_SYMBOL(_ZdaPv, ), DELETE_ARRAY, bytes, true, 0, void *ptr, size_t bytes)
DELETE_ARRAY(_nothrow, "_ZdaPvRKSt9nothrow_t", DELETE_ARRAY, 0, false, 0, void *ptr,
             UNUSED const void *nothrow)
DELETE_ARRAY(_aligned, "_ZdaPvSt11align_val_t", DELETE_ALIGNED, 0, false, alignment, void *ptr,
             size_t alignment)
DELETE_ARRAY(_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t", DELETE_ARRAY_ALIGNED, 0,
             false, alignment, void *ptr, size_t alignment, UNUSED const void *nothrow)
DELETE_ARRAY(_sized_aligned, NEW_SYMBOL(_ZdaPv, St11align_val_t), DELETE_ARRAY_ALIGNED, bytes, true,
             alignment, void *ptr, size_t bytes, size_t alignment)
