/*
 * api_new.c - the door for C++: every operator new and delete, by its mangled name.
 *
 * Written in C so that the library needs no C++ runtime. What new needs of one when memory runs
 * out (the new-handler, and throwing bad_alloc) is asked for weakly: a C++ program has it.
 *
 * The file is compiled with -fexceptions, because the handler and bad_alloc unwind through it.
 */
#include "base.h"
#include "hmm.h"

#include <dlfcn.h>
#include <stdlib.h>

#if UINTPTR_MAX > UINT32_MAX
#define NEW_NAME(name, rest) name##m##rest
#else
#define NEW_NAME(name, rest) name##j##rest
#endif
#define NEW_SYMBOL_TEXT(symbol) #symbol
#define NEW_SYMBOL(name, rest) NEW_SYMBOL_EXPAND(NEW_NAME(name, rest))
#define NEW_SYMBOL_EXPAND(symbol) NEW_SYMBOL_TEXT(symbol)

/* Declares an operator and gives it its mangled name, in which size_t is m or j. */
#define OPERATOR(type, function, name, rest, ...)                                                  \
    HMM_API type function(__VA_ARGS__) __asm__(NEW_SYMBOL(name, rest));                            \
    type function(__VA_ARGS__)

typedef void (*new_handler)(void);
typedef void *(*new_nothrow)(size_t bytes, const void *nothrow);
typedef void *(*new_nothrow_aligned)(size_t bytes, size_t alignment, const void *nothrow);

extern new_handler std_get_new_handler(void) __asm__("_ZSt15get_new_handlerv")
    __attribute__((weak));
extern void std_throw_bad_alloc(void) __asm__("_ZSt17__throw_bad_allocv") __attribute__((weak));
extern void *dlsym(void *handle, const char *name) __attribute__((weak));

enum { NEW_ALIGNMENT = 2 * sizeof(void *) };

static void *new_try(size_t alignment, size_t bytes)
{
    return alignment <= NEW_ALIGNMENT ? HmmAlloc(bytes) : HmmAlignedAlloc(alignment, bytes);
}

static new_handler new_get_handler(void)
{
    return std_get_new_handler != NULL ? std_get_new_handler() : NULL;
}

/* The handler frees memory, and then it is worth another try; or throws; or ends the program. */
static void *new_or_throw(size_t alignment, size_t bytes)
{
    void *ptr = new_try(alignment, bytes);
    while (UNLIKELY(ptr == NULL)) {
        new_handler handler = new_get_handler();
        if (handler == NULL) {
            if (std_throw_bad_alloc != NULL) {
                std_throw_bad_alloc();
            }
            abort();
        }
        handler();
        ptr = new_try(alignment, bytes);
    }
    return ptr;
}

/* The handler may throw, and nothrow new must catch, which C cannot. The C++ runtime's own nothrow
 * operator, hidden behind ours, does it right: it calls the throwing one, which is ours, and
 * catches. Where there is none behind (a static program) the handler is called directly. */
static HMM_COLD void *new_retry_or_null(size_t alignment, size_t bytes, const void *nothrow)
{
    if (new_get_handler() == NULL) {
        return NULL;
    }
    bool is_aligned_new = alignment > NEW_ALIGNMENT;
    const char *name = is_aligned_new ? NEW_SYMBOL(_Znw, St11align_val_tRKSt9nothrow_t)
                                      : NEW_SYMBOL(_Znw, RKSt9nothrow_t);
    void *next = dlsym != NULL ? dlsym(RTLD_NEXT, name) : NULL;
    if (next == NULL) {
        return new_or_throw(alignment, bytes);
    }
    return is_aligned_new ? ((new_nothrow_aligned)(uintptr_t)next)(bytes, alignment, nothrow)
                          : ((new_nothrow)(uintptr_t)next)(bytes, nothrow);
}

static void *new_or_null(size_t alignment, size_t bytes, const void *nothrow)
{
    void *ptr = new_try(alignment, bytes);
    return LIKELY(ptr != NULL) ? ptr : new_retry_or_null(alignment, bytes, nothrow);
}

/* ------------------------------------------------------------------------------ operator new */

OPERATOR(void *, operator_new, _Znw, , size_t bytes)
{
    return new_or_throw(1, bytes);
}

OPERATOR(void *, operator_new_nothrow, _Znw, RKSt9nothrow_t, size_t bytes,
         const void *nothrow)
{
    return new_or_null(1, bytes, nothrow);
}

OPERATOR(void *, operator_new_aligned, _Znw, St11align_val_t, size_t bytes,
         size_t alignment)
{
    return new_or_throw(alignment, bytes);
}

OPERATOR(void *, operator_new_aligned_nothrow, _Znw, St11align_val_tRKSt9nothrow_t,
         size_t bytes, size_t alignment, const void *nothrow)
{
    return new_or_null(alignment, bytes, nothrow);
}

OPERATOR(void *, operator_new_array, _Zna, , size_t bytes)
{
    return new_or_throw(1, bytes);
}

OPERATOR(void *, operator_new_array_nothrow, _Zna, RKSt9nothrow_t, size_t bytes,
         const void *nothrow)
{
    return new_or_null(1, bytes, nothrow);
}

OPERATOR(void *, operator_new_array_aligned, _Zna, St11align_val_t, size_t bytes,
         size_t alignment)
{
    return new_or_throw(alignment, bytes);
}

OPERATOR(void *, operator_new_array_aligned_nothrow, _Zna, St11align_val_tRKSt9nothrow_t,
         size_t bytes, size_t alignment, const void *nothrow)
{
    return new_or_null(alignment, bytes, nothrow);
}

/* ---------------------------------------------------------------------------- operator delete */

/* All of them free; what some are told besides is not needed for that. */
#define OPERATOR_DELETE(function, symbol, ...)                                                     \
    HMM_API void function(__VA_ARGS__) __asm__(symbol);                                            \
    void function(__VA_ARGS__)                                                                     \
    {                                                                                              \
        HmmFree(ptr);                                                                              \
    }

#define UNUSED __attribute__((unused))

OPERATOR_DELETE(operator_delete, "_ZdlPv", void *ptr)
OPERATOR_DELETE(operator_delete_sized, NEW_SYMBOL(_ZdlPv, ), void *ptr, UNUSED size_t bytes)
OPERATOR_DELETE(operator_delete_nothrow, "_ZdlPvRKSt9nothrow_t", void *ptr,
                UNUSED const void *nothrow)
OPERATOR_DELETE(operator_delete_aligned, "_ZdlPvSt11align_val_t", void *ptr,
                UNUSED size_t alignment)
OPERATOR_DELETE(operator_delete_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t",
                void *ptr, UNUSED size_t alignment, UNUSED const void *nothrow)
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
