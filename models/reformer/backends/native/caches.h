/* What decoding keeps, as decode/native_structs.py lays it out, and what one new token does with it. */

#ifndef REFORMER_CACHES_H
#define REFORMER_CACHES_H

#include "vectors.h"

enum { MOST_ROUNDS = 66 }; /* those of n_hashes, the far and the local one */

/* The last `window` keys and values of every row (batch x head): token t lies at t modulo window. */
typedef struct {
    float *keys, *values; /* [rows, window, d] */
    int64_t heads, d, window;
    int64_t chunk; /* chunked_local: what is seen begins at the chunk before the own one; else 0 */
} Window;

/* What entries of Buckets were before they were overwritten, by row, oldest first: that much can be taken back. */
typedef struct {
    int64_t capacity; /* entries of a row; 0: nothing is kept */
    int64_t mark;     /* tokens up to which it can be taken back: what is newer is taken back whole */
    int64_t *used;    /* [rows] */
    int64_t *slots, *times; /* [rows, capacity] */
    float *pairs;     /* [rows, capacity, 2, d] */
    int32_t *ids;     /* [rows, capacity, rounds] */
} Journal;

/* Per round and bucket a ring of the last `capacity` entries of every row. */
typedef struct {
    float *pairs;   /* [rows, slots, 2, d]: key, and the value that is read at it */
    int64_t *times; /* [rows, slots]: 1 + the number of the token; 0 where empty */
    int32_t *ids;   /* [rows, slots, rounds]: its buckets */
    int64_t *counts; /* [rows, buckets of all rounds]: tokens ever filed */
    int64_t *last;   /* [rows, rounds]: slot of the newest token's entry; -1: none */
    const int64_t *sizes, *capacities; /* [rounds]: buckets, and entries of each */
    const float *sink; /* [heads]: the score of one more key, whose value is 0; or NULL */
    int64_t heads, d, rounds, slots, buckets;
    int64_t next;  /* an entry's value is the next token's; who sees nothing gets 0, else its own value */
    int64_t each;  /* a pair counts once, in whichever rounds it is met; else as often as it is met */
    Journal *journal;
    int64_t first; /* row of the journal that row 0 is */
} Buckets;

/* Numbers that `bucket_token` needs as scratch. */
int64_t bucket_scratch(const Buckets *S);

/* Token `position` of a row: filed, and out [d] is what it reads of the window, itself included. scratch: [window]. */
void window_token(const Window *S, int64_t row, int64_t position, const float *q, const float *k, const float *v,
                  float *out, float *scratch);

/* Token `position` of a row in buckets ids [rounds]: completes the entry before, reads what it sees, and is filed. */
void bucket_token(const Buckets *S, int64_t row, int64_t position, const int64_t *ids, const float *q, const float *k,
                  const float *v, float *out, float *scratch);

#endif
