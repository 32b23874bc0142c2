/*
 * os.h - the only system calls of the library.
 *
 * Every function leaves errno as it found it: whether memory is missing is for the doors to say,
 * and free() never says anything. A failure means "not available", never a reason to stop.
 */
#ifndef HMM_OS_H
#define HMM_OS_H

#include "base.h"

/* The size of a page: 4, 16 or 64 KiB, read at run time. No system call. */
HMM_HIDDEN size_t hmm_os_page_bytes(void);

/* How large a range is worth reserving: the power of two above the machine's memory, some times
 * over, so that a heap of that size still finds room between long-lived blocks. Address space is
 * all that it costs. */
HMM_HIDDEN size_t hmm_os_range_bytes(void);

/* How much the process may have accessible of its own (RLIMIT_DATA); the largest
 * number: no limit. */
HMM_HIDDEN size_t hmm_os_data_limit_bytes(void);

/* On how many processors this process may run; 0: unknown. */
HMM_HIDDEN size_t hmm_os_cpu_count(void);

/* Address space without memory behind it, in whole pages; NULL: not to be had. It costs no commit
 * charge, so it is to be had under any overcommit setting; but the first `open_bytes` are as after
 * hmm_os_commit. */
HMM_HIDDEN void *hmm_os_reserve(size_t bytes, size_t open_bytes);

/* Makes a part of a reservation readable, writable and zero. Here the kernel may say no. */
HMM_HIDDEN bool hmm_os_commit(void *start, size_t bytes);

/* Makes pages readable only. Of a reservation: zero, and still without memory. */
HMM_HIDDEN bool hmm_os_show(void *start, size_t bytes);

/* Takes memory and commit charge back and keeps the reservation. false: nothing has changed. */
HMM_HIDDEN bool hmm_os_decommit(void *start, size_t bytes);
/* The same without the word to debuggers, who leave out by themselves what holds nothing: a
 * call less, and one less before it is accessible again. Marked and unmarked parts are
 * never one mapping. */
HMM_HIDDEN bool hmm_os_decommit_unmarked(void *start, size_t bytes);

/* Gives a reservation back. */
HMM_HIDDEN void hmm_os_release(void *start, size_t bytes);

/* Takes the memory of whole pages back and keeps them accessible: they are zero then. false:
 * nothing has changed. */
HMM_HIDDEN bool hmm_os_purge(void *start, size_t bytes);

/* Pages keep what they hold, and nobody can see it; and again they are accessible, parts that were
 * decommitted meanwhile as well, under the name of the range that they lie in. */
HMM_HIDDEN bool hmm_os_hide(void *start, size_t bytes);
HMM_HIDDEN bool hmm_os_unhide(void *start, size_t bytes, const char *name);

/* Fresh accessible pages in the place of old ones, whatever was mapped there, under the
 * name of the range that they lie in. false: they may be neither fresh nor one mapping
 * with their neighbours. */
HMM_HIDDEN bool hmm_os_renew(void *start, size_t bytes, const char *name);

/* Where a renewal that was refused has left nothing mapped there are inaccessible pages now. false:
 * pages are mapped, and stay. */
HMM_HIDDEN bool hmm_os_plug(void *start, size_t bytes);

enum os_move {
    OS_MOVED,
    OS_NOT_MOVED, /* nothing has changed */
    OS_MOVE_LOST, /* nothing has moved, and what is mapped in the new place now is not known */
};

/* Whether one mapping covers the pages, which is not locked: others cannot be moved, or not
 * without a trace. */
HMM_HIDDEN bool hmm_os_can_move(void *start, size_t bytes);

/* Moves the memory of whole pages, accessible both, to another place; the old one is zero then. Of
 * pages that can be moved. */
HMM_HIDDEN enum os_move hmm_os_move(void *from, void *to, size_t bytes);

/* How large a huge page is. */
HMM_HIDDEN size_t hmm_os_huge_bytes(void);

/* Touches pages that are about to be written to; false: it did not, which does no harm. */
HMM_HIDDEN bool hmm_os_populate(void *start, size_t bytes);

/* What is touched of it first shall come as a huge page, unless small ones have been there.
 * false: not available. */
HMM_HIDDEN bool hmm_os_want_huge(void *start, size_t bytes);

/* Makes a huge page there, where small ones have been (Linux 6.1). Whether it did. Not to be asked
 * where those who own the machine want none, because the system does not look. */
HMM_HIDDEN bool hmm_os_collapse(void *start, size_t bytes);

