/*
 * leaks.h - at exit: blocks that were never freed, by where they were allocated.
 *
 * A block is reachable when an aligned word in a root points anywhere into it, or a word in a
 * reachable block does. Roots are all memory of the process that can be read, may have been written
 * to and is not the heap's: data of modules, shared memory, stacks from their tops down to where
 * they are now (all around one that the program has made itself, but for the search's own frames),
 * thread-local storage, what others have mapped. So a block is called leaked only if nobody could
 * have freed it any more; a stale word that happens to look like its address hides it. This is
 * conservative marking as H.-J. Boehm's collector does it (Boehm and Weiser, Software: Practice and
 * Experience 18, 1988), without the collecting; the report has the form of LeakSanitizer's.
 *
 * Memory is read by a system call that fails where other programs would fault: threads
 * may still run.
 */
#ifndef HMM_LEAKS_H
#define HMM_LEAKS_H

#include "base.h"

/* Shows every live block, and the number of the stack that allocated it, until `visit` says no. */
typedef bool (*leaks_visitor)(void *ptr, size_t request_bytes, uint32_t site, void *context);
typedef void (*leaks_walk)(leaks_visitor visit, void *context);

/* The latter is for hmm leaks: such a report begins with a line that tells whose it is. */
enum leaks_detail { LEAKS_LOST, LEAKS_AND_REACHABLE };

/* Writes the report to a file. false: there was no memory for it, or the process's own
 * memory could not be read. Takes no lock but those of `walk` and the loader's, allocates
 * from the system only. */
HMM_HIDDEN bool hmm_leaks_report(leaks_walk walk, int file, enum leaks_detail detail);

/* The report of a process that has allocated nothing. */
HMM_HIDDEN void hmm_leaks_report_none(int file, enum leaks_detail detail);

#endif
