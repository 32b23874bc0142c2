/*
 * fatal.c - the last line of a program that broke its heap. See check.h.
 *
 * The text is tested word by word: changing it changes the interface.
 */
#include "check.h"
#include "hmm.h"
#include "os.h"
#include "sites.h"
#include "text.h"

#include <stdatomic.h>
#include <stdlib.h>

/* release after the context was written pairs with acquire in hmm_fatal */
static _Atomic(HmmFatalHandler) fatal_handler;
static void *fatal_context;

static void fatal_add_block(struct text *line, const struct crime *crime)
{
    if (crime->at == 0) {
        return;
    }
    if (crime->block_bytes != 0) {
        hmm_text_add(line, "block of ");
        hmm_text_add_decimal(line, crime->block_bytes);
        hmm_text_add(line, " bytes at ");
    } else {
        hmm_text_add(line, "tag at ");
    }
    hmm_text_add_address(line, crime->at);
    hmm_text_add(line, ", ");
}

static void fatal_add_slot(struct text *line, const struct crime *crime)
{
    if (crime->slab != 0) {
        hmm_text_add(line, "slot ");
        hmm_text_add_decimal(line, crime->slot_index);
        hmm_text_add(line, " of class ");
        hmm_text_add_decimal(line, crime->slot_bytes);
        hmm_text_add(line, ", slab ");
        hmm_text_add_address(line, crime->slab);
        hmm_text_add(line, ", ");
    }
}

static void fatal_add_facts(struct text *line, const struct crime *crime)
{
    if (crime->maker != NULL) {
        hmm_text_add(line, "allocated by ");
        hmm_text_add(line, crime->maker);
        hmm_text_add(line, ", ");
    }
    if (crime->has_sizes) {
        hmm_text_add_decimal(line, crime->claimed);
        hmm_text_add(line, " instead of ");
        hmm_text_add_decimal(line, crime->known);
        hmm_text_add(line, ", ");
    }
    if (crime->has_byte) {
        hmm_text_add(line, crime->byte_offset < 0 ? "byte -" : "byte ");
        hmm_text_add_decimal(
            line, (uint64_t)(crime->byte_offset < 0 ? -crime->byte_offset : crime->byte_offset));
        hmm_text_add(line, ", ");
    }
}

static void fatal_add_heap(struct text *line, const char *label, const void *heap)
{
    if (heap != NULL) {
        hmm_text_add(line, label);
        hmm_text_add_address(line, (uintptr_t)heap);
        hmm_text_add(line, ", ");
    }
}

/* immutable once threads run */
static bool shows_stack;

void hmm_fatal_show_stack(void)
{
    shows_stack = true;
}

/* Nothing, where the site is not known. */
static void fatal_print_site(const char *title, uint32_t site)
{
    uintptr_t frames[SITE_FRAMES_MAX];
    size_t frame_count = hmm_sites_frames(site, frames, SITE_FRAMES_MAX);
    if (frame_count != 0) {
        hmm_os_write_error(title, strlen(title));
        hmm_sites_print(frames, frame_count);
    }
}

/* After the line, so that whatever goes wrong here has nothing to spoil. */
static void fatal_print_stacks(const struct crime *crime)
{
    uintptr_t frames[SITE_FRAMES_MAX];
    if (shows_stack) {
        hmm_sites_print(frames, hmm_sites_here(frames));
    }
    fatal_print_site("hmm: freed at:\n", crime->site_freed);
    fatal_print_site("hmm: allocated at:\n", crime->site_allocated);
}

void hmm_fatal(const char *call, const void *pointer, const struct crime *crime, const void *heap)
{
    struct text line;
    hmm_text_clear(&line);
    hmm_text_add(&line, "hmm: ");
    hmm_text_add(&line, call);
    hmm_text_add(&line, "(");
    hmm_text_add_address(&line, (uintptr_t)pointer);
    hmm_text_add(&line, "): ");
    hmm_text_add(&line, crime->what);
    hmm_text_add(&line, ": ");
    fatal_add_facts(&line, crime);
    fatal_add_block(&line, crime);
    fatal_add_slot(&line, crime);
    fatal_add_heap(&line, "owner heap ", crime->owner);
    fatal_add_heap(&line, "heap ", heap);
    hmm_text_add(&line, "thread ");
    hmm_text_add_decimal(&line, hmm_os_thread_id());
    hmm_text_add(&line, "\n");
    hmm_os_write_error(line.bytes, line.length);
    fatal_print_stacks(crime);
    HmmFatalHandler handler = atomic_load_explicit(&fatal_handler, memory_order_acquire);
    if (handler != NULL) {
        handler(line.bytes, pointer, fatal_context);
    }
    abort();
}

HmmFatalHandler HmmSetFatalHandler(HmmFatalHandler handler, void *context)
{
    HmmFatalHandler old = atomic_load_explicit(&fatal_handler, memory_order_relaxed);
    fatal_context = context;
    atomic_store_explicit(&fatal_handler, handler, memory_order_release);
    return old;
}
