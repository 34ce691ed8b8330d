/* The operations of a program (program.h). What p, n and x of an operation are is said at each. */

#include "program.h"

enum { PANEL = VECTORS * LANES }; /* outputs of a product that are summed at once */

/* Rows [from, to) of n are this thread's. */
INLINE void mine(int64_t n, int64_t *from, int64_t *to) {
    int64_t threads = omp_get_num_threads(), me = omp_get_thread_num(), each = (n + threads - 1) / threads;
    *from = least(me * each, n), *to = least(*from + each, n);
}

/* Of a batch row's new tokens, how many are real. The others read nothing, and nobody reads them. */
INLINE int64_t real(const Program *P, int64_t b) { return P->counts ? P->counts[b] : P->new_tokens; }

/* out [rows, heads, d] of head h of a batch row's tokens that are not real. */
INLINE void blank(const Program *P, float *out, int64_t b, int64_t h, int64_t H, int64_t d) {
    for (int64_t i = real(P, b); i < P->new_tokens; i++) memset(out + ((b * P->new_tokens + i) * H + h) * d, 0, 4 * d);
}

/* p: index [rows], columns [batch] (each of a number), added and ends [vocab]; n: rows of the table, below which count
   nothing is known. layers/line_position.py */
void op_line_position(const Program *P, const Operation *o) {
    int64_t *index = o->p[0], from, to;
    mine(P->batch, &from, &to);
    for (int64_t b = from; b < to; b++) {
        int64_t *column = ((int64_t *const *)o->p[1])[b];
        for (int64_t i = b * P->new_tokens, end = i + real(P, b); i < end; i++) {
            int64_t token = P->tokens[i], added = ((const int64_t *)o->p[2])[token];
            *column = (((const int64_t *)o->p[3])[token] ? 0 : *column) + added;
            int64_t known = *column < 0 ? 0 : least(*column, o->n[0] - 2);
            index[i] = *column < o->n[1] ? 0 : known + 1;
        }
    }
}

/* p: table [vocab, d], both streams, a table per axis, up to 3, from p[6] on a weight of line positions and its rows, or
   NULL; n: d, axes, then (size, width) of each axis, the last fastest; x: units */
void op_embed(const Program *P, const Operation *o) {
    int64_t d = o->n[0], axes = o->n[1], from, to;
    mine(P->batch * P->new_tokens, &from, &to);
    for (int64_t row = from; row < to; row++) {
        const float *start = (const float *)o->p[0] + P->tokens[row] * d;
        int64_t position = P->positions[row / P->new_tokens] + row % P->new_tokens, first = d;
        int32_t *streams[2] = {(int32_t *)o->p[1] + row * d, (int32_t *)o->p[2] + row * d};
        const float *more = o->p[6] ? (const float *)o->p[6] + ((const int64_t *)o->p[7])[row] * d : NULL;
        if (!axes)
            for (int64_t c = 0; c < d; c++) streams[0][c] = (int32_t)rintf((start[c] + (more ? more[c] : 0)) * o->x[0]);
        for (int64_t axis = axes - 1; axis >= 0; axis--) {
            int64_t size = o->n[2 + 2 * axis], width = o->n[3 + 2 * axis];
            const float *place = (const float *)o->p[3 + axis] + position % size * width;
            first -= width, position /= size;
            for (int64_t c = 0; c < width; c++)
                streams[0][first + c] =
                    (int32_t)rintf((start[first + c] + (more ? more[first + c] : 0) + place[c]) * o->x[0]);
        }
        memcpy(streams[1], streams[0], 4 * d);
    }
}

/* p: out [rows, d] of (cos, sin), speed [d / 2] (double); n: d */
void op_phase(const Program *P, const Operation *o) {
    int64_t d = o->n[0], from, to;
    mine(P->batch * P->new_tokens, &from, &to);
    for (int64_t row = from; row < to; row++) {
        double position = (double)(P->positions[row / P->new_tokens] + row % P->new_tokens);
        float *out = (float *)o->p[0] + row * d;
        for (int64_t c = 0; c < d; c += 2) {
            double angle = position * ((const double *)o->p[1])[c / 2];
            out[c] = (float)cos(angle), out[c + 1] = (float)sin(angle);
        }
    }
}

/* p: a stream, out, another stream or NULL, weight and bias or NULL; n: d, whether the two lie side by side, else their
   sum is taken; x: units, eps. Without weights to unit mean square, with them as LayerNorm does. */
