/*
 * api_new_nothrow.c - the door for C++: operator new that returns NULL.
 *
 * In the shared libraries only. In a static program the runtime's own stand in their place, and
 * call the throwing ones, which are ours.
 */
#include "operator.h"

typedef void *(*new_nothrow)(size_t bytes, const void *nothrow);
typedef void *(*new_nothrow_aligned)(size_t bytes, size_t alignment, const void *nothrow);

/* The new-handler may throw, and nothrow new must catch, which C cannot. The runtime's own nothrow
 * operator, hidden behind ours, does it right: it calls the throwing one, and catches. */
static HMM_COLD void *new_retry(size_t alignment, size_t bytes, const void *nothrow, void *caller)
{
    bool is_aligned_new = alignment > NEW_ALIGNMENT;
    const char *name = is_aligned_new ? NEW_SYMBOL(_Znw, St11align_val_tRKSt9nothrow_t)
                                      : NEW_SYMBOL(_Znw, RKSt9nothrow_t);
    void *next =
        hmm_runtime_new_handler(caller) != NULL ? hmm_runtime_operator(name, caller) : NULL;
    if (next == NULL) {
        return NULL;
    }
    return is_aligned_new ? ((new_nothrow_aligned)(uintptr_t)next)(bytes, alignment, nothrow)
                          : ((new_nothrow)(uintptr_t)next)(bytes, nothrow);
}

static inline void *new_or_null(size_t alignment, size_t bytes, enum origin origin,
                                const void *nothrow, void *caller)
{
    void *ptr = new_try(alignment, bytes, origin);
    return LIKELY(ptr != NULL) ? ptr : new_retry(alignment, bytes, nothrow, caller);
}

OPERATOR(void *, operator_new_nothrow, _Znw, RKSt9nothrow_t, size_t bytes, const void *nothrow)
{
    return new_or_null(1, bytes, ORIGIN_NEW, nothrow, CALLER);
}

OPERATOR(void *, operator_new_aligned_nothrow, _Znw, St11align_val_tRKSt9nothrow_t, size_t bytes,
         size_t alignment, const void *nothrow)
{
    return new_or_null(alignment, bytes, ORIGIN_NEW, nothrow, CALLER);
}

OPERATOR(void *, operator_new_array_nothrow, _Zna, RKSt9nothrow_t, size_t bytes,
         const void *nothrow)
{
    return new_or_null(1, bytes, ORIGIN_NEW_ARRAY, nothrow, CALLER);
}

OPERATOR(void *, operator_new_array_aligned_nothrow, _Zna, St11align_val_tRKSt9nothrow_t,
         size_t bytes, size_t alignment, const void *nothrow)
{
    return new_or_null(alignment, bytes, ORIGIN_NEW_ARRAY, nothrow, CALLER);
}
