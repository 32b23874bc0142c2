/*
 * root.c - hmm_root, filled in by the linker. See root.h.
 */
#include "root.h"

static const struct root_field fields[] = {
#define ROOT_FIELD_ROW(type, field)                                                                \
    {#type "." #field, offsetof(struct type, field), sizeof(((struct type *)0)->field)},
    ROOT_FIELDS(ROOT_FIELD_ROW)
#undef ROOT_FIELD_ROW
};

static_assert(sizeof fields / sizeof fields[0] == ROOT_FIELD_COUNT, "a row for each");
static_assert(sizeof ROOT_MAGIC == ROOT_MAGIC_BYTES, "with its last 0");
static_assert(sizeof(struct thread) <= UINT16_MAX, "offsets fit");

_Alignas(ROOT_ALIGN_BYTES) const struct hmm_root hmm_root = {
    .magic = ROOT_MAGIC,
    .layout_version = ROOT_LAYOUT_VERSION,
    .root_bytes = sizeof(struct hmm_root),
    .fingerprint = ROOT_FINGERPRINT,
    .version = HMM_VERSION,
    .self = &hmm_root,
    .arena = &hmm_arena,
    .purge = &hmm_purge_counts,
    .threads = &hmm_threads,
    .woken = hmm_woken_slabs,
    .shards = hmm_medium_shards,
    .process = &hmm_process,
    .created = &hmm_registry,
    .slab_guard = &hmm_settings.slabs,
    .class_bytes = hmm_class_bytes,
    .sites = (struct site_store *const *)&hmm_sites_store,
    .fields = fields,
    .field_count = ROOT_FIELD_COUNT,
    .field_bytes = sizeof fields[0],
};
