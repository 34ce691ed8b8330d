/* One new token after another against what decoding keeps; the rules are those of ops/bucket_attention/README.md. */

#include "caches.h"

int64_t bucket_scratch(const Buckets *S) {
    int64_t n = 0;
    for (int64_t r = 0; r < S->rounds; r++) n += S->capacities[r];
    return n + LANES;
}

/* weights = exp(scores - largest), -inf to 0; returns their sum and that of one more, `other`; 0 if all are -inf. */
static float soften(float *scores, int64_t n, float other) {
    float peak = other, sum = 0;
    for (int64_t j = 0; j < n; j++) peak = scores[j] > peak ? scores[j] : peak;
    if (peak == -INFINITY) return 0;
    if (other != -INFINITY) sum = exponential(all(other - peak))[0];
    for (int64_t j = n; j % LANES; j++) scores[j] = -INFINITY; /* the scratch has room for a vector more */
    for (int64_t j = 0; j < n; j += LANES) {
        vec weight = choose(AT(scores + j) == -INFINITY, (vec){0}, exponential(AT(scores + j) - peak));
        AT(scores + j) = weight;
        sum += total(weight);
    }
    return sum;
}

void window_token(const Window *S, int64_t row, int64_t position, const float *q, const float *k, const float *v,
                  float *out, float *scratch) {
    int64_t d = S->d, w = S->window, n = least(position + 1, w), slot = position % w;
    float *keys = S->keys + row * w * d, *values = S->values + row * w * d;
    memcpy(keys + slot * d, k, 4 * d);
    memcpy(values + slot * d, v, 4 * d);
    int64_t first = S->chunk ? most(0, (position / S->chunk - 1) * S->chunk) : 0;
    for (int64_t j = 0; j < n; j++) {
        int64_t age = (slot - j + w) % w;
        scratch[j] = position - age < first ? -INFINITY : products(q, keys + j * d, d);
    }
    float sum = soften(scratch, n, -INFINITY);
    memset(out, 0, 4 * d);
    for (int64_t j = 0; j < n; j++) add_scaled(out, values + j * d, scratch[j] / sum, d);
}

/* Whether an entry was already met in one of the first `round` rounds: oldest [round] is the earliest time seen there. */
INLINE int met(const int64_t *ids, const int32_t *its, int64_t time, const int64_t *oldest, int64_t round) {
    for (int64_t r = 0; r < round; r++)
        if (its[r] == ids[r] && time >= oldest[r]) return 1;
    return 0;
}

/* Keep what an entry is before it is overwritten. Whoever made the journal made room for it. */
INLINE void keep(const Buckets *S, int64_t row, int64_t slot) {
    Journal *J = S->journal;
    int64_t to = S->first + row, d = S->d, R = S->rounds, from = row * S->slots + slot;
    if (J->used[to] == J->capacity) return;
    int64_t at = to * J->capacity + J->used[to]++;
    J->slots[at] = slot, J->times[at] = S->times[from];
    memcpy(J->pairs + at * 2 * d, S->pairs + from * 2 * d, 8 * d);
    memcpy(J->ids + at * R, S->ids + from * R, 4 * R);
}

/* Entries become what they were when the journal held but `left` [rows] of its own, newest first. */
void rewind_bucket_cache(const Buckets *S, const int64_t *left, int64_t rows) {
    Journal *J = S->journal;
    int64_t d = S->d, R = S->rounds;
    for (int64_t row = 0; row < rows; row++)
        while (J->used[row] > left[row]) {
            int64_t at = row * J->capacity + --J->used[row], to = row * S->slots + J->slots[at];
            S->times[to] = J->times[at];
            memcpy(S->pairs + to * 2 * d, J->pairs + at * 2 * d, 8 * d);
            memcpy(S->ids + to * R, J->ids + at * R, 4 * R);
        }
}

