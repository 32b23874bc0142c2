/*
 * root.h - hmm_root: from where somebody outside, in another process or with a core file,
 * finds the heap.
 *
 * It is the one variable that the libraries export. It says what it is and of which version, where
 * the tables are, and how they are laid out. Nobody here reads it, and nobody writes it after
 * linking, so it costs a few hundred bytes that no call touches. Counters live in the struct that
 * they describe, are kept on slow paths, and are pulled from there, never pushed.
 *
 * A reader that was built with other structs sees another fingerprint and must not go on. One that
 * knows no structs at all can use the fields, which are named.
 *
 * It begins at a multiple of ROOT_ALIGN_BYTES with ROOT_MAGIC, and `self` is its own address, so
 * that it is found in a module's data without any symbol: in stripped programs, and in libraries
 * whose file is gone. Because of `self` it lies in memory that a core holds.
 */
#ifndef HMM_ROOT_H
#define HMM_ROOT_H

#include "heap_guard.h"
#include "process.h"
#include "purge.h"
#include "registry.h"
#include "shard.h"
#include "sites.h"
#include "thread_lists.h"
#include "zone.h"

#define ROOT_MAGIC "HMM: heap root\n"

enum {
    ROOT_LAYOUT_VERSION = 1,
    ROOT_ALIGN_BYTES = 64,
    ROOT_MAGIC_BYTES = 16,
    ROOT_VERSION_BYTES = 16,
    ROOT_FIELD_NAME_BYTES = 32,
};

