/*
 * target.h - what is read: a process, a core, or a program held at its end. For the reader's files
 * only; subcommands see reader.h.
 *
 * The three differ in how memory is copied, what their mappings are and which pages are resident.
 * All addresses are the target's, and nothing that comes from it is trusted.
 */
#ifndef HMM_TARGET_H
#define HMM_TARGET_H

#include "reader.h"
#include "root.h"

enum page_state {
    PAGE_ABSENT,
    PAGE_OWN,    /* resident, and mapped here only */
    PAGE_SHARED, /* resident and mapped elsewhere too, or the kernel's page of zeros */
};

/* How mappings are listed. MODULES: those of files, also where a core holds nothing of them. */
enum mapping_detail { MAPPINGS_PLAIN, MAPPINGS_WITH_SIZES, MAPPINGS_MODULES };

struct mapping_list {
    struct mapping_view *entries; /* names are allocated one by one */
    size_t count;
    size_t room;
};

/* A piece of the target's memory, and where it is copied to. */
struct memory_piece {
    uintptr_t address;
    void *to;
    size_t bytes;
};

enum { MEMORY_PIECES_MAX = 256 };

struct target_ops {
    /* false: not all of it is there. */
    bool (*copy)(struct reader *reader, uintptr_t address, void *to, size_t bytes);
    /* MEMORY_PIECES_MAX at most, in one call of the system where there is one for it. */
    bool (*copy_pieces)(struct reader *reader, const struct memory_piece *pieces, size_t count);
    /* Adds all mappings in the order of addresses. false: they cannot be read. */
    bool (*list)(struct reader *reader, enum mapping_detail detail, struct mapping_list *list);
    /* The states of pages from `start` on. false: not known. */
    bool (*pages)(struct reader *reader, uintptr_t start, size_t page_count, uint8_t *states);
    /* What the kernel says is resident; SIZE_MAX: it is what the mappings add up to. */
    size_t (*resident_bytes)(struct reader *reader);
    int (*close)(struct reader *reader); /* what reader_close returns */
    /* What is on swap, without the mappings; NULL: it cannot be. */
    size_t (*swapped_bytes)(struct reader *reader);
};

enum { CACHE_LINE_BYTES = 4096, CACHE_LINE_COUNT = 256, READER_NAME_MAX = 256 };

/* Pages of the target that were copied during one read. */
struct cache_line {
    uintptr_t address; /* 0: empty */
    _Alignas(sizeof(uintptr_t)) unsigned char bytes[CACHE_LINE_BYTES];
};

/* How many slots a thread's bins held when they were last counted. */
struct bins_seen {
    uintptr_t thread;
    uint64_t counted_ms;
    uint32_t counts[CLASS_COUNT];
};

struct reader {
    const struct target_ops *ops;
    enum reader_kind kind;
    pid_t process_id;
    char name[READER_NAME_MAX];
    size_t page_bytes;
    struct hmm_root root;
    struct cache_line *cache;
    struct bins_seen *bins_seen; /* one for each thread */
    size_t bins_seen_count;
    bool is_watching; /* reads follow each other */

    /* a process */
    pid_t task_id;       /* its thread by which its memory is read */
    int memory_map_file; /* /proc/PID/pagemap, -1: none */
    /* a program that ended before it could be opened, or was never started */
    int wait_status;
    /* a core */
    const unsigned char *core;
    size_t core_bytes;
    bool is_cut; /* it ends before what its headers promise */
    struct core_segment *segments;
    size_t segment_count;
    struct core_file *files;
    size_t file_count;
    char *file_names;
};

/* They fill in the reader. false: a line has said why not. */
bool target_open_process(struct reader *reader, pid_t process_id);
bool target_open_core(struct reader *reader, const char *path);
bool target_open_program(struct reader *reader, char *const *arguments);
/* A process by one of its threads, which leads to its memory. */
bool target_open_task(struct reader *reader, pid_t process_id, pid_t task_id);

/* What it is called from now on, cut short where it is long. */
void reader_set_name(struct reader *reader, const char *name);

/* A file of /proc/ID, NULL: it cannot be read. */
FILE *proc_open(pid_t task_id, const char *file);
/* Shows a process's threads but the first, until `visit` says no. Whether it did. */
bool threads_visit(pid_t process_id, bool (*visit)(pid_t thread_id, void *context), void *context);

/* A mapping at the end of the list; the name is copied. */
struct mapping_view *mapping_add(struct mapping_list *list, uintptr_t start, uintptr_t end,
                                 const char *access, const char *name);
/* Gives a module's zeroed data, which has no name of its own, the module's. */
void mappings_name_zeroed(struct reader *reader, struct mapping_list *list);
void mapping_list_free(struct mapping_list *list);

/* Copies through the cache: for lists and tags. */
bool target_copy_cached(struct reader *reader, uintptr_t address, void *to, size_t bytes);
void target_forget(struct reader *reader);

/* Memory of the command's own. There is no going on without it. */
void *must_allocate(size_t count, size_t bytes);
void *must_grow(void *memory, size_t count, size_t bytes);

#endif
