/*
 * process_exit.c - what is reported when the process ends: leaks, and the numbers of its heap. See
 * process.h.
 *
 * The destructor itself is in process.c: out of an archive comes only a file that somebody calls.
 */
#include "process.h"
#include "guard.h"
#include "leaks.h"
#include "operators.h"
#include "os.h"
#include "settings.h"
#include "stats.h"

#include <unistd.h>

/* Which file leaks are reported to. The program may close it, and then its number is that of one of
 * its own. Standard error stays what it is whatever it leads to. */
static struct os_file_identity leaks_identity;

void hmm_process_note_leaks_file(void)
{
    if (hmm_settings.options.leaks_file != 0) {
        (void)hmm_os_file_identify(hmm_settings.options.leaks_file, &leaks_identity);
    }
}

static bool has_leaks_file(void)
{
    int file = hmm_settings.options.leaks_file;
    struct os_file_identity now;
    return file == STDERR_FILENO ||
           (file != 0 && hmm_os_file_identify(file, &now) && now.device == leaks_identity.device &&
            now.inode == leaks_identity.inode);
}

static enum leaks_detail leaks_detail(void)
{
    const bool is_for_people = hmm_settings.options.leaks_file == STDERR_FILENO;
    return is_for_people ? LEAKS_LOST : LEAKS_AND_REACHABLE;
}

static void report_leaks(void)
{
    if (!hmm_leaks_report(hmm_guard_walk, hmm_settings.options.leaks_file, leaks_detail())) {
        static const char sorry[] = "hmm: no memory for the report of leaks, or no /proc\n";
        hmm_os_write_error(sorry, sizeof sorry - 1);
    }
}

/* Nobody has asked us for memory, nor anybody else. */
static bool has_no_blocks(void)
{
    return hmm_process_engine_if_started() == ENGINE_NONE &&
           (hmm_malloc_is_replaced == NULL || !hmm_malloc_is_replaced());
}

void hmm_process_report(void)
{
    const enum engine found = hmm_process_engine_if_started();
    if (has_leaks_file() && has_no_blocks()) {
        hmm_leaks_report_none(hmm_settings.options.leaks_file, leaks_detail());
    } else if (found == ENGINE_FAST && has_leaks_file()) {
        report_leaks();
    }
    if (found != ENGINE_NONE && hmm_settings.options.has_stats_at_exit) {
        hmm_stats_print();
    }
}