void op_norm(const Program *P, const Operation *o) {
    int64_t d = o->n[0], wide = o->n[1] ? 2 * d : d, from, to;
    const float *weight = o->p[3], *bias = o->p[4];
    mine(P->batch * P->new_tokens, &from, &to);
    for (int64_t row = from; row < to; row++) {
        const int32_t *a = (const int32_t *)o->p[0] + row * d, *b = o->p[2] ? (const int32_t *)o->p[2] + row * d : NULL;
        float *out = (float *)o->p[1] + row * wide, unit = 1 / o->x[0], mean = 0;
        for (int64_t c = 0; c < d; c++) out[c] = (float)(b && wide == d ? a[c] + b[c] : a[c]) * unit;
        for (int64_t c = d; c < wide; c++) out[c] = (float)b[c - d] * unit;
        for (int64_t c = 0; weight && c < wide; c++) mean += out[c] / wide;
        for (int64_t c = 0; c < wide; c++) out[c] -= mean;
        float scale = 1 / sqrtf(products(out, out, wide) / wide + o->x[1]);
        for (int64_t c = 0; c < wide; c++) out[c] *= scale;
        for (int64_t c = 0; weight && c < wide; c++) out[c] = out[c] * weight[c] + bias[c];
    }
}

/* y [rows, out] of a panel's PANEL outputs. A number is summed in the same order whatever the rows beside it are. */
INLINE void panel(const float *x, const float *weight, float *y, const float *bias, int64_t in, int64_t out, int64_t width,
                  int rows) {
    vec sum[ROWS][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) sum[r][v] = all(0);
    for (int64_t c = 0; c < in; c++)
        for (int v = 0; v < VECTORS; v++) {
            vec w = AT(weight + c * PANEL + v * LANES);
            for (int r = 0; r < rows; r++) sum[r][v] += w * x[r * in + c];
        }
    for (int r = 0; r < rows; r++)
        for (int64_t j = 0; j < width; j++) y[r * out + j] = ((float *)sum[r])[j] + (bias ? bias[j] : 0);
}

/* p: x, weight [panels, in, PANEL], y, bias or NULL; n: in, out. Threads share the panels. */
void op_matmul(const Program *P, const Operation *o) {
    int64_t in = o->n[0], out = o->n[1], rows = P->batch * P->new_tokens, from, to;
    mine((out + PANEL - 1) / PANEL, &from, &to);
    for (int64_t n = from; n < to; n++)
        for (int64_t row = 0; row < rows; row += ROWS) {
            int64_t j = n * PANEL, width = least(PANEL, out - j);
            const float *x = (const float *)o->p[0] + row * in, *weight = (const float *)o->p[1] + j * in;
            const float *bias = o->p[3] ? (const float *)o->p[3] + j : NULL;
            float *y = (float *)o->p[2] + row * out + j;
            switch (rows - row) { /* so that sums stay in registers */
                case 1: panel(x, weight, y, bias, in, out, width, 1); break;
                case 2: panel(x, weight, y, bias, in, out, width, 2); break;
                case 3: panel(x, weight, y, bias, in, out, width, 3); break;
                default: panel(x, weight, y, bias, in, out, width, ROWS);
            }
        }
}

int64_t panel_width(void) { return PANEL; }

/* p: y [rows, 2, heads, d], weights [heads, tokens, d], lengths [heads], before [batch] (each [heads, tokens - 1, d]), scratch
   of every thread [tokens, d]; n: heads, tokens, d. In place: keys made of the last tokens' vectors; ops/key_conv.py. */
void op_key_conv(const Program *P, const Operation *o) {
    int64_t H = o->n[0], tokens = o->n[1], d = o->n[2], kept = (tokens - 1) * d, from, to;
    float *last = (float *)o->p[4] + omp_get_thread_num() * tokens * d; /* the vectors of `tokens` tokens, oldest first */
    mine(P->batch * H, &from, &to);
    for (int64_t r = from; r < to; r++) {
        const float *weight = (const float *)o->p[1] + r % H * tokens * d;
        float *before = ((float *const *)o->p[3])[r / H] + r % H * kept;
        for (int64_t i = 0; i < real(P, r / H); i++) {
            float *x = (float *)o->p[0] + ((r / H * P->new_tokens + i) * 2 * H + r % H) * d;
            memcpy(last, before, 4 * kept);
            memcpy(last + kept, x, 4 * d);
            memcpy(before, last + d, 4 * kept);
            for (int64_t c = 0; c < d; c++) x[c] *= weight[c];
            for (int64_t s = 1; s < tokens; s++)
                for (int64_t c = 0; c < d; c++) x[c] += last[kept - s * d + c] * weight[s * d + c];
            float scale = ((const float *)o->p[2])[r % H] / sqrtf(fmaxf(products(x, x, d), 1e-12f));
            for (int64_t c = 0; c < d; c++) x[c] *= scale;
        }
    }
}

