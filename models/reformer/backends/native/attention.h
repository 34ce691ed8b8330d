/* What both passes of bucket attention share: one round, what a thread works on, and how queries and keys come there.

   The mathematics is in ops/bucket_attention/README.md. In the sorted order of a round, what a place sees is a range of
   places that ends at its own, and both ends of the range only grow: a band along the diagonal. QUERIES consecutive
   places meet the keys from the first that any of them sees. Scores are laid out [key][query], so that maxima and sums
   over keys go lane by lane and only queries and upper gradients need to be transposed. Of the band's rectangle only what
   lies near the band is computed.

   Every row is written by one thread and every sum has one order, whatever the number of threads. */

#ifndef ATTENTION_H
#define ATTENTION_H

#include "vectors.h"

enum { QUERIES = 128, KEYS = 256, SEGMENT = 8 * QUERIES };

/* One round; see native.py, which declares the same fields. */
typedef struct {
    const void *q, *k, *v, *d_out;   /* rows of float32, or bfloat16 where half */
    void *out, *dq, *dk, *dv;        /* bfloat16 where half_out, else float32 */
    float *lse, *delta;              /* [rows of q] */
    const int64_t *order;            /* [places]: row of k and v at a sorted place */
    const int32_t *reach;            /* [places]: how many places are seen, the own one counted */
    const int64_t *places, *rows;    /* [n_queries]: place and row in q of each query; NULL: every place, its row of k */
    const void *const *u;            /* [n_earlier]: of an earlier round, by row of k: int32, or int64 where wide */
    const int64_t *u_windows;        /* [n_earlier] */
    int64_t n_places, n_queries, value_offset, window, d, d_value;
    int32_t half, half_out, n_earlier, wide, itself, shared, first, threads;
    void *ahead; /* backward where dq is q: the queries that follow a segment and may see its keys, as they were */
} Round;

/* What a thread works on. low, high: keys that a query sees, counted from the block's first. */
typedef struct {
    float *query, *turned, *grad, *grad_turned, *key, *value, *scores, *d_scores, *out, *d_query, *d_key, *d_value, *some;
    int64_t *u_query, *u_key;
    int64_t row[QUERIES], place[QUERIES];
    int32_t low[QUERIES], high[QUERIES];
    float peak[QUERIES], sum[QUERIES], lse[QUERIES], delta[QUERIES];
    void *memory;
} Work;

static int open_work(const Round *R, Work *w, int backward) {
    int64_t D = padded(R->d), V = padded(R->d_value), wide = most(D, V), b = backward;
    struct { void *at; int64_t n; } parts[] = {
        {&w->query, QUERIES * D}, {&w->turned, QUERIES * wide}, {&w->key, KEYS * D}, {&w->value, KEYS * V},
        {&w->scores, KEYS * QUERIES}, {&w->out, QUERIES * V}, {&w->u_query, 2 * QUERIES * R->n_earlier},
        {&w->u_key, 2 * KEYS * R->n_earlier}, {&w->grad, b * QUERIES * V}, {&w->grad_turned, b * QUERIES * V},
        {&w->d_scores, b * KEYS * QUERIES}, {&w->d_query, b * QUERIES * D}, {&w->d_key, b * SEGMENT * D},
        {&w->d_value, b * SEGMENT * V}, {&w->some, b * ROWS * wide},
    };
    int64_t total = 0;
    for (unsigned n = 0; n < sizeof parts / sizeof *parts; n++) total += 4 * padded(parts[n].n) + 64;
    char *next = w->memory = aligned_alloc(64, (total + 63) / 64 * 64);
    if (!next) return 0;
    for (unsigned n = 0; n < sizeof parts / sizeof *parts; n++) {
        memcpy(parts[n].at, &next, sizeof next);
        next += (4 * parts[n].n + 63) / 64 * 64;
    }
    return 1;
}

/* x [QUERIES][width] -> to [width][QUERIES] */
INLINE void turn(const float *x, int64_t width, float *to) {
    for (int64_t c0 = 0; c0 < width; c0 += LANES)
        for (int i = 0; i < QUERIES; i++)
            for (int64_t c = c0; c < c0 + LANES; c++) to[c * QUERIES + i] = x[i * width + c];
}

/* Queries [start, stop) and what they see; returns the place of their first key. Those past the end see nothing.
   saved: where their vectors are rows in this order, else NULL. */
