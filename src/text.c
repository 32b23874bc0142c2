/*
 * text.c - text in a fixed buffer. See text.h.
 */
#include "text.h"

enum { DIGITS_MAX = 20 }; /* of a 64-bit number in decimal */

void hmm_text_clear(struct text *text)
{
    text->length = 0;
    text->bytes[0] = '\0';
}

void hmm_text_add_bytes(struct text *text, const char *bytes, size_t count)
{
    size_t room = sizeof text->bytes - 1 - text->length;
    count = size_min(count, room);
    memcpy(text->bytes + text->length, bytes, count);
    text->length += count;
    text->bytes[text->length] = '\0';
}

void hmm_text_add(struct text *text, const char *string)
{
    hmm_text_add_bytes(text, string, strlen(string));
}

static void text_add_number(struct text *text, uint64_t value, unsigned base)
{
    char digits[DIGITS_MAX];
    size_t at = sizeof digits;
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    hmm_text_add_bytes(text, digits + at, sizeof digits - at);
}

void hmm_text_add_decimal(struct text *text, uint64_t value)
{
    text_add_number(text, value, 10);
}

void hmm_text_add_address(struct text *text, uintptr_t value)
{
    hmm_text_add(text, "0x");
    text_add_number(text, value, 16);
}
