/*
 * fast_new_crimes.cc - crimes of C++ against the fast engine: delete of what it did not make, with
 * sizes and alignments that are not the block's. As fast_crimes.c.
 */
#define _Thread_local thread_local
#include "fast_crimes.h"

#include <new>

static const std::align_val_t alignment_64 = std::align_val_t(64);

/* One of three in a row. */
static char *new_make()
{
    (void)::operator new(size_bytes);
    char *ptr = static_cast<char *>(::operator new(size_bytes));
    (void)::operator new(size_bytes);
    memset(ptr, 0x5a, size_bytes);
    return ptr;
}

static char *new_array_make()
{
    char *ptr = static_cast<char *>(::operator new[](size_bytes));
    memset(ptr, 0x5a, size_bytes);
    return ptr;
}

static void accuse_mismatch(const char *call, const char *ptr, const char *maker)
{
    char text[60];
    snprintf(text, sizeof text, "allocated by %s, ", maker);
    accuse(call, ptr, "mismatched call", with_place(text, ptr));
}

static void delete_of_what_malloc_made()
{
    char *p = block_make();
    accuse_mismatch("operator delete", p, "malloc");
    ::operator delete(p);
}

static void delete_array_of_what_malloc_made()
{
    char *p = block_make();
    accuse_mismatch("operator delete[]", p, "malloc");
    ::operator delete[](p);
}

static void free_of_what_new_made()
{
    char *p = new_make();
    accuse_mismatch("free", p, "operator new");
    free(p);
}

static void free_of_what_new_array_made()
{
    char *p = new_array_make();
    accuse_mismatch("free", p, "operator new[]");
    free(p);
}

static void realloc_of_what_new_made()
{
    char *p = new_make();
    accuse_mismatch("realloc", p, "operator new");
    p = static_cast<char *>(realloc(p, size_bytes - 1));
}

static void delete_of_what_new_array_made()
{
    char *p = new_array_make();
    accuse_mismatch("operator delete", p, "operator new[]");
    ::operator delete(p);
}

static void delete_array_of_what_new_made()
{
    char *p = new_make();
    accuse_mismatch("operator delete[]", p, "operator new");
    ::operator delete[](p);
}

static const char *instead(const char *ptr, size_t claimed, size_t known)
{
    static char text[100];
    snprintf(text, sizeof text, "%zu instead of %zu, ", claimed, known);
    return with_place(text, ptr);
}

static void delete_of_one_byte_less()
{
    char *p = new_make();
    accuse("operator delete", p, "wrong size", instead(p, size_bytes - 1, size_bytes));
    ::operator delete(p, size_bytes - 1);
}

static void delete_of_twice_the_size()
{
    char *p = new_make();
    accuse("operator delete", p, "wrong size", instead(p, 2 * size_bytes, size_bytes));
    ::operator delete(p, 2 * size_bytes);
}

static void delete_array_of_one_byte_more()
{
    char *p = new_array_make();
    accuse("operator delete[]", p, "wrong size", instead(p, size_bytes + 1, size_bytes));
    ::operator delete[](p, size_bytes + 1);
}

static void delete_with_another_alignment()
{
    char *p = static_cast<char *>(::operator new(size_bytes, alignment_64));
    accuse("operator delete", p, "wrong alignment", instead(p, 256, 64));
    ::operator delete(p, std::align_val_t(256));
}

static void delete_of_another_size_and_alignment()
{
    char *p = static_cast<char *>(::operator new(size_bytes, alignment_64));
    accuse("operator delete", p, "wrong size", instead(p, size_bytes + 64, size_bytes));
    ::operator delete(p, size_bytes + 64, std::align_val_t(256));
}

/* What a level does not know, the next one does: at level 0 a size that no slot of
 * the class has. */
static void delete_of_more_than_the_slot()
{
    char *p = new_make();
    size_t slot_bytes = malloc_usable_size(p);
    accuse("operator delete", p, "wrong size", instead(p, slot_bytes + 1, slot_bytes));
    ::operator delete(p, slot_bytes + 1);
}

static void delete_twice()
{
    char *p = new_make();
    accuse("operator delete", p, "double free", with_place("", p));
    ::operator delete(p);
    ::operator delete(p);
}

static void delete_array_twice_with_sizes()
{
    char *p = new_array_make();
    char *between = new_array_make();
    accuse("operator delete[]", p, "double free", with_place("", p));
    ::operator delete[](p, size_bytes);
    ::operator delete[](between, size_bytes);
    ::operator delete[](p, size_bytes);
}

static void delete_of_the_stack()
{
    char local[64];
    new_make();
    accuse("operator delete", local, "not a heap pointer", "");
    ::operator delete(local);
}

static void delete_16_inside()
{
    char *p = new_make();
    const char *place = is_slot()                   ? slot_at(p)
                        : is_large() || is_fenced() ? run_at(p)
                                                    : some_block_at(p);
    accuse("operator delete", p + 16, "invalid pointer, inside a block", place);
    ::operator delete(p + 16);
}

#define ALL  0, LEVEL_SECURE
#define HARD 1, LEVEL_SECURE

static const struct fast_crime crimes[] = {
    CRIME(delete_of_what_malloc_made, SIZES, HARD),
    CRIME(delete_array_of_what_malloc_made, SIZES, HARD),
    CRIME(free_of_what_new_made, SIZES, HARD),
    CRIME(free_of_what_new_array_made, SIZES, HARD),
    CRIME(realloc_of_what_new_made, SIZES, HARD),
    CRIME(delete_of_what_new_array_made, SIZES, HARD),
    CRIME(delete_array_of_what_new_made, SIZES, HARD),
    CRIME(delete_of_one_byte_less, SIZES, HARD),
    CRIME(delete_of_twice_the_size, SIZES, HARD),
    CRIME(delete_array_of_one_byte_more, SIZES, HARD),
    CRIME(delete_with_another_alignment, SIZES, HARD),
    CRIME(delete_of_another_size_and_alignment, SIZES, HARD),
    CRIME(delete_of_more_than_the_slot, SLOTS, 0, 0),
    CRIME(delete_twice, SIZES, ALL),
    CRIME(delete_array_twice_with_sizes, SIZES, ALL),
    CRIME(delete_of_the_stack, ANY, ALL),
    CRIME(delete_16_inside, SIZES, ALL),
};

int main(int argc, char **argv)
{
    return crimes_main(argc, argv, crimes, sizeof crimes / sizeof crimes[0]);
}
