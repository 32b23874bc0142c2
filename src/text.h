/*
 * text.h - text in a fixed buffer, without allocation and without stdio.
 *
 * Messages are written when the heap may be broken or its lock held, so nothing here may allocate.
 * What does not fit is cut; the text always ends in a zero byte.
 */
#ifndef HMM_TEXT_H
#define HMM_TEXT_H

#include "base.h"

enum { TEXT_BYTES_MAX = 512 };

struct text {
    size_t length;
    char bytes[TEXT_BYTES_MAX];
};

HMM_HIDDEN void hmm_text_clear(struct text *text);
HMM_HIDDEN void hmm_text_add(struct text *text, const char *string);
HMM_HIDDEN void hmm_text_add_bytes(struct text *text, const char *bytes, size_t count);
HMM_HIDDEN void hmm_text_add_decimal(struct text *text, uint64_t value);
HMM_HIDDEN void hmm_text_add_address(struct text *text, uintptr_t value); /* 0x... */

#endif
