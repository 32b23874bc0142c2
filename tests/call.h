/*
 * call.h - what stands in the place of syscall() gets its arguments, whatever call it is.
 */
#ifndef TESTS_CALL_H
#define TESTS_CALL_H

#include <stdarg.h>

enum { CALL_ARGUMENTS = 6 };

/* As many as any call has, more than there may be. */
__attribute__((no_sanitize("address"))) static inline void
call_take_arguments(long given[CALL_ARGUMENTS], va_list arguments)
{
    for (int i = 0; i < CALL_ARGUMENTS; i++) {
        given[i] = va_arg(arguments, long);
    }
}

/* In a function whose last named argument is the call's number. */
#define CALL_TAKE_ARGUMENTS(given, number)                                                         \
    do {                                                                                           \
        va_list call_arguments;                                                                    \
        va_start(call_arguments, number);                                                          \
        call_take_arguments(given, call_arguments);                                                \
        va_end(call_arguments);                                                                    \
    } while (0)

#endif
