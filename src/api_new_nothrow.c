/*
 * api_new_nothrow.c - the door for C++: operator new that returns NULL.
 *
 * In the shared libraries only. In a static program the runtime's own stand in their place, and
 * call the throwing ones, which are ours.
 */
#include "operator.h"

typedef void *(*new_nothrow)(size_t bytes, const void *nothrow);
typedef void *(*new_nothrow_aligned)(size_t bytes, size_t alignment, const void *nothrow);

/* The new-handler may throw, and so may the program's operator new; nothrow new must catch, which C
 * cannot. The runtime's own nothrow operator, hidden behind ours, does it right: it calls the
 * throwing one, and catches. */
static void *new_of_runtime(enum basis basis, size_t alignment, size_t bytes, const void *nothrow,
                            void *caller)
{
    static const char *const names[] = {
        [BASIS_NEW_ARRAY] = NEW_SYMBOL(_Zna, RKSt9nothrow_t),
        [BASIS_NEW] = NEW_SYMBOL(_Znw, RKSt9nothrow_t),
        [BASIS_NEW_ARRAY_ALIGNED] = NEW_SYMBOL(_Zna, St11align_val_tRKSt9nothrow_t),
        [BASIS_NEW_ALIGNED] = NEW_SYMBOL(_Znw, St11align_val_tRKSt9nothrow_t),
    };
    void *next = hmm_runtime_operator(names[basis], caller);
    if (next == NULL) {
        return NULL;
    }
    bool is_aligned = basis == BASIS_NEW_ALIGNED || basis == BASIS_NEW_ARRAY_ALIGNED;
    return is_aligned ? ((new_nothrow_aligned)(uintptr_t)next)(bytes, alignment, nothrow)
                      : ((new_nothrow)(uintptr_t)next)(bytes, nothrow);
}

static HMM_COLD void *new_retry(enum basis basis, size_t alignment, size_t bytes,
                                const void *nothrow, void *caller)
{
    return hmm_runtime_new_handler(caller) != NULL
               ? new_of_runtime(basis, alignment, bytes, nothrow, caller)
               : NULL;
}

static inline void *new_or_null(enum basis basis, size_t alignment, size_t bytes,
                                enum origin origin, const void *nothrow, void *caller)
{
    if (operators_may_be_replaced() && hmm_runtime_replacement(basis) != NULL) {
        return new_of_runtime(basis, alignment, bytes, nothrow, caller);
    }
    void *ptr = new_try(alignment, bytes, origin);
    return LIKELY(ptr != NULL) ? ptr : new_retry(basis, alignment, bytes, nothrow, caller);
}

OPERATOR(void *, operator_new_nothrow, _Znw, RKSt9nothrow_t, size_t bytes, const void *nothrow)
{
    return new_or_null(BASIS_NEW, 1, bytes, ORIGIN_NEW, nothrow, CALLER);
}

OPERATOR(void *, operator_new_aligned_nothrow, _Znw, St11align_val_tRKSt9nothrow_t, size_t bytes,
         size_t alignment, const void *nothrow)
{
    return new_or_null(BASIS_NEW_ALIGNED, alignment, bytes, ORIGIN_NEW, nothrow, CALLER);
}

OPERATOR(void *, operator_new_array_nothrow, _Zna, RKSt9nothrow_t, size_t bytes,
         const void *nothrow)
{
    return new_or_null(BASIS_NEW_ARRAY, 1, bytes, ORIGIN_NEW_ARRAY, nothrow, CALLER);
}

OPERATOR(void *, operator_new_array_aligned_nothrow, _Zna, St11align_val_tRKSt9nothrow_t,
         size_t bytes, size_t alignment, const void *nothrow)
{
    return new_or_null(BASIS_NEW_ARRAY_ALIGNED, alignment, bytes, ORIGIN_NEW_ARRAY, nothrow,
                       CALLER);
}
