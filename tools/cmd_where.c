/*
 * cmd_where.c - `hmm where`: what is at an address.
 */
#include "command.h"
#include "reader.h"
#include "symbols.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const standings[] = {
    [BLOCK_IN_USE] = "in use",
    [BLOCK_IS_UNUSED] = "free",
    [BLOCK_IN_CACHE] = "free, in a thread's bin or batch",
    [BLOCK_ON_HOLD] = "freed, in quarantine",
};

/* -------------------------------------------------------------------------------------- a block */

static void position_print(FILE *stream, uintptr_t address, const struct where *where)
{
    const size_t offset = address - where->start;
    if (address == where->start) {
        fputs("the start of a block", stream);
    } else if (address < where->start) {
        fputs("the tag before a block", stream);
    } else {
        fprintf(stream, "%zu byte%s into a block", offset, offset != 1 ? "s" : "");
    }
    if (where->has_request && address >= where->start && offset >= where->request_bytes) {
        fputs(", behind what was asked for", stream);
    }
    fprintf(stream, ", %s\n", standings[where->standing]);
}

static void size_print(FILE *stream, const struct where *where)
{
    static const char *const calls[] = {
        [ORIGIN_MALLOC] = "malloc",
        [ORIGIN_NEW] = "new",
        [ORIGIN_NEW_ARRAY] = "new[]",
    };
    static const char *const kinds[] = {
        [WHERE_SLOT] = "a slot",
        [WHERE_MEDIUM] = "a medium block",
        [WHERE_LARGE] = "a large block",
        [WHERE_HEAP_BLOCK] = "a block of a block heap",
    };
    fprintf(stream, "  block      0x%zx, %s of %zu bytes", (size_t)where->start, kinds[where->kind],
            where->bytes);
    if (where->has_request && (size_t)where->origin < sizeof calls / sizeof calls[0]) {
        fprintf(stream, ", of which %s was asked for %zu", calls[where->origin],
                where->request_bytes);
    }
    fputc('\n', stream);
}

static void place_print(FILE *stream, const struct where *where)
{
    static const char *const states[] = {
        [SLAB_VIEW_CURRENT] = "current",
        [SLAB_VIEW_PARTIAL] = "partial",
        [SLAB_VIEW_FULL] = "full",
        [SLAB_VIEW_ASLEEP] = "asleep, nobody's",
        [SLAB_VIEW_WOKEN] = "woken, nobody's",
        [SLAB_VIEW_DORMANT] = "kept from a thread that ended",
    };
    if (where->kind == WHERE_HEAP_BLOCK) {
        fprintf(stream, "  heap       0x%zx\n", (size_t)where->container);
    } else if (where->kind == WHERE_SLOT) {
        fprintf(stream, "  slab       0x%zx, slot %zu of %zu, %s", (size_t)where->container,
                where->slot, where->slot_count, states[where->slab_state]);
        if (where->owner != 0) {
            fprintf(stream, ", thread 0x%zx's", (size_t)where->owner);
        }
        fputc('\n', stream);
    }
}

static void neighbour_print(FILE *stream, const char *side, const struct neighbour *neighbour)
{
    if (neighbour->start != 0) {
        fprintf(stream, "  %-9s  0x%zx, %s\n", side, (size_t)neighbour->start,
                standings[neighbour->standing]);
    }
}

/* ---------------------------------------------------------------------------------- call stacks */

/* A program that is not position-independent has its own addresses in the process, too. */
static bool is_movable(const char *path)
{
    Elf64_Ehdr header = {.e_type = ET_DYN};
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        (void)!fread(&header, sizeof header, 1, file);
        fclose(file);
    }
    return header.e_type != ET_EXEC;
}

/* The file that the frame's code comes from, and where it begins in the target. */
static const struct mapping_view *module_find(const struct where_list *list, uintptr_t frame)
{
    const struct mapping_view *first = NULL;
    for (size_t i = 0; i < list->module_count; i++) {
        const struct mapping_view *mapping = &list->modules[i];
        if (mapping->name[0] == '/' && (first == NULL || strcmp(first->name, mapping->name) != 0)) {
            first = mapping;
        }
        if (frame >= mapping->start && frame < mapping->end) {
            return first != NULL && strcmp(first->name, mapping->name) == 0 ? first : NULL;
        }
    }
    return NULL;
}