void bucket_token(const Buckets *S, int64_t row, int64_t position, const int64_t *ids, const float *q, const float *k,
                  const float *v, float *out, float *scratch) {
    int64_t d = S->d, R = S->rounds, n = 0, oldest[MOST_ROUNDS], starts[MOST_ROUNDS], filled[MOST_ROUNDS];
    float *pairs = S->pairs + row * S->slots * 2 * d;
    int64_t *times = S->times + row * S->slots, *counts = S->counts + row * S->buckets, *last = S->last + row * R;
    int32_t *its = S->ids + row * S->slots * R;
    int64_t *count[MOST_ROUNDS];
    for (int64_t r = 0, slot = 0, bucket = 0; r < R; slot += S->sizes[r] * S->capacities[r], bucket += S->sizes[r], r++) {
        int64_t capacity = S->capacities[r];
        if (S->next && last[r] >= 0) {
            if (S->journal->capacity && times[last[r]] <= S->journal->mark) keep(S, row, last[r]);
            memcpy(pairs + (last[r] * 2 + 1) * d, v, 4 * d);
        }
        count[r] = counts + bucket + ids[r];
        starts[r] = slot + ids[r] * capacity;
        filled[r] = least(*count[r], capacity);
        oldest[r] = !capacity ? INT64_MAX : *count[r] < capacity ? 0 : times[starts[r] + *count[r] % capacity];
        for (int64_t j = starts[r]; j < starts[r] + filled[r]; j++)
            if (S->each && met(ids, its + j * R, times[j], oldest, r))
                scratch[n++] = -INFINITY;
            else
                scratch[n++] = products(q, pairs + j * 2 * d, d);
    }
    float sum = soften(scratch, n, S->sink ? S->sink[row % S->heads] : -INFINITY);
    memset(out, 0, 4 * d);
    if (sum == 0 && !S->next) memcpy(out, v, 4 * d);
    if (sum > 0)
        for (int64_t r = 0, j = 0; r < R; r++)
            for (int64_t s = starts[r]; s < starts[r] + filled[r]; s++, j++)
                if (scratch[j] != 0) add_scaled(out, pairs + (s * 2 + 1) * d, scratch[j] / sum, d);
    for (int64_t r = 0; r < R; r++) {
        last[r] = -1;
        if (S->capacities[r]) {
            int64_t slot = starts[r] + *count[r] % S->capacities[r];
            if (S->journal->capacity) keep(S, row, slot);
            memcpy(pairs + slot * 2 * d, k, 4 * d);
            if (S->next)
                memset(pairs + (slot * 2 + 1) * d, 0, 4 * d);
            else
                memcpy(pairs + (slot * 2 + 1) * d, v, 4 * d);
            times[slot] = position + 1;
            for (int64_t i = 0; i < R; i++) its[slot * R + i] = (int32_t)ids[i];
            last[r] = slot;
        }
        ++*count[r];
    }
}

/* Row n of `to`, which is empty, becomes what row rows[n] of `from` is: only what is in use is touched. */
void copy_bucket_cache(const Buckets *from, const Buckets *to, const int64_t *rows, int64_t n) {
    int64_t d = from->d, R = from->rounds, slots = from->slots, buckets = from->buckets;
    for (int64_t row = 0; row < n; row++) {
        int64_t old = rows[row] * slots, new = row * slots, slot = 0;
        const int64_t *counts = from->counts + rows[row] * buckets;
        memcpy(to->counts + row * buckets, counts, 8 * buckets);
        memcpy(to->last + row * R, from->last + rows[row] * R, 8 * R);
        for (int64_t r = 0; r < R; r++)
            for (int64_t b = 0; b < from->sizes[r]; b++, counts++, slot += from->capacities[r]) {
                int64_t used = least(*counts, from->capacities[r]);
                if (!used) continue;
                memcpy(to->pairs + (new + slot) * 2 * d, from->pairs + (old + slot) * 2 * d, 8 * d * used);
                memcpy(to->times + new + slot, from->times + old + slot, 8 * used);
                memcpy(to->ids + (new + slot) * R, from->ids + (old + slot) * R, 4 * R * used);
            }
    }
}

/* n tokens of every row of a batch, one after the other: q, k, v, out [batch, n, heads, d], ids [rounds, batch, heads, n];
   the first counts [batch] of each row are real, starting at positions [batch]. Returns 0 where memory was refused. */
int extend_bucket_cache(const Buckets *S, const float *q, const float *k, const float *v, const int64_t *ids, float *out,
                  const int64_t *positions, const int64_t *counts, int64_t batch, int64_t n, int64_t threads) {
    int64_t rows = batch * S->heads;
    int good = 1;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t row = 0; row < rows; row++) {
        float *scratch = malloc(4 * bucket_scratch(S));
        int64_t b = row / S->heads, h = row % S->heads;
        if (!scratch) {
#pragma omp atomic write
            good = 0;
            continue;
        }
        for (int64_t i = 0; i < counts[b]; i++) {
            int64_t at = ((b * n + i) * S->heads + h) * S->d, bucket[MOST_ROUNDS];
            for (int64_t r = 0; r < S->rounds; r++) bucket[r] = ids[(r * rows + row) * n + i];
            bucket_token(S, row, positions[b] + i, bucket, q + at, k + at, v + at, out + at, scratch);
        }
        free(scratch);
    }
    return good;
}