/* What a reader looks at. FIELD(struct's name, field). */
#define ROOT_FIELDS(FIELD)                                                                         \
    FIELD(arena, base)                                                                             \
    FIELD(arena, bytes)                                                                            \
    FIELD(arena, table)                                                                            \
    FIELD(arena, granule_count)                                                                    \
    FIELD(arena, frontier_count)                                                                   \
    FIELD(arena, committed_count)                                                                  \
    FIELD(arena, table_committed_count)                                                            \
    FIELD(arena, taken_count)                                                                      \
    FIELD(arena, taken_count_max)                                                                  \
    FIELD(arena, dirty_count)                                                                      \
    FIELD(arena, hidden_count)                                                                     \
    FIELD(arena, populated_count)                                                                  \
    FIELD(arena, metadata)                                                                         \
    FIELD(arena, metadata_start)                                                                   \
    FIELD(arena, sets)                                                                             \
    FIELD(purge_counts, zone_dirty_bytes)                                                          \
    FIELD(purge_counts, zone_idle_bytes)                                                           \
    FIELD(purge_counts, slab_loose_bytes)                                                          \
    FIELD(purge_counts, slab_away_bytes)                                                           \
    FIELD(purge_counts, untouched_bytes)                                                           \
    FIELD(purge_counts, fenced_bytes)                                                              \
    FIELD(purge_counts, fenced_dirty_bytes)                                                        \
    FIELD(purge_counts, recent_bytes_max)                                                          \
    FIELD(purge_counts, has_threads)                                                               \
    FIELD(set_words, taken)                                                                        \
    FIELD(set_words, touched)                                                                      \
    FIELD(set_words, hidden)                                                                       \
    FIELD(granule, owner)                                                                          \
    FIELD(granule, free)                                                                           \
    FIELD(granule, need)                                                                           \
    FIELD(granule, carved_slots)                                                                   \
    FIELD(granule, next)                                                                           \
    FIELD(granule, prev)                                                                           \
    FIELD(granule, zone)                                                                           \
    FIELD(granule, run)                                                                            \
    FIELD(granule, remote)                                                                         \
    FIELD(granule, threshold)                                                                      \
    FIELD(granule, run_offset)                                                                     \
    FIELD(granule, kind)                                                                           \
    FIELD(granule, size_class)                                                                     \
    FIELD(granule, shard)                                                                          \
    FIELD(granule, state)                                                                          \
    FIELD(granule, is_zero)                                                                        \
    FIELD(granule, has_moved)                                                                      \
    FIELD(granule, floor_slots)                                                                    \
    FIELD(granule, loose_slots)                                                                    \
    FIELD(granule, away)                                                                           \
    FIELD(zone, top)                                                                               \
    FIELD(zone, touched)                                                                           \
    FIELD(zone, end)                                                                               \
    FIELD(run, start)                                                                              \
    FIELD(run, bytes)                                                                              \
    FIELD(run, granule_count)                                                                      \
    FIELD(run, is_fenced)                                                                          \
    FIELD(run, request_bytes)                                                                      \
    FIELD(run, origin)                                                                             \
    FIELD(run, site)                                                                               \
    FIELD(thread_lists, live)                                                                      \
    FIELD(thread_lists, dormant)                                                                   \
    FIELD(thread_lists, unused)                                                                    \
    FIELD(thread, self)                                                                            \
    FIELD(thread, is_busy)                                                                         \
    FIELD(thread, bins)                                                                            \
    FIELD(thread, next)                                                                            \
    FIELD(thread, refill_count)                                                                    \
    FIELD(thread, guarded)                                                                         \
    FIELD(thread, batched_slots)                                                                   \
    FIELD(thread, batches)                                                                         \
    FIELD(thread, classes)                                                                         \
    FIELD(class_slabs, current)                                                                    \
    FIELD(class_slabs, partial)                                                                    \
    FIELD(class_slabs, thin)                                                                       \
    FIELD(class_slabs, full)                                                                       \
    FIELD(class_slabs, handed_slots)                                                               \
    FIELD(batch, slab)                                                                             \
    FIELD(batch, chain)                                                                            \
    FIELD(woken, first)                                                                            \
    FIELD(woken, loose)                                                                            \
    FIELD(shard, page_bytes)                                                                       \
    FIELD(shard, key)                                                                              \
    FIELD(shard, touched)                                                                          \
    FIELD(shard, purged)                                                                           \
    FIELD(shard, zones)                                                                            \
    FIELD(shard, empty)                                                                            \
    FIELD(shard, live_bytes)                                                                       \
    FIELD(shard, live_count)                                                                       \
    FIELD(shard, free_bytes)                                                                       \
    FIELD(shard, dirty_bytes)                                                                      \
    FIELD(shard, held_bytes)                                                                       \
    FIELD(shard, placed_count)                                                                     \
    FIELD(shard, shelf)                                                                            \
    FIELD(shelf, bytes)                                                                            \
    FIELD(shelf, count)                                                                            \
    FIELD(shelf, filled)                                                                           \
    FIELD(shelf, lists)                                                                            \
    FIELD(HmmHeap, magic)                                                                          \
    FIELD(HmmHeap, heap)                                                                           \
    FIELD(HmmHeap, registry_next)                                                                  \
    FIELD(heap, key)                                                                               \
    FIELD(heap, grant)                                                                             \
    FIELD(heap, regions)                                                                           \
    FIELD(heap, fit)                                                                               \
    FIELD(heap, live_bytes)                                                                        \
    FIELD(heap, live_count)                                                                        \
    FIELD(heap, peak_live_bytes)                                                                   \
    FIELD(heap, free_bytes)                                                                        \
    FIELD(heap, failed_count)                                                                      \
    FIELD(heap, failed_bytes_max)                                                                  \
    FIELD(heap_guard, place_count)                                                                 \
    FIELD(heap_guard, held_bytes)                                                                  \
    FIELD(heap_guard, held_count)                                                                  \
    FIELD(heap_guard, random_state)                                                                \
    FIELD(fit, policy)                                                                             \
    FIELD(fit, row_count)                                                                          \
    FIELD(fit, rows_filled)                                                                        \
    FIELD(fit, bins_filled)                                                                        \
    FIELD(fit, bins)                                                                               \
    FIELD(fit, head)                                                                               \
    FIELD(fit, tail)                                                                               \
    FIELD(fit, cursor)                                                                             \
    FIELD(fit, rover)                                                                              \
    FIELD(fit, count)                                                                              \
    FIELD(region, base)                                                                            \
    FIELD(region, limit)                                                                           \
    FIELD(region, brk)                                                                             \
    FIELD(region, next)                                                                            \
    FIELD(region, first)                                                                           \
    FIELD(region, gap_bytes)                                                                       \
    FIELD(process, heap)                                                                           \
    FIELD(process, engine)                                                                         \
    FIELD(process, options)                                                                        \
    FIELD(slab_guard, link_key)                                                                    \
    FIELD(slab_guard, first_slot)                                                                  \
    FIELD(guarded, bins)                                                                           \
    FIELD(guarded, quarantine)                                                                     \
    FIELD(empty_set, live_count)                                                                   \
    FIELD(site_stack, frame_count)