static void stack_print(FILE *stream, const struct where_list *list, const char *title,
                        const struct stack_view *stack)
{
    if (stack->frame_count != 0) {
        fprintf(stream, "  %s\n", title);
    }
    for (size_t i = 0; i < stack->frame_count; i++) {
        const uintptr_t frame = stack->frames[i];
        const struct mapping_view *module = module_find(list, frame);
        fprintf(stream, "    #%zu 0x%zx", i, (size_t)frame);
        if (module != NULL) {
            symbols_print(stream, module->name,
                          frame - (is_movable(module->name) ? module->start : 0));
        } else {
            fputc('\n', stream);
        }
    }
}

/* ---------------------------------------------------------------------------------- the command */

static void where_print(FILE *stream, const struct where_list *list, uintptr_t address,
                        const struct where *where)
{
    fprintf(stream, "0x%zx: ", (size_t)address);
    switch (where->kind) {
    case WHERE_ROOM:
        fprintf(stream, "no block: %s (0x%zx to 0x%zx)\n", where->what, (size_t)where->start,
                (size_t)(where->start + where->bytes));
        return;
    case WHERE_MAPPING:
        fprintf(stream, "not of the heap: %zu bytes into %s, %s (0x%zx to 0x%zx)\n",
                (size_t)(address - where->start),
                where->what[0] != '\0' ? where->what : "anonymous memory", where->access,
                (size_t)where->start, (size_t)(where->start + where->bytes));
        return;
    case WHERE_NOTHING:
        fputs("nothing is mapped there\n", stream);
        return;
    default:
        position_print(stream, address, where);
        size_print(stream, where);
        place_print(stream, where);
        neighbour_print(stream, "before it", &where->before);
        neighbour_print(stream, "behind it", &where->behind);
        stack_print(stream, list, "allocated by", &where->allocated);
        stack_print(stream, list, "freed by", &where->freed);
    }
}

static bool address_parse(const char *text, uintptr_t *address)
{
    char *end;
    errno = 0;
    *address = strtoull(text, &end, 0);
    return errno == 0 && end != text && *end == '\0' && text[0] != '-';
}

static int run_where(const struct command_line *line)
{
    const size_t count = size_less((size_t)line->operand_count, 1);
    uintptr_t *addresses;
    struct where_list list;
    if (line->is_program || count == 0) {
        return COMMAND_TROUBLE("wants a process or a core, and addresses");
    }
    addresses = calloc(count, sizeof *addresses);
    if (addresses == NULL) {
        return COMMAND_TROUBLE("out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        if (!address_parse(line->operands[i + 1], &addresses[i])) {
            command_error("no address: %s", line->operands[i + 1]);
            free(addresses);
            return EXIT_TROUBLE;
        }
    }
    char *const target[] = {line->operands[0], NULL};
    struct reader *reader = reader_open(target, false);
    int status = EXIT_TROUBLE;
    if (reader != NULL && reader_where(reader, addresses, count, &list)) {
        for (size_t i = 0; i < count; i++) {
            where_print(stdout, &list, addresses[i], &list.places[i]);
        }
        const char *doubt = reader_doubt(reader, list.has_changed, list.is_unfit);
        if (doubt != NULL) {
            command_error("%s %s", reader_name(reader), doubt);
        }
        status = command_finish(stdout);
        where_free(&list);
    }
    if (reader != NULL) {
        (void)reader_close(reader);
    }
    free(addresses);
    return status;
}

const struct command command_where = {
    .name = "where",
    .operands = "PID|CORE ADDRESS...",
    .summary = "what is at an address: which block, in use or free, and whose",
    .description =
        "For each address, as a debugger or a message shows it: the block that it lies in,\n"
        "whether that is in use, free, or held back in quarantine, how far from its start or\n"
        "behind its end the address is, the slab and the thread or the heap that it belongs to,\n"
        "and the blocks beside it, from where an overflow may have come. Or which part of the\n"
        "heap it is, or which mapping.\n"
        "\n"
        "Under HMM_OPTIONS=hardened=1 and more, and libhmm-secure.so, also how many bytes were\n"
        "asked for and by which call; with sites=1 as well who allocated the block, and, of a\n"
        "slot that is free and of what is in quarantine, who freed it, with functions and lines\n"
        "by the debug information of the modules.\n",
    .run = run_where,
};