/* From now on the system makes no huge pages there by itself. */
HMM_HIDDEN void hmm_os_refuse_huge(void *start, size_t bytes);

/* A clock that never goes back, in some milliseconds' resolution. No system call where the kernel
 * maps its clock. */
HMM_HIDDEN uint64_t hmm_os_clock_ms(void);

/* A finer one, in nanoseconds. */
HMM_HIDDEN uint64_t hmm_os_clock_ns(void);

/* Random bytes of the kernel's. false: not to be had, at once. */
HMM_HIDDEN bool hmm_os_random(void *bytes, size_t count);

/* The program break: where it is, and moving it by `delta_bytes`. Returns the break before the
 * move, 0 where it cannot be moved. */
HMM_HIDDEN uintptr_t hmm_os_break(void);
HMM_HIDDEN uintptr_t hmm_os_break_move(intptr_t delta_bytes);

/* Sleeps while *word is `value`, the second for so long at most; wakes one sleeper. All
 * may return early. */
HMM_HIDDEN void hmm_os_futex_wait(const void *word, uint32_t value);
HMM_HIDDEN HMM_COLD void hmm_os_futex_wait_for(const void *word, uint32_t value, unsigned ms);
HMM_HIDDEN void hmm_os_futex_wake(const void *word);

/* How the calling thread is called, up to 15 letters. */
HMM_HIDDEN void hmm_os_name_thread(const char *name);

/* Whether the calling thread is past all that it calls at its end, or may be, as nobody says. glibc
 * blocks all signals then, with those of its own that it lets nobody else block. */
HMM_HIDDEN HMM_COLD bool hmm_os_thread_is_gone(void);

HMM_HIDDEN void hmm_os_write_error(const char *text, size_t bytes);
/* All of the text, however often it takes. false: not all of it, errno says why, here alone. */
HMM_HIDDEN bool hmm_os_write_all(int file, const char *text, size_t bytes);

/* The file that the program was started from, whatever it calls itself; "": not known. */
HMM_HIDDEN void hmm_os_program_path(char *path, size_t bytes);

/* What of this process is in memory; 0: the kernel does not say. Reads a file of the kernel's. */
HMM_HIDDEN size_t hmm_os_resident_bytes(void);

/* Copies memory that may vanish meanwhile. How much of it was there, from the start on. */
HMM_HIDDEN size_t hmm_os_copy(void *to, const void *from, size_t bytes);

/* A file byte by byte, without allocation. */
enum { OS_FILE_BYTES = 1024 };
struct os_file {
    long descriptor;
    size_t at;
    size_t length;
    char bytes[OS_FILE_BYTES];
};
HMM_HIDDEN bool hmm_os_file_open(struct os_file *file, const char *path);
/* The same, also where the process has as many files as its limit allows: that is raised for a
 * moment. */
HMM_HIDDEN bool hmm_os_file_open_surely(struct os_file *file, const char *path);
HMM_HIDDEN bool hmm_os_file_next(struct os_file *file, char *byte); /* false: the end */
HMM_HIDDEN void hmm_os_file_close(struct os_file *file);

/* Processes that write to the same file take turns; where it cannot be locked, nothing happens. */
HMM_HIDDEN void hmm_os_file_lock(int file);
HMM_HIDDEN void hmm_os_file_unlock(int file);

/* Calls `handle` at a signal, on the thread's own stack for that if it has one, and restarts
 * what it interrupted. */
HMM_HIDDEN void hmm_os_on_signal(int number, void (*handle)(int number));

/* Gives a reservation a name, which maps then show as "[anon:NAME]". Mappings of different names
 * are not merged. Where the kernel knew no names the first time, it is not asked again. */
HMM_HIDDEN void hmm_os_name(void *start, size_t bytes, const char *name);

HMM_HIDDEN uint64_t hmm_os_thread_id(void);
HMM_HIDDEN uint64_t hmm_os_process_id(void);

/* Whether this code is a part of the program itself, not of a library that it has loaded. */
HMM_HIDDEN bool hmm_os_is_in_program(void);

/* Whether the program has more rights than the user who runs it. */
HMM_HIDDEN bool hmm_os_is_privileged(void);

/* Which file a descriptor leads to. false: none, and all is 0. */
struct os_file_identity {
    uint64_t device;
    uint64_t inode;
};

HMM_HIDDEN bool hmm_os_file_identify(int file, struct os_file_identity *identity);

#endif
