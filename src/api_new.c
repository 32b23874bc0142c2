/*
 * api_new.c - the door for C++: every operator new and delete, by its mangled name.
 *
 * Written in C so that the library needs no C++ runtime. What new needs of one when memory runs
 * out (the new-handler, and throwing bad_alloc) is looked up then: whoever calls new has it. Only
 * the shared libraries hold this file. A static C++ program has its runtime's operators, which do
 * all of this and call our malloc.
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

enum { NEW_ALIGNMENT = 2 * sizeof(void *) };

/* A function of the C++ runtime that the caller uses. A program in C that loads a C++ plugin has
 * one that only the plugin sees, so the caller's own scope is asked last. NULL: not found. */
static void *runtime_find(const char *name, void *caller)
{
    Dl_info module;
    void *found = dlsym(RTLD_DEFAULT, name);
    if (found != NULL || dladdr(caller, &module) == 0) {
        return found;
    }
    void *scope = dlopen(module.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (scope != NULL) {
        found = dlsym(scope, name);
        (void)dlclose(scope);
    }
    return found;
}

static new_handler runtime_handler(void *caller)
{
    void *found = runtime_find("_ZSt15get_new_handlerv", caller);
    return found != NULL ? ((new_handler(*)(void))(uintptr_t)found)() : NULL;
}

static void runtime_throw(void *caller)
{
    void *found = runtime_find("_ZSt17__throw_bad_allocv", caller);
    if (found != NULL) {
        ((void (*)(void))(uintptr_t)found)();
    }
    abort();
}

static void *new_try(size_t alignment, size_t bytes)
{
    return alignment <= NEW_ALIGNMENT ? HmmAlloc(bytes) : HmmAlignedAlloc(alignment, bytes);
}

/* The handler frees memory, and then it is worth another try; or throws; or ends the program. */
static HMM_COLD void *new_retry_or_throw(size_t alignment, size_t bytes, void *caller)
{
    void *ptr = NULL;
    while (ptr == NULL) {
        new_handler handler = runtime_handler(caller);
        if (handler == NULL) {
            runtime_throw(caller);
        }
        handler();
        ptr = new_try(alignment, bytes);
    }
    return ptr;
}

/* The handler may throw, and nothrow new must catch, which C cannot. The C++ runtime's own nothrow
 * operator, hidden behind ours, does it right: it calls the throwing one, which is ours, and
 * catches. */
static HMM_COLD void *new_retry_or_null(size_t alignment, size_t bytes, const void *nothrow,
                                        void *caller)
{
    bool is_aligned_new = alignment > NEW_ALIGNMENT;
    const char *name = is_aligned_new ? NEW_SYMBOL(_Znw, St11align_val_tRKSt9nothrow_t)
                                      : NEW_SYMBOL(_Znw, RKSt9nothrow_t);
    void *next = runtime_handler(caller) != NULL ? dlsym(RTLD_NEXT, name) : NULL;
    if (next == NULL) {
        return NULL;
    }
    return is_aligned_new ? ((new_nothrow_aligned)(uintptr_t)next)(bytes, alignment, nothrow)
                          : ((new_nothrow)(uintptr_t)next)(bytes, nothrow);
}

static inline void *new_or_throw(size_t alignment, size_t bytes, void *caller)
{
    void *ptr = new_try(alignment, bytes);
    return LIKELY(ptr != NULL) ? ptr : new_retry_or_throw(alignment, bytes, caller);
}

static inline void *new_or_null(size_t alignment, size_t bytes, const void *nothrow, void *caller)
{
    void *ptr = new_try(alignment, bytes);
    return LIKELY(ptr != NULL) ? ptr : new_retry_or_null(alignment, bytes, nothrow, caller);
}

#define CALLER __builtin_return_address(0)

/* ------------------------------------------------------------------------------ operator new */

OPERATOR(void *, operator_new, _Znw, , size_t bytes)
{
    return new_or_throw(1, bytes, CALLER);
}

OPERATOR(void *, operator_new_nothrow, _Znw, RKSt9nothrow_t, size_t bytes,
         const void *nothrow)
{
    return new_or_null(1, bytes, nothrow, CALLER);
}

OPERATOR(void *, operator_new_aligned, _Znw, St11align_val_t, size_t bytes,
         size_t alignment)
{
    return new_or_throw(alignment, bytes, CALLER);
}

OPERATOR(void *, operator_new_aligned_nothrow, _Znw, St11align_val_tRKSt9nothrow_t,
         size_t bytes, size_t alignment, const void *nothrow)
{
    return new_or_null(alignment, bytes, nothrow, CALLER);
}

OPERATOR(void *, operator_new_array, _Zna, , size_t bytes)
{
    return new_or_throw(1, bytes, CALLER);
}

OPERATOR(void *, operator_new_array_nothrow, _Zna, RKSt9nothrow_t, size_t bytes,
         const void *nothrow)
{
    return new_or_null(1, bytes, nothrow, CALLER);
}

OPERATOR(void *, operator_new_array_aligned, _Zna, St11align_val_t, size_t bytes,
         size_t alignment)
{
    return new_or_throw(alignment, bytes, CALLER);
}

OPERATOR(void *, operator_new_array_aligned_nothrow, _Zna, St11align_val_tRKSt9nothrow_t,
         size_t bytes, size_t alignment, const void *nothrow)
{
    return new_or_null(alignment, bytes, nothrow, CALLER);
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
