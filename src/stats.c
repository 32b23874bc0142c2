/*
 * stats.c - the numbers of the process heap. See stats.h.
 */
#include "stats.h"
#include "alloc.h"
#include "os.h"
#include "text.h"

void hmm_stats_get(HmmHeapStats *stats)
{
    hmm_alloc_get_stats(stats);
}

static void line_add(struct text *text, const char *label, size_t value)
{
    hmm_text_add(text, "hmm:   ");
    hmm_text_add(text, label);
    hmm_text_add_decimal(text, value);
    hmm_text_add(text, "\n");
}

void hmm_stats_print(void)
{
    HmmHeapStats stats;
    hmm_stats_get(&stats);
    struct text text;
    hmm_text_clear(&text);
    hmm_text_add(&text, "hmm: the heap of process ");
    hmm_text_add_decimal(&text, hmm_os_process_id());
    hmm_text_add(&text, "\n");
    line_add(&text, "break bytes      ", stats.break_bytes);
    line_add(&text, "live bytes       ", stats.live_bytes);
    line_add(&text, "live blocks      ", stats.live_count);
    line_add(&text, "free bytes       ", stats.free_bytes);
    line_add(&text, "free blocks      ", stats.free_count);
    line_add(&text, "overhead bytes   ", stats.overhead_bytes);
    line_add(&text, "peak live bytes  ", stats.peak_live_bytes);
    line_add(&text, "failed requests  ", stats.failed_count);
    hmm_os_write_error(text.bytes, text.length);
}
