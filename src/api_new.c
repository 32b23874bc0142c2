/*
 * api_new.c - the door for C++: operator new and delete, by their mangled names.
 *
 * Written in C so that the library needs no C++ runtime; compiled with -fexceptions, because the
 * new-handler and bad_alloc unwind through it.
 */
#include "operator.h"

/* The handler frees memory, and then it is worth another try; or throws; or ends the program. */
static HMM_COLD void *new_retry(size_t alignment, size_t bytes, void *caller)
{
    void *ptr = NULL;
    while (ptr == NULL) {
        new_handler handler = hmm_runtime_new_handler(caller);
        if (handler == NULL) {
            hmm_runtime_throw_bad_alloc(caller);
        }
        handler();
        ptr = new_try(alignment, bytes);
    }
    return ptr;
}

static HMM_COLD void *new_slow(size_t alignment, size_t bytes, void *caller)
{
    void *ptr = new_try(alignment, bytes);
    return LIKELY(ptr != NULL) ? ptr : new_retry(alignment, bytes, caller);
}

/* What a bin has needs no frame. */
static inline void *new_or_throw(size_t bytes, void *caller)
{
    if (LIKELY(bytes <= SMALL_BYTES_MAX)) {
        struct slot *slot = bin_pop(class_of(bytes));
        if (LIKELY(slot != NULL)) {
            return slot;
        }
    }
    return new_slow(1, bytes, caller);
}

/* ------------------------------------------------------------------------------ operator new */

OPERATOR(void *, operator_new, _Znw, , size_t bytes)
{
    return new_or_throw(bytes, CALLER);
}

OPERATOR(void *, operator_new_aligned, _Znw, St11align_val_t, size_t bytes, size_t alignment)
{
    return new_slow(alignment, bytes, CALLER);
}

OPERATOR(void *, operator_new_array, _Zna, , size_t bytes)
{
    return new_or_throw(bytes, CALLER);
}

OPERATOR(void *, operator_new_array_aligned, _Zna, St11align_val_t, size_t bytes, size_t alignment)
{
    return new_slow(alignment, bytes, CALLER);
}

/* ---------------------------------------------------------------------------- operator delete */

/* All of them free; what some are told besides is not needed for that. */
#define OPERATOR_DELETE(function, symbol, ...)                                                     \
    HMM_API void function(__VA_ARGS__) __asm__(symbol);                                            \
    void function(__VA_ARGS__)                                                                     \
    {                                                                                              \
        free_fast(ptr);                                                                            \
    }

#define UNUSED __attribute__((unused))

OPERATOR_DELETE(operator_delete, "_ZdlPv", void *ptr)
OPERATOR_DELETE(operator_delete_sized, NEW_SYMBOL(_ZdlPv, ), void *ptr, UNUSED size_t bytes)
OPERATOR_DELETE(operator_delete_nothrow, "_ZdlPvRKSt9nothrow_t", void *ptr,
                UNUSED const void *nothrow)
OPERATOR_DELETE(operator_delete_aligned, "_ZdlPvSt11align_val_t", void *ptr,
                UNUSED size_t alignment)
OPERATOR_DELETE(operator_delete_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t", void *ptr,
                UNUSED size_t alignment, UNUSED const void *nothrow)
OPERATOR_DELETE(operator_delete_sized_aligned, NEW_SYMBOL(_ZdlPv, St11align_val_t), void *ptr,
                UNUSED size_t bytes, UNUSED size_t alignment)
OPERATOR_DELETE(operator_delete_array, "_ZdaPv", void *ptr)
OPERATOR_DELETE(operator_delete_array_sized, NEW_SYMBOL(_ZdaPv, ), void *ptr, UNUSED size_t bytes)
OPERATOR_DELETE(operator_delete_array_nothrow, "_ZdaPvRKSt9nothrow_t", void *ptr,
                UNUSED const void *nothrow)
OPERATOR_DELETE(operator_delete_array_aligned, "_ZdaPvSt11align_val_t", void *ptr,
                UNUSED size_t alignment)
OPERATOR_DELETE(operator_delete_array_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t",
                void *ptr, UNUSED size_t alignment, UNUSED const void *nothrow)
OPERATOR_DELETE(operator_delete_array_sized_aligned, NEW_SYMBOL(_ZdaPv, St11align_val_t), void *ptr,
                UNUSED size_t bytes, UNUSED size_t alignment)
