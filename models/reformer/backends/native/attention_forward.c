/* Bucket attention forwards: outputs and logsumexps of a round, merged with those of earlier rounds. */

#include "attention.h"

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

/* Returns 0 where memory was refused. */
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
