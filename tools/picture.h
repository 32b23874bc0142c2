/*
 * picture.h - a heap as squares: what `hmm map` draws, however it draws it.
 *
 * A picture has strips, one for the arena and one for each region of a block heap. A strip
 * is a range of addresses cut into cells of equal size, in their order; a cell of the arena
 * is a granule. The writers know nothing of snapshots, and this room nothing of pages,
 * colours and terminals.
 */
#ifndef HMM_PICTURE_H
#define HMM_PICTURE_H

#include "command.h"
#include "reader.h"

/* Their numbers are known to map.html. */
enum cell_kind {
    CELL_EMPTY, /* free, and no memory is kept for it */
    CELL_DIRTY, /* free, with memory */
    CELL_SLAB,
    CELL_ZONE,
    CELL_LARGE,      /* the first cell of a large block */
    CELL_LARGE_MORE, /* the others */
    CELL_TAGGED,     /* blocks of a block heap */
    CELL_TAKEN,      /* between the arena and a thread */
    CELL_AHEAD,      /* above the frontier; a huge page brought memory along */
    CELL_FOREIGN,    /* memory of others inside a block heap's region */
    CELL_FENCE,      /* inaccessible, between blocks or instead of one of 0 bytes */
    CELL_KIND_COUNT
};

enum {
    CELL_OWNER_NONE = UINT16_MAX,
    CELL_PAGES_UNKNOWN = UINT8_MAX,
    CELL_LIVE_FULL = UINT16_MAX, /* the whole cell is live */
    /* In `state`, above enum slab_view_state: the cell's memory is part of a huge page. */
    CELL_IS_HUGE = 0x80,
};

struct cell {
    uint8_t kind;       /* enum cell_kind */
    uint8_t size_class; /* of a slab */
    uint8_t state;      /* enum slab_view_state of a slab, and CELL_IS_HUGE */
    uint8_t pages;      /* in memory, CELL_PAGES_UNKNOWN */
    uint16_t owner;     /* of a slab: index of the snapshot's threads, CELL_OWNER_NONE */
    uint16_t used;      /* slots in use, or used blocks that begin here */
    uint16_t free;      /* free slots, carved and in no bin, or free blocks that begin here */
    uint16_t cached;    /* slots in a thread's bin */
    uint16_t live;      /* the share of its bytes that is in use, in parts of CELL_LIVE_FULL */
};

enum { STRIP_TEXT_MAX = 96 };

struct strip {
    char name[STRIP_TEXT_MAX];
    char note[STRIP_TEXT_MAX];
    uintptr_t start;
    size_t cell_bytes;
    bool is_nested; /* its addresses are part of another strip's */
    size_t cell_count;
    struct cell *cells;
};

/* How the addresses in all strips are used; the parts add up to all of them, nested ones
 * counted once. `style` is a word for
 * those who give it a colour. */
struct picture_part {
    const char *name;
    const char *style;
    size_t bytes;
};

/* Something worth knowing beside the parts. */
struct picture_figure {
    const char *name;
    char text[BYTES_TEXT_MAX];
    const char *note;
};

enum { PICTURE_PARTS_MAX = 11, PICTURE_FIGURES_MAX = 8 };

struct picture {
    const char *name;                /* the program's */
    char origin[2 * STRIP_TEXT_MAX]; /* what was read, and when */
    const char *doubt;               /* reader_doubt */
    const struct snapshot *snapshot;
    struct strip *strips;
    size_t strip_count;
    struct picture_part parts[PICTURE_PARTS_MAX];
    size_t part_count;
    struct picture_figure figures[PICTURE_FIGURES_MAX];
    size_t figure_count;
};

/* Of a snapshot with READ_PAGES and READ_BLOCKS, which must outlive it, as the reader must.
 * NULL: no memory. */
struct picture *picture_make(struct reader *reader, const struct snapshot *snapshot);
void picture_free(struct picture *picture);

/* One sign that stands for some adjacent cells: what most of them are, and how live those are, in
 * parts of CELL_LIVE_FULL. */
struct square {
    enum cell_kind kind;
    size_t live;
};

/* For the cells [first, first + count) of the strip, as many of them as there are. */
struct square strip_square(const struct strip *strip, size_t first, size_t count);

/* "slab", and so on. */
const char *cell_kind_name(enum cell_kind kind);

static inline bool cell_is_free(const struct cell *cell)
{
    return cell->kind == CELL_EMPTY || cell->kind == CELL_DIRTY || cell->kind == CELL_AHEAD;
}

/* One page that stands alone; one still picture; and characters. */
void map_write_html(FILE *stream, const struct picture *picture);
void map_write_svg(FILE *stream, const struct picture *picture);

struct map_terminal {
    size_t columns;
    bool has_colour;
    bool has_blocks; /* characters beyond ASCII */
};
void map_write_terminal(FILE *stream, const struct picture *picture,
                        const struct map_terminal *terminal);

#endif
