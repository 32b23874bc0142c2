/*
 * launch.h - programs that the command starts on the library beside it.
 */
#ifndef HMM_LAUNCH_H
#define HMM_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { LAUNCH_PATH_BYTES = 4096, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

/* The library: ../lib/libhmm.so from where the command lies. false: it is not there. */
bool library_find(char path[LAUNCH_PATH_BYTES]);

/* Puts it in front of LD_PRELOAD, unless a library of ours is there. false: a line has said why. */
bool library_preload(void);

/* Adds "key=value" to the HMM_OPTIONS of what is started from now on, behind what is there, so
 * that it wins. */
void library_option(const char *key, const char *value);

/* The program as a shell would find it. false: there is none, or errno says why it cannot be
 * executed. */
bool program_find(const char *name, char path[LAUNCH_PATH_BYTES]);

/* Before a fork: the child can be waited for, although who started the command may have told it
 * to ignore the end of children. The child itself is told so again. */
void children_expect(void);
void children_forget(void);

/* Forks for a program that is waited for; 0 in the child, which is as the command was when it was
 * started. Until program_ended a signal that somebody sends to the command is for the program. */
pid_t program_fork(void);
void program_ended(void);

/* Becomes the program. Returns only if that fails, a line having said why: the exit
 * status, as env's. */
int program_become(char *const *arguments);

/* What waitpid said, as the exit status that a shell would show. */
int shell_status(int wait_status);

#endif