/* p: y [rows, parts, heads, d], lengths [parts - 1, heads], phase [rows, d] or NULL; n: parts, heads, d. In place: vectors
   of all parts but the last are brought to their length, then turned. */
void op_heads(const Program *P, const Operation *o) {
    int64_t parts = o->n[0], n_heads = o->n[1], d = o->n[2], from, to;
    mine(P->batch * P->new_tokens * (parts - 1) * n_heads, &from, &to);
    for (int64_t at = from; at < to; at++) {
        int64_t row = at / ((parts - 1) * n_heads), vector = at % ((parts - 1) * n_heads);
        float *x = (float *)o->p[0] + (row * parts * n_heads + vector) * d;
        float scale = ((const float *)o->p[1])[vector] / fmaxf(sqrtf(products(x, x, d)), 1e-12f);
        for (int64_t c = 0; c < d; c++) x[c] *= scale;
        const float *turn = o->p[2] ? (const float *)o->p[2] + row * d : NULL;
        for (int64_t c = 0; turn && c < d; c += 2) {
            float a = x[c], b = x[c + 1];
            x[c] = a * turn[c] - b * turn[c + 1], x[c + 1] = a * turn[c + 1] + b * turn[c];
        }
    }
}

/* p: y [rows, 3, heads, d], out [rows, heads, d], Windows [batch], scratch of every thread; n: numbers of scratch each */
void op_window(const Program *P, const Operation *o) {
    const Window *const *all = o->p[2];
    int64_t d = all[0]->d, H = all[0]->heads, from, to;
    mine(P->batch * H, &from, &to);
    for (int64_t r = from; r < to; r++) {
        for (int64_t i = 0; i < real(P, r / H); i++) {
            int64_t row = r / H * P->new_tokens + i;
            const float *y = (const float *)o->p[0] + (row * 3 * H + r % H) * d;
            window_token(all[r / H], r % H, P->positions[r / H] + i, y, y + H * d, y + 2 * H * d,
                         (float *)o->p[1] + (row * H + r % H) * d,
                         (float *)o->p[3] + omp_get_thread_num() * o->n[0]);
        }
        blank(P, o->p[1], r / H, r % H, H, d);
    }
}

/* Buckets of a vector x [d]; rotations [d, rounds, width], factors [n_factors]; see ops/lsh_hash/README.md. */
INLINE void hash(const float *x, const float *hash_mean, const float *rotations, int64_t d, int64_t rounds, int64_t width,
                 const int64_t *factors, int64_t n_factors, float *scratch, int64_t *ids) {
    memset(scratch, 0, 4 * rounds * width);
    for (int64_t c = 0; c < d; c++)
        add_scaled(scratch, rotations + c * rounds * width, x[c] - (hash_mean ? hash_mean[c] : 0), rounds * width);
    for (int64_t r = 0; r < rounds; r++) {
        const float *digits = scratch + r * width;
        int64_t id = 0, scale = 1;
        for (int64_t f = 0; f < n_factors; digits += factors[f] / 2, scale *= factors[f], f++) {
            int64_t best = 0;
            for (int64_t n = 1; n < factors[f] / 2; n++)
                if (fabsf(digits[n]) > fabsf(digits[best])) best = n;
            id += scale * (best + (digits[best] < 0 ? factors[f] / 2 : 0));
        }
        ids[r] = id;
    }
}

/* p: y [rows, 2, heads, d], out, Buckets [batch], scratch of every thread, rotations [heads, d, rounds, width], hash_mean [heads, d] or
   NULL, factors; n: numbers of scratch each, hashed rounds, width, factors, whether keys are queries brought to unit length. */