static int64_t begin(const Round *R, Work *w, int64_t start, int64_t stop, const void *saved) {
    int64_t first = 0, last = 0, D = padded(R->d);
    for (int i = 0; i < QUERIES; i++) {
        int64_t n = start + i;
        if (n < stop) {
            int64_t p = R->places ? R->places[n] : n;
            if (i == 0) first = p - R->reach[p] + 1;
            w->place[i] = last = p;
            w->row[i] = R->rows ? R->rows[n] : R->order[p];
            w->low[i] = (int32_t)(p - R->reach[p] + 1 - first);
            w->high[i] = (int32_t)(p - first) - !R->itself;
            load_row(saved ? saved : R->q, saved ? i : w->row[i], R->d, R->half, w->query + i * D);
            for (int r = 0; r < R->n_earlier; r++) {
                int64_t at = R->order[p];
                w->u_query[r * QUERIES + i] = R->wide ? ((const int64_t *)R->u[r])[at] : ((const int32_t *)R->u[r])[at];
            }
        } else {
            w->place[i] = w->row[i] = -1;
            w->low[i] = (int32_t)(last + 1 - first), w->high[i] = (int32_t)(last - first);
            memset(w->query + i * D, 0, 4 * D);
            for (int r = 0; r < R->n_earlier; r++) w->u_query[r * QUERIES + i] = 0;
        }
    }
    turn(w->query, D, w->turned);
    return first;
}

/* Keys and values of n places from `first` on, filled up to whole ROWS with zeros. */
static void load_keys(const Round *R, Work *w, int64_t first, int n) {
    int64_t D = padded(R->d), V = padded(R->d_value);
    for (int j = 0; j < n; j++) {
        int64_t at = R->order[first + j];
        load_row(R->k, at, R->d, R->half, w->key + j * D);
        load_row(R->v, least(at + R->value_offset, R->n_places - 1), R->d_value, R->half, w->value + j * V);
        for (int r = 0; r < R->n_earlier; r++)
            w->u_key[r * KEYS + j] = R->wide ? ((const int64_t *)R->u[r])[at] : ((const int32_t *)R->u[r])[at];
    }
    for (int j = n; j % ROWS; j++) {
        memset(w->key + j * D, 0, 4 * D);
        memset(w->value + j * V, 0, 4 * V);
        for (int r = 0; r < R->n_earlier; r++) w->u_key[r * KEYS + j] = 0;
    }
}

/* Queries that may see one of the keys [j, j + ROWS): [*a, *b), whole vectors. j grows from call to call. */
INLINE void near_band(const Work *w, int32_t j, int *from, int *to, int *a, int *b) {
    while (*from < QUERIES - 1 && w->high[*from] < j) ++*from;
    while (*to < QUERIES - 1 && w->low[*to + 1] <= j + ROWS - 1) ++*to;
    *a = (int)least(*from, *to) / LANES * LANES, *b = (int)most(*from, *to) / LANES * LANES + LANES;
}

/* Which of the queries i, i + 1, ... see key j, the tile's key number n, and saw it in no earlier round. */
INLINE ivec visible(const Round *R, const Work *w, int32_t j, int n, int i) {
    ivec at = j - (ivec){0}, seen = (*(const ivec *)(w->low + i) <= at) & (at <= *(const ivec *)(w->high + i));
    for (int r = 0; r < R->n_earlier; r++) {
        lvec apart = *(const lvec *)(w->u_query + r * QUERIES + i) - w->u_key[r * KEYS + n];
        lvec hidden = (apart < R->u_windows[r]) & (apart > -R->u_windows[r]);
        seen &= ~__builtin_convertvector(hidden, ivec);
    }
    return seen;
}

/* to [QUERIES][width] += weights [keys][QUERIES] of a tile, transposed, times rows [keys][width]. */
static void gather(const Work *w, const float *weights, const float *rows, int64_t width, int64_t t, int n, float *to) {
    for (int i = 0; i < QUERIES; i += ROWS) {
        int64_t low = most(w->low[i] - t, 0), high = least(w->high[i + ROWS - 1] - t + 1, n);
        if (low < high)
            product(width, 1, high - low, weights + low * QUERIES + i, 1, QUERIES, rows + low * width, width,
                    to + i * width, width);
    }
}

#endif
