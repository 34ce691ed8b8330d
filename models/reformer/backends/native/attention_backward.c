/* Bucket attention backwards: every segment of keys meets its own queries and those after it that still see it. */

#include "attention.h"

/* to [ROWS][width] += weights [ROWS][QUERIES] times rows [QUERIES][width]; only `skip` and on, before `n`, are wanted. */
INLINE void add_keys(Work *w, const float *weights, const float *rows, int64_t depth, int64_t width, int64_t skip,
                     int64_t n, float *to) {
    if (skip <= 0 && n >= ROWS) {
        product(width, 1, depth, weights, QUERIES, 1, rows, width, to, width);
        return;
    }
    product(width, 0, depth, weights, QUERIES, 1, rows, width, w->some, width);
    for (int64_t r = most(skip, 0); r < least(n, ROWS); r++)
        for (int64_t c = 0; c < width; c++) to[r * width + c] += w->some[r * width + c];
}

/* A tile in backward: weights and gradients of scores, and what they give the keys of the segment from `own` on. */
static void score_back(const Round *R, Work *w, int64_t t, int n, int64_t own) {
    int64_t D = padded(R->d), V = padded(R->d_value);
    for (int j = 0, from = 0, to = 0, a, b; j < n; j += ROWS) {
        near_band(w, (int32_t)(t + j), &from, &to, &a, &b);
        float *p = w->scores + j * QUERIES, *ds = w->d_scores + j * QUERIES;
        product(b - a, 0, R->d, w->key + j * D, D, 1, w->turned + a, QUERIES, p + a, QUERIES);
        product(b - a, 0, R->d_value, w->value + j * V, V, 1, w->grad_turned + a, QUERIES, ds + a, QUERIES);
        for (int r = 0; r < ROWS; r++)
            for (int i = a; i < b; i += LANES) {
                vec *weight = &AT(p + r * QUERIES + i), *d_score = &AT(ds + r * QUERIES + i);
                ivec seen = visible(R, w, (int32_t)(t + j + r), j + r, i);
                *weight = choose(seen, exponential(*weight - AT(w->lse + i)), (vec){0});
                *d_score = *weight * (*d_score - AT(w->delta + i));
            }
        int64_t key = t + j - own; /* in the segment */
        if (key + ROWS > 0) {
            add_keys(w, p + a, w->grad + a * V, b - a, V, -key, n - j, w->d_value + key * V);
            add_keys(w, ds + a, w->query + a * D, b - a, D, -key, n - j, w->d_key + key * D);
        }
    }
}

static void load_gradients(const Round *R, Work *w) {
    int64_t V = padded(R->d_value);
    for (int i = 0; i < QUERIES; i++) {
        int64_t at = w->row[i];
        w->lse[i] = INFINITY, w->delta[i] = 0; /* weights 0 for who sees nothing */
        if (at >= 0) {
            load_row(R->d_out, at, R->d_value, R->half, w->grad + i * V);
            if (R->lse[at] != -INFINITY) w->lse[i] = R->lse[at];
            w->delta[i] = R->delta[at];
        } else {
            memset(w->grad + i * V, 0, 4 * V);
        }
    }
    turn(w->grad, V, w->grad_turned);
}

INLINE void hand_over(const Round *R, void *x, int64_t at, int64_t d, const float *from) {
    if (R->first) {
        store_row(x, at, d, R->half_out, from);
    } else {
        float *to = (float *)x + at * d;
        for (int64_t c = 0; c < d; c++) to[c] += from[c];
    }
}

INLINE int64_t ahead_at(const Round *R, int64_t segment, int64_t n) {
    int64_t rows = (R->window + QUERIES - 1) / QUERIES * QUERIES;
    return (segment * rows + n) * R->d * (R->half ? 2 : 4);
}

/* Segments write their queries' gradients over the queries, which the segment before must see as they were. */
static int keep_ahead(Round *R, int64_t segments) {
    int64_t size = R->d * (R->half ? 2 : 4), rows = ahead_at(R, 1, 0) / size; /* whole blocks of queries */
    R->ahead = NULL;
    if (R->dq != R->q || R->shared) return 1;
    R->ahead = malloc(ahead_at(R, segments, 0));
    if (!R->ahead) return 0;
#pragma omp parallel for num_threads(R->threads) schedule(static)
    for (int64_t s = 0; s < segments; s++)
        for (int64_t n = 0, p = (s + 1) * SEGMENT; n < rows && p + n < R->n_places; n++)
            memcpy((char *)R->ahead + ahead_at(R, s, n), (const char *)R->q + R->order[p + n] * size, size);
    return 1;
}

/* Gradients of the keys and values at places [from, to), and of the queries there. Queries that follow and still see
   such keys are worked on again, so that no two segments write to one row. */
static void backward_segment(const Round *R, Work *w, int64_t from, int64_t to) {
    int64_t D = padded(R->d), V = padded(R->d_value);
    memset(w->d_key, 0, 4 * SEGMENT * D);
    memset(w->d_value, 0, 4 * SEGMENT * V);
    for (int64_t start = from; start < R->n_places; start += QUERIES) {
        int64_t stop = least(start + QUERIES, R->n_places), own = start < to;
        if (!own && start - R->reach[start] + 1 >= to) break;
        const char *saved = R->ahead && !own ? (char *)R->ahead + ahead_at(R, from / SEGMENT, start - to) : NULL;
        int64_t first = begin(R, w, start, stop, saved), n_keys = (own ? stop : to) - first;
        load_gradients(R, w);
        memset(w->d_query, 0, 4 * QUERIES * D);
        for (int64_t t = 0; t < n_keys; t += KEYS) {
            int n = (int)least(n_keys - t, KEYS);
            load_keys(R, w, first + t, n);
            score_back(R, w, t, n, from - first);
            if (own) gather(w, w->d_scores, w->key, D, t, n, w->d_query);
        }
        for (int i = 0; own && i < stop - start; i++)
            if (R->shared)
                for (int64_t c = 0; c < D; c++) w->d_key[(w->place[i] - from) * D + c] += w->d_query[i * D + c];
            else
                hand_over(R, R->dq, w->row[i], R->d, w->d_query + i * D);
    }
    for (int64_t p = from; p < to; p++) {
        int64_t at = R->order[p];
        hand_over(R, R->dk, at, R->d, w->d_key + (p - from) * D);
        if (at + R->value_offset < R->n_places) hand_over(R, R->dv, at + R->value_offset, R->d_value, w->d_value + (p - from) * V);
    }
}

/* Returns 0 where memory was refused. Where `first` is not set, gradients are added to what there is. dk and dv rows that
   no place gives are left alone. dq may be q itself, where it is in the same type and not shared with dk. */
int attention_backward(Round *R) {
    int64_t segments = (R->n_places + SEGMENT - 1) / SEGMENT;
    int good = keep_ahead(R, segments);
    if (!good) return 0;
#pragma omp parallel num_threads(R->threads)
    {
        Work w;
        int opened = open_work(R, &w, 1);
#pragma omp for schedule(dynamic, 1)
        for (int64_t s = 0; s < segments; s++)
            if (opened) backward_segment(R, &w, s * SEGMENT, least((s + 1) * SEGMENT, R->n_places));
        if (opened) free(w.memory);
#pragma omp critical
        good &= opened;
    }
    free(R->ahead);
    return good;
}
