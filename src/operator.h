/*
 * operator.h - what the doors of C++ share: mangled names, and what they want of the C++ runtime.
 *
 * When memory has run out, operator new calls the program's new-handler or throws bad_alloc.
 * runtime_shared.c looks the runtime up when that happens, because a shared library is
 * loaded before it is. runtime_static.c is linked to it: only a C++ program takes that file
 * out of libhmm.a. All are weak, so that a program which has operators of its own can be
 * linked with libhmm.a.
 *
 * A program may replace some operators and not others. Those that it leaves rest on those that it
 * replaces, as the standard has it: new[] and nothrow new on new, and every delete that is told
 * more than the pointer on the one that is not. Who has replaced nothing, and that is found out at
 * the first call, goes straight on.
 */
#ifndef HMM_OPERATOR_H
#define HMM_OPERATOR_H

#include "alloc.h"
#include "hmm.h"

#if UINTPTR_MAX > UINT32_MAX
#define NEW_NAME(name, rest) name##m##rest
#else
#define NEW_NAME(name, rest) name##j##rest
#endif
#define NEW_SYMBOL_TEXT(symbol)   #symbol
#define NEW_SYMBOL(name, rest)    NEW_SYMBOL_EXPAND(NEW_NAME(name, rest))
#define NEW_SYMBOL_EXPAND(symbol) NEW_SYMBOL_TEXT(symbol)

/* Begins an operator. hmm_FUNCTION is ours; its mangled name gives way to a program's own. */
#define OPERATOR_NAMED(type, function, symbol, ...)                                                \
    HMM_HIDDEN type hmm_##function(__VA_ARGS__);                                                   \
    HMM_API type function(__VA_ARGS__) __asm__(symbol)                                             \
        __attribute__((weak, alias("hmm_" #function)));                                            \
    type hmm_##function(__VA_ARGS__)

/* The same, with m or j in its name, which is size_t. */
#define OPERATOR(type, function, name, rest, ...)                                                  \
    OPERATOR_NAMED(type, function, NEW_SYMBOL(name, rest), __VA_ARGS__)

enum { NEW_ALIGNMENT = 2 * sizeof(void *) };

/* What any new tries first. Before the first call of all nobody knows whether there is a guard. */
static inline void *new_try(size_t alignment, size_t bytes, enum origin origin)
{
    if (guard_is_on() || alignment > NEW_ALIGNMENT ||
        hmm_process_engine_if_started() == ENGINE_NONE) {
        return is_power_of_two(alignment) ? hmm_alloc_new(alignment, bytes, origin) : NULL;
    }
    return alloc_fast(bytes);
}

/* An address in the code that called new. */
#define CALLER __builtin_return_address(0)

typedef void (*new_handler)(void);

HMM_HIDDEN new_handler hmm_runtime_new_handler(void *caller); /* NULL: none is set */
HMM_HIDDEN _Noreturn void hmm_runtime_throw_bad_alloc(void *caller);

/* The runtime's own operator of that name; NULL: there is none. Shared libraries only. */
HMM_HIDDEN void *hmm_runtime_operator(const char *name, void *caller);

/* What other operators rest on. An array's rests on that of single objects, the next one here. */
enum basis {
    BASIS_NEW_ARRAY,
    BASIS_NEW,
    BASIS_NEW_ARRAY_ALIGNED,
    BASIS_NEW_ALIGNED,
    BASIS_DELETE_ARRAY,
    BASIS_DELETE,
    BASIS_DELETE_ARRAY_ALIGNED,
    BASIS_DELETE_ALIGNED,
    BASIS_COUNT,
    BASIS_NONE = BASIS_COUNT,
};

static inline bool basis_is_array(enum basis basis)
{
    return basis == BASIS_NEW_ARRAY || basis == BASIS_NEW_ARRAY_ALIGNED ||
           basis == BASIS_DELETE_ARRAY || basis == BASIS_DELETE_ARRAY_ALIGNED;
}

/* Relaxed: true once it is known that the program has replaced none of them. */
extern HMM_HIDDEN _Atomic bool hmm_runtime_is_ours;

/* The operator that the program has put in its place, or in that of what it rests on
 * itself; NULL: none. */
HMM_HIDDEN void *hmm_runtime_replacement(enum basis basis);

static inline bool operators_may_be_replaced(void)
{
    return UNLIKELY(!atomic_load_explicit(&hmm_runtime_is_ours, memory_order_relaxed));
}

#endif
