/*
 * region_sbrk.c - the region of the program break.
 *
 * The break belongs to everybody in the process, so nothing is taken for granted: before each move
 * it is read again. Above ours: somebody took memory, which stays theirs as a gap. Below ours:
 * somebody gave memory back that was ours, so we take it again and report what was lost. Our break
 * moves down only when it is the process's break too.
 */
#include "os.h"
#include "region.h"

/* Takes back what another caller cut off below our break. Where even that fails the region cannot
 * grow any more, because the break will still be too low when it is looked at again. */
static uintptr_t sbrk_recover(struct region *region)
{
    uintptr_t now = hmm_os_break();
    if (now == 0 || now >= region->brk || hmm_os_break_move((intptr_t)(region->brk - now)) == 0) {
        return 0;
    }
    uintptr_t lost = align_up(now, hmm_os_page_bytes());
    return lost < region->brk ? lost : 0;
}

static uintptr_t sbrk_grow_by(struct region *region, uintptr_t now, size_t bytes)
{
    uintptr_t start = align_up(now, REGION_ALIGN_BYTES);
    size_t page_bytes = hmm_os_page_bytes();
    uintptr_t end = 0;
    if (!size_add(start, bytes, &end) || !can_align_up(end, page_bytes)) {
        return 0;
    }
    size_t delta_bytes = align_up(end, page_bytes) - now;
    if (delta_bytes > OBJECT_BYTES_MAX) {
        return 0;
    }
    uintptr_t got = hmm_os_break_move((intptr_t)delta_bytes);
    if (got == 0) {
        return 0;
    }
    if (got < now) {
        /* Another thread moved the break down since we looked: what we got ends too low. */
        (void)hmm_os_break_move(-(intptr_t)delta_bytes);
        return 0;
    }
    /* Another thread may as well have moved it up: then the end moved with the start. */
    start = align_up(got, REGION_ALIGN_BYTES);
    region->gap_bytes += start - region->brk;
    region->brk = align_down(got + delta_bytes, REGION_ALIGN_BYTES);
    return start;
}

static uintptr_t sbrk_grow(struct region *region, size_t least_bytes, size_t wanted_bytes)
{
    uintptr_t now = hmm_os_break();
    if (now < region->brk) {
        return 0;
    }
    uintptr_t start = 0;
    if (wanted_bytes > least_bytes) {
        start = sbrk_grow_by(region, now, wanted_bytes);
    }
    return start != 0 ? start : sbrk_grow_by(region, now, least_bytes);
}

/* Between the look and the move another thread may have taken memory above ours. Then its top was
 * cut off, and is put back at once: sbrk offers no way to do better, which is why the look comes
 * first and shrinking is rare. */
static void sbrk_shrink(struct region *region, uintptr_t brk)
{
    uintptr_t end = align_up(brk, hmm_os_page_bytes());
    if (end >= region->brk || hmm_os_break() != region->brk) {
        return;
    }
    intptr_t delta_bytes = (intptr_t)(region->brk - end);
    uintptr_t before = hmm_os_break_move(-delta_bytes);
    if (before == region->brk) {
        region->brk = end;
    } else if (before != 0) {
        (void)hmm_os_break_move(delta_bytes);
    }
}

/* The program break is the process's: its memory is used up to the end. */
static void sbrk_release(struct region *region)
{
    (void)region;
}

static const struct region_ops sbrk_ops = {sbrk_grow, sbrk_shrink, sbrk_recover, sbrk_release};

struct region *hmm_region_sbrk(void)
{
    static struct region region;
    if (region.ops == NULL) {
        uintptr_t now = align_down(hmm_os_break(), REGION_ALIGN_BYTES);
        region = (struct region){
            .ops = &sbrk_ops,
            .base = now,
            .limit = align_down(UINTPTR_MAX, REGION_ALIGN_BYTES),
            .brk = now,
            .gives_back = true,
        };
    }
    return &region;
}