void op_buckets(const Program *P, const Operation *o) {
    const Buckets *const *all = o->p[2];
    int64_t d = all[0]->d, H = all[0]->heads, rounds = o->n[1], width = o->n[2], from, to;
    float *scratch = (float *)o->p[3] + omp_get_thread_num() * o->n[0], *unit = scratch + rounds * width, *rest = unit + d;
    mine(P->batch * H, &from, &to);
    for (int64_t r = from; r < to; r++) {
        for (int64_t i = 0; i < real(P, r / H); i++) {
            const Buckets *S = all[r / H];
            int64_t row = r / H * P->new_tokens + i, h = r % H, ids[MOST_ROUNDS] = {0};
            const float *q = (const float *)o->p[0] + (row * 2 * H + h) * d, *k = q;
            const float *hash_mean = o->p[5] ? (const float *)o->p[5] + h * d : NULL;
            hash(q, hash_mean, (const float *)o->p[4] + h * d * rounds * width, d, rounds, width, o->p[6], o->n[3], scratch, ids);
            for (int64_t round = 0; round < S->rounds; round++) ids[round] %= S->sizes[round]; /* a near round has fewer */
            if (o->n[4]) {
                float scale = 1 / sqrtf((products(q, q, d) / d + 1e-6f) * d);
                for (int64_t c = 0; c < d; c++) unit[c] = q[c] * scale;
                k = unit;
            }
            bucket_token(S, h, P->positions[r / H] + i, ids, q, k, q + H * d, (float *)o->p[1] + (row * H + h) * d, rest);
        }
        blank(P, o->p[1], r / H, r % H, H, d);
    }
}

/* p: out [rows, heads, d], scores [rows, heads]; n: heads, d. In place: what a head has read times 2 sigmoid(score). */
void op_head_gate(const Program *P, const Operation *o) {
    int64_t d = o->n[1], from, to;
    mine(P->batch * P->new_tokens * o->n[0], &from, &to);
    for (int64_t r = from; r < to; r++) {
        float *out = (float *)o->p[0] + r * d, factor = 2 / (1 + expf(-((const float *)o->p[1])[r]));
        for (int64_t c = 0; c < d; c++) out[c] *= factor;
    }
}

INLINE vec activated(int64_t kind, vec x, vec gate, float limit) {
    switch (kind) {
        case SQUARED_RELU: x = larger(x, (vec){0}); return x * x; /* a NaN stays one */
        case RELU: return larger(x, (vec){0});
        case SWIGLU: return x / (1 + exponential(smaller(-x, all(80)))) * gate;
        case SOFTCAP: return limit - 2 * limit / (1 + exponential(smaller(x * (2 / limit), all(80))));
        case GELU_TANH: /* x (1 + tanh(y)) / 2 with y = (2 / pi)^1/2 (x + 0.044715 x^3) is x over 1 + exp(-2 y) */
            gate = x * (0.7978845608f + 0.0356774081f * x * x);
            return x / (1 + exponential(smaller(-2 * gate, all(80))));
        default: for (int n = 0; n < LANES; n++) x[n] *= 0.5f * (1 + erff(x[n] * 0.70710678f)); return x;
    }
}

/* p: h [rows, n], out [rows, n]; of SWIGLU h is [rows, 2 n], and its second half is multiplied with; n: n; x: limit */
void op_activate(const Program *P, const Operation *o) {
    int64_t n = o->n[0], wide = o->kind == SWIGLU ? 2 * n : n, from, to;
    mine((n + LANES - 1) / LANES, &from, &to);
    for (int64_t row = 0; row < P->batch * P->new_tokens; row++)
        for (int64_t c = from * LANES; c < least(to * LANES, n); c += LANES) {
            const float *h = (const float *)o->p[0] + row * wide + c;
            float *out = (float *)o->p[1] + row * n + c;
            int64_t size = 4 * least(LANES, n - c);
            if (c + LANES <= n) { /* a size that only the run knows is copied by a call */
                AT(out) = activated(o->kind, AT(h), wide > n ? AT(h + n) : (vec){0}, o->x[0]);
                continue;
            }
            vec x = {0}, gate = {0};
            memcpy(&x, h, size);
            if (wide > n) memcpy(&gate, h + n, size);
            x = activated(o->kind, x, gate, o->x[0]);
            memcpy(out, &x, size);
        }
}

/* p: stream, x; n: d, number of the coupling; x: units, guard */
void op_add(Program *P, const Operation *o) {
    int64_t from, to;
    int32_t *stream = o->p[0], guard = (int32_t)o->x[1];
    mine(P->batch * P->new_tokens * o->n[0], &from, &to);
    for (int64_t at = from; at < to; at++) {
        float scaled = ((const float *)o->p[1])[at] * o->x[0];
        int fits = fabsf(scaled) < o->x[1];
        stream[at] += (int32_t)rintf(fits ? scaled : 0);
        if (!fits || stream[at] >= guard || stream[at] <= -guard) {
#pragma omp atomic write
            P->bad = 1 + o->n[1];
        }
    }
}
