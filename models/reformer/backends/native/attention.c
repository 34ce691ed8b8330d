/* Bucket attention, pattern `recent`: the mathematics is in ops/bucket_attention/README.md.

   In the sorted order of a round, what a place sees is a range of places that ends at its own, and both ends of the
   range only grow: a band along the diagonal. QUERIES consecutive places meet the keys from the first that any of them
   sees. Scores are laid out [key][query], so that maxima and sums over keys go lane by lane and only queries and upper
   gradients need to be transposed. Of the band's rectangle only what lies near the band is computed.

   Every row is written by one thread and every sum has one order, whatever the number of threads. */

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
    int64_t n_places, n_queries, shift, window, d, d_value;
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
        load_row(R->v, least(at + R->shift, R->n_places - 1), R->d_value, R->half, w->value + j * V);
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

/* Scores of a tile of n keys, the t-th of the block and on: -inf where not seen; the queries' maxima grow. */
static void score(const Round *R, Work *w, int64_t t, int n) {
    int64_t D = padded(R->d);
    for (int j = 0, from = 0, to = 0, a, b; j < n; j += ROWS) {
        near_band(w, (int32_t)(t + j), &from, &to, &a, &b);
        float *s = w->scores + j * QUERIES;
        product(b - a, 0, R->d, w->key + j * D, D, 1, w->turned + a, QUERIES, s + a, QUERIES);
        for (int r = 0; r < ROWS; r++, s += QUERIES)
            for (int i = a; i < b; i += LANES) {
                AT(s + i) = choose(visible(R, w, (int32_t)(t + j + r), j + r, i), AT(s + i), all(-INFINITY));
                AT(w->peak + i) = larger(AT(w->peak + i), AT(s + i));
            }
    }
}

/* Scores of a tile become weights relative to the maxima, which are added up. */
static void weigh(Work *w, int64_t t, int n) {
    for (int j = 0, from = 0, to = 0, a, b; j < n; j += ROWS) {
        near_band(w, (int32_t)(t + j), &from, &to, &a, &b);
        float *s = w->scores + j * QUERIES;
        for (int r = 0; r < ROWS; r++, s += QUERIES)
            for (int i = a; i < b; i += LANES) {
                vec x = AT(s + i) - larger(AT(w->peak + i), all(-1e30f));
                AT(s + i) = choose(AT(s + i) != -INFINITY, exponential(x), (vec){0});
                AT(w->sum + i) += AT(s + i);
            }
    }
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

/* The block's output and logsumexp, merged with those of earlier rounds. */
static void merge(const Round *R, Work *w, int64_t count) {
    int64_t V = padded(R->d_value);
    for (int i = 0; i < count; i++) {
        int64_t at = w->row[i];
        float *row = w->out + i * V, sum = w->sum[i], lse = sum == 0 ? -INFINITY : w->peak[i] + logf(sum);
        float scale = sum == 0 ? 0 : 1 / sum, keep = 0;
        if (!R->first && R->lse[at] != -INFINITY) {
            float old = R->lse[at], top = old > lse ? old : lse, both = top + logf(expf(old - top) + expf(lse - top));
            keep = expf(old - both), scale *= expf(lse - both), lse = both;
        }
        for (int64_t c = 0; c < V; c++) row[c] *= scale;
        if (keep != 0)
            for (int64_t c = 0; c < R->d_value; c++) row[c] += keep * ((const float *)R->out)[at * R->d_value + c];
        store_row(R->out, at, R->d_value, R->half_out, row);
        R->lse[at] = lse;
    }
}

static void forward_block(const Round *R, Work *w, int64_t start) {
    int64_t stop = least(start + QUERIES, R->n_queries), V = padded(R->d_value);
    int64_t first = begin(R, w, start, stop, NULL), n_keys = w->place[stop - start - 1] - first + 1;
    for (int i = 0; i < QUERIES; i++) w->peak[i] = -INFINITY, w->sum[i] = 0;
    memset(w->out, 0, 4 * QUERIES * V);
    for (int64_t t = 0; t < n_keys; t += KEYS) {
        int n = (int)least(n_keys - t, KEYS);
        float before[QUERIES];
        memcpy(before, w->peak, sizeof before);
        load_keys(R, w, first + t, n);
        score(R, w, t, n);
        for (int i = 0; i < QUERIES && t > 0; i++)
            if (w->peak[i] > before[i]) { /* what was added up so far was relative to a smaller maximum */
                float fade = expf(before[i] - w->peak[i]);
                w->sum[i] *= fade;
                for (int64_t c = 0; c < V; c++) w->out[i * V + c] *= fade;
            }
        weigh(w, t, n);
        gather(w, w->scores, w->value, V, t, n, w->out);
    }
    merge(R, w, stop - start);
}

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
        if (at + R->shift < R->n_places) hand_over(R, R->dv, at + R->shift, R->d_value, w->d_value + (p - from) * V);
    }
}

/* Both return 0 where memory was refused. */
int attention_forward(const Round *R) {
    int64_t blocks = (R->n_queries + QUERIES - 1) / QUERIES;
    int good = 1;
#pragma omp parallel num_threads(R->threads)
    {
        Work w;
        int opened = open_work(R, &w, 0);
#pragma omp for schedule(dynamic, 4)
        for (int64_t b = 0; b < blocks; b++)
            if (opened) forward_block(R, &w, b * QUERIES);
        if (opened) free(w.memory);
#pragma omp critical
        good &= opened;
    }
    return good;
}

/* Where `first` is not set, gradients are added to what there is. dk and dv rows that no place gives are left alone.
   dq may be q itself, where it is in the same type and not shared with dk. */
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
