/*
 * early_handlers.h - handlers of pthread_atfork that are not the program's own.
 */
#ifndef EARLY_HANDLERS_H
#define EARLY_HANDLERS_H

enum fork_moment { FORK_PREPARE, FORK_PARENT, FORK_CHILD };

/* The function that the three handlers call; NULL: none. */
void early_handlers_set(void (*function)(enum fork_moment moment));

#endif
