/* What happens to rows of vectors between the large products, each in one pass over memory: norms, lengths, rotary
   positions, squared ReLU, and the fixed-point streams. ops/norm_rope_relu/pytorch.py defines them.

   `half` marks rows of bfloat16, else they are float32. Work is cut into CHUNK rows, whatever the number of threads, so
   that sums over rows have one order. */

#include "vectors.h"

enum { CHUNK = 64 };
#define TINY 1e-12f /* what a shorter vector is divided by */

#define ROWS_IN_PARALLEL(n) \
    _Pragma("omp parallel for num_threads(threads) schedule(static)") for (int64_t row = 0; row < (n); row++)

INLINE float get(const void *x, int64_t at, int half) {
    return half ? from_bfloat16(((const uint16_t *)x)[at]) : ((const float *)x)[at];
}

INLINE void put(void *x, int64_t at, int half, float value) {
    if (half)
        ((uint16_t *)x)[at] = to_bfloat16(value);
    else
        ((float *)x)[at] = value;
}

/* out = x / rms(x); inverse: 1 / rms(x). */
void rows_rms_norm(const void *x, void *out, float *inverse, int64_t n, int64_t d, float eps, int64_t half,
                    int64_t half_out, int64_t threads) {
    ROWS_IN_PARALLEL(n) {
        float buffer[padded(d)];
        load_row(x, row, d, half, buffer);
        float scale = 1 / sqrtf(products(buffer, buffer, d) / d + eps);
        for (int64_t c = 0; c < d; c++) buffer[c] *= scale;
        store_row(out, row, d, half_out, buffer);
        inverse[row] = scale;
    }
}

/* dx = (dy - y mean(dy y)) / rms(x), y: normalised x. */
void rows_rms_norm_backward(const void *dy, const void *y, const float *inverse, void *dx, int64_t n, int64_t d,
                         int64_t half, int64_t half_out, int64_t threads) {
    ROWS_IN_PARALLEL(n) {
        float g[padded(d)], at[padded(d)];
        load_row(dy, row, d, half, g);
        load_row(y, row, d, half, at);
        float along = products(g, at, d) / d;
        for (int64_t c = 0; c < d; c++) g[c] = inverse[row] * (g[c] - along * at[c]);
        store_row(dx, row, d, half_out, g);
    }
}

/* Pairs (2i, 2i + 1) of x turned by phase = (cos, sin) pairs, or back (sign -1). */
INLINE void rotate(float *x, const float *phase, int64_t d, float sign) {
    for (int64_t c = 0; c < d; c += 2) {
        float a = x[c], b = x[c + 1], cosine = phase[c], sine = sign * phase[c + 1];
        x[c] = a * cosine - b * sine;
        x[c + 1] = a * sine + b * cosine;
    }
}

/* raw [n, parts, heads, d] -> out[part] [n, heads, d]. Vectors of all parts but the last are brought to the length
   scale [parts - 1, heads] and turned by phase [n_phases, d / 2], where these are given; length [n, parts - 1, heads]:
   what they were. Row i has phase i modulo n_phases. */
void rows_qk_norm_rope(const void *raw, void *const *out, float *length, const float *scale, const float *phase, int64_t n,
                int64_t n_phases, int64_t parts, int64_t heads, int64_t d, int64_t half, int64_t threads) {
    ROWS_IN_PARALLEL(n) {
        float x[padded(d)];
        for (int64_t p = 0; p < parts; p++)
            for (int64_t h = 0; h < heads; h++) {
                load_row(raw, (row * parts + p) * heads + h, d, half, x);
                if (scale && p < parts - 1) {
                    float was = fmaxf(sqrtf(products(x, x, d)), TINY), factor = scale[p * heads + h] / was;
                    length[(row * (parts - 1) + p) * heads + h] = was;
                    for (int64_t c = 0; c < d; c++) x[c] *= factor;
                    if (phase) rotate(x, phase + row % n_phases * d, d, 1);
                }
                store_row(out[p], row * heads + h, d, half, x);
            }
    }
}

/* The gradients of rows_qk_norm_rope: grad[part], out[part] -> d_raw; d_scale [chunks, parts - 1, heads], to be added up. */
void rows_qk_norm_rope_backward(void *const *grad, void *const *out, const float *length, const float *scale, const float *phase,
                     void *d_raw, float *d_scale, int64_t n, int64_t n_phases, int64_t parts, int64_t heads, int64_t d,
                     int64_t half, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t chunk = 0; chunk < (n + CHUNK - 1) / CHUNK; chunk++)
        for (int64_t row = chunk * CHUNK; row < least((chunk + 1) * CHUNK, n); row++) {
            float g[padded(d)], y[padded(d)];
            for (int64_t p = 0; p < parts; p++)
                for (int64_t h = 0; h < heads; h++) {
                    load_row(grad[p], row * heads + h, d, half, g);
                    if (scale && p < parts - 1) {
                        /* y = s u with u of unit length: d_raw = (s g - y (y . g) / s) / length */
                        load_row(out[p], row * heads + h, d, half, y);
                        float s = scale[p * heads + h], was = length[(row * (parts - 1) + p) * heads + h];
                        float along = products(g, y, d);
                        d_scale[(chunk * (parts - 1) + p) * heads + h] += along / s;
                        for (int64_t c = 0; c < d; c++) g[c] = (s * g[c] - along / s * y[c]) / was;
                        if (phase) rotate(g, phase + row % n_phases * d, d, -1);
                    }
                    store_row(d_raw, (row * parts + p) * heads + h, d, half, g);
                }
        }
}

/* h = relu(h), square = h^2, of n numbers. */
void rows_squared_relu(void *h, void *square, int64_t n, int64_t half, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < n; start += 4096)
        for (int64_t at = start; at < least(start + 4096, n); at++) {
            float x = get(h, at, half);
            x = x < 0 ? 0 : x; /* a NaN stays */
            put(h, at, half, x);
            put(square, at, half, x * x);
        }
}

/* d = 2 h d, of n numbers. */
void rows_squared_relu_backward(void *d, const void *h, int64_t n, int64_t half, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < n; start += 4096)
        for (int64_t at = start; at < least(start + 4096, n); at++)
            put(d, at, half, 2 * get(h, at, half) * get(d, at, half));
}

/* x = stream / units, of n numbers. */
void rows_from_fixed(const int32_t *stream, void *x, int64_t n, float units, int64_t half, int64_t threads) {
    float unit = 1 / units;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < n; start += 4096)
        for (int64_t at = start; at < least(start + 4096, n); at++) put(x, at, half, (float)stream[at] * unit);
}

/* stream += sign * round(x * units), of n numbers. Returns 1 if every |x| is below limit / units and every |stream|
   below limit, else 0: then x may not be a number and the stream is of no use. */
int rows_add_fixed(int32_t *stream, const void *x, int64_t n, float units, int64_t sign, int64_t limit, int64_t half,
             int64_t threads) {
    int bad = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : bad)
    for (int64_t start = 0; start < n; start += 4096) {
        int32_t wrong = 0;
        for (int64_t at = start; at < least(start + 4096, n); at++) {
            float scaled = get(x, at, half) * units;
            int32_t fits = fabsf(scaled) < (float)limit; /* not so for a NaN */
            int32_t now = stream[at] + (int32_t)sign * (int32_t)rintf(fits ? scaled : 0);
            stream[at] = now;
            wrong |= !fits | (now >= limit) | (now <= -limit);
        }
        bad |= wrong;
    }
    return !bad;
}
