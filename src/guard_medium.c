/*
 * guard_medium.c - medium blocks with seals. See guard.h.
 */
#include "block.h"
#include "guard_quarantine.h"
#include "handle.h"
#include "medium.h"

size_t hmm_guard_medium_room(const char *call, const char *what_if_free, const void *ptr)
{
    size_t room_bytes = 0;
    struct crime crime;
    crime_clear(&crime);
    if (UNLIKELY(!hmm_medium_usable(ptr, &room_bytes, &crime))) {
        crime.what = strcmp(crime.what, "freed block") == 0 ? what_if_free : crime.what;
        hmm_handle_accuse(NULL, call, ptr, &crime);
    }
    return room_bytes;
}

/* The same of a block that the caller has just got, or made larger: nobody else knows it, so its
 * tag was not overwritten, and what others may change there meanwhile is not its size. */
static size_t fresh_room(const void *ptr)
{
    return tag_bytes(medium_tag_peek(block_of(ptr))) - BLOCK_TAG_BYTES;
}

void *hmm_guard_medium_allocate(const struct thread *thread, const struct request *request)
{
    const size_t bytes = request->bytes;
    struct crime crime;
    crime_clear(&crime);
    struct zero_span zero = {0, 0};
    void *ptr = hmm_medium_allocate(thread != NULL ? thread->shard : 0, request->alignment,
                                    bytes + hmm_settings.guard.trailer_bytes, &zero, &crime);
    if (UNLIKELY(crime.what != NULL)) {
        hmm_handle_accuse(NULL, request->call, NULL, &crime);
    }
    if (ptr == NULL) {
        return NULL;
    }
    if (request->content == CONTENT_ZERO) {
        hmm_medium_clear(ptr, bytes, zero);
    }
    size_t room_bytes = fresh_room(ptr);
    memset((char *)ptr + bytes, 0, room_bytes - bytes);
    return block_seal(ptr, room_bytes, hmm_settings.guard.trailer_bytes, bytes,
                      seal_alignment_shift(request->alignment), request->origin);
}

static void medium_release(void *ptr)
{
    struct crime crime;
    crime_clear(&crime);
    if (UNLIKELY(!hmm_medium_free(ptr, &crime))) {
        hmm_handle_accuse(NULL, "free", ptr, &crime);
    }
}

/* Before its content is cleared: who meets a crime is left with the block as it was. */
static void neighbours_check(const char *call, const void *ptr)
{
    struct crime crime;
    crime_clear(&crime);
    if (UNLIKELY(!hmm_medium_verify(ptr, &crime))) {
        hmm_handle_accuse(NULL, call, ptr, &crime);
    }
}

void hmm_guard_medium_free(void *ptr, const struct claim *claim)
{
    size_t room_bytes = hmm_guard_medium_room(claim->call, "double free", ptr);
    struct sealed block =
        block_open(claim->call, "double free", ptr, room_bytes, hmm_settings.guard.trailer_bytes);
    block_check_claim(claim, &block);
    neighbours_check(claim->call, ptr);
    block_clear(&block, room_bytes, hmm_settings.guard.trailer_bytes);
    if (room_bytes <= hmm_settings.guard.quarantine_block_bytes) {
        quarantine_add(ptr, room_bytes);
    } else {
        medium_release(ptr);
    }
}

void hmm_guard_medium_release(void *ptr)
{
    size_t room_bytes = hmm_guard_medium_room("free", "double free", ptr);
    seal_word *seal = seal_of(ptr, room_bytes);
    const void *damage =
        first_nonzero(ptr, (char *)seal + SEAL_BYTES - hmm_settings.guard.trailer_bytes);
    damage = damage == NULL && seal_load(seal) != 0 ? seal : damage;
    if (UNLIKELY(damage != NULL)) {
        hmm_guard_accuse_byte("free", ptr, "write after free", seal, damage);
    }
    medium_release(ptr);
}

size_t hmm_guard_medium_usable(const char *call, const void *ptr)
{
    size_t room_bytes = hmm_guard_medium_room(call, "freed block", ptr);
    return block_open(call, "freed block", (void *)(uintptr_t)ptr, room_bytes,
                      hmm_settings.guard.trailer_bytes)
        .request_bytes;
}

void *hmm_guard_medium_resize(void *ptr, size_t bytes, const struct claim *claim, size_t *old_bytes)
{
    size_t room_bytes = hmm_guard_medium_room(claim->call, "freed block", ptr);
    struct sealed block =
        block_open(claim->call, "freed block", ptr, room_bytes, hmm_settings.guard.trailer_bytes);
    block_check_claim(claim, &block);
    *old_bytes = block.request_bytes;
    struct crime crime;
    crime_clear(&crime);
    size_t old_room_bytes = 0;
    char trailer[SEAL_BYTES + SITES_BYTES];
    char *old_trailer = (char *)ptr + room_bytes - hmm_settings.guard.trailer_bytes;
    if (bytes <= SMALL_BYTES_MAX || bytes + hmm_settings.guard.trailer_bytes > MEDIUM_BYTES_MAX) {
        return NULL;
    }
    if (bytes < block.request_bytes) { /* which succeeds */
        neighbours_check(claim->call, ptr);
        memset((char *)ptr + bytes, 0, block.request_bytes - bytes);
    }
    memcpy(trailer, old_trailer, hmm_settings.guard.trailer_bytes);
    memset(old_trailer, 0, hmm_settings.guard.trailer_bytes);
    if (!hmm_medium_resize(ptr, bytes + hmm_settings.guard.trailer_bytes, &old_room_bytes,
                           &crime)) {
        if (LIKELY(fresh_room(ptr) == room_bytes)) {
            memcpy(old_trailer, trailer, hmm_settings.guard.trailer_bytes);
        }
        if (UNLIKELY(crime.what != NULL)) { /* it may be another thread's, and this call done */
            hmm_handle_accuse(NULL, claim->call, ptr, &crime);
        }
        return NULL;
    }
    size_t new_room_bytes = fresh_room(ptr);
    size_t kept_bytes = size_min(bytes, block.request_bytes);
    memset((char *)ptr + kept_bytes, 0, new_room_bytes - kept_bytes);
    return block_seal(ptr, new_room_bytes, hmm_settings.guard.trailer_bytes, bytes,
                      facts_alignment_shift(block.facts), facts_origin(block.facts));
}