/* Sizes and limits that decide how the tables are read. VALUE(name). */
#define ROOT_VALUES(VALUE)                                                                         \
    VALUE(GRANULE_SHIFT)                                                                           \
    VALUE(SLOT_UNIT_SHIFT)                                                                         \
    VALUE(CLASS_COUNT)                                                                             \
    VALUE(SHARD_COUNT_MAX)                                                                         \
    VALUE(BATCH_COUNT)                                                                             \
    VALUE(REMOTE_COUNT_SHIFT)                                                                      \
    VALUE(REMOTE_TAIL_SHIFT)                                                                       \
    VALUE(REMOTE_STATE_SHIFT)                                                                      \
    VALUE(REMOTE_THIN_SHIFT)                                                                       \
    VALUE(REMOTE_WOKEN)                                                                            \
    VALUE(BLOCK_UNIT_BYTES)                                                                        \
    VALUE(sizeof(struct granule))                                                                  \
    VALUE(sizeof(struct arena))                                                                    \
    VALUE(sizeof(struct purge_counts))                                                             \
    VALUE(sizeof(struct thread))                                                                   \
    VALUE(sizeof(struct class_slabs))                                                              \
    VALUE(sizeof(struct batch))                                                                    \
    VALUE(sizeof(struct woken))                                                                    \
    VALUE(sizeof(struct shard))                                                                    \
    VALUE(sizeof(struct HmmHeap))                                                                  \
    VALUE(sizeof(struct region))                                                                   \
    VALUE(sizeof(struct options))                                                                  \
    VALUE(sizeof(struct guarded))                                                                  \
    VALUE(sizeof(struct site_stack))                                                               \
    VALUE(SITE_UNIT_BYTES)                                                                         \
    VALUE(SEAL_BYTES)                                                                              \
    VALUE(SLACK_SHIFT)                                                                             \
    VALUE(ORIGIN_SHIFT)                                                                            \
    VALUE(GRANULE_EMPTY)

enum root_field_index {
#define ROOT_FIELD_INDEX(type, field) ROOT_FIELD_##type##_##field,
    ROOT_FIELDS(ROOT_FIELD_INDEX)
#undef ROOT_FIELD_INDEX
        ROOT_FIELD_COUNT
};

/* For readers that were not built with these structs. */
struct root_field {
    char name[ROOT_FIELD_NAME_BYTES]; /* "granule.need" */
    uint16_t offset_bytes;
    uint16_t bytes;
};

/* A number that differs when a field has moved: it is compared, never computed backwards. */
#define ROOT_FINGERPRINT_FIELD(type, field)                                                        \
    +((uint64_t)offsetof(struct type, field) * 65537 + sizeof(((struct type *)0)->field)) *        \
        (2 * (uint64_t)ROOT_FIELD_##type##_##field + 3)
#define ROOT_FINGERPRINT_VALUE(value) +(uint64_t)(value) * ((uint64_t)(value) + sizeof #value)
#define ROOT_FINGERPRINT                                                                           \
    ((uint64_t)0 ROOT_FIELDS(ROOT_FINGERPRINT_FIELD) ROOT_VALUES(ROOT_FINGERPRINT_VALUE))

struct hmm_root {
    char magic[ROOT_MAGIC_BYTES];
    uint32_t layout_version;
    uint32_t root_bytes;
    uint64_t fingerprint;
    char version[ROOT_VERSION_BYTES]; /* of the library */
    const struct hmm_root *self;

    const struct arena *arena;
    const struct purge_counts *purge;
    const struct thread_lists *threads;
    const struct woken *woken;     /* CLASS_COUNT of them */
    const struct shard *shards;    /* SHARD_COUNT_MAX of them */
    const struct process *process; /* where engine, options and block heap are */
    HmmHeap *const *created;       /* the first of the created heaps, linked by registry_next */
    const struct slab_guard *slab_guard; /* how links are written, and which slots stay unused */
    const uint16_t *class_bytes;         /* CLASS_COUNT of them */
    struct site_store *const *sites;     /* where call stacks are kept, if they are (sites.h) */
    const struct root_field *fields;
    uint32_t field_count;
    uint32_t field_bytes;
};

extern __attribute__((visibility("default"))) const struct hmm_root hmm_root;

#endif
