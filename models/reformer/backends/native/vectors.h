/* Vectors of the processor's own width in GCC's and clang's portable notation, rows in float32 or bfloat16, and the
   one small matrix product that everything here is made of. */

#ifndef REFORMER_VECTORS_H
#define REFORMER_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A tile of ROWS x VECTORS vectors of sums, and what it reads, fill the registers. */
#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 4, ROWS = 4 };
#elif defined(__AVX2__)
enum { LANES = 8, VECTORS = 2, ROWS = 4 };
#else
enum { LANES = 4, VECTORS = 4, ROWS = 4 };
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int64_t lvec __attribute__((vector_size(8 * LANES), aligned(8), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define AT(p) (*(vec *)(p))

INLINE int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE vec all(float x) { return x - (vec){0}; }
INLINE vec choose(ivec which, vec a, vec b) { return (vec)((which & (ivec)a) | (~which & (ivec)b)); }
INLINE vec larger(vec a, vec b) { return choose(b > a, b, a); } /* a NaN in a stays */
INLINE vec smaller(vec a, vec b) { return choose(b < a, b, a); }

/* Sum of a vector's lanes, half onto half. */
INLINE float total(vec x) {
    float lane[LANES];
    memcpy(lane, &x, sizeof lane);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int n = 0; n < half; n++) lane[n] += lane[n + half];
    return lane[0];
}

/* Sum of a * b over n numbers. */
INLINE float products(const float *a, const float *b, int64_t n) {
    vec sum[4] = {{0}};
    int64_t c = 0;
    for (; c + 4 * LANES <= n; c += 4 * LANES)
        for (int k = 0; k < 4; k++) sum[k] += AT(a + c + k * LANES) * AT(b + c + k * LANES);
    for (; c + LANES <= n; c += LANES) sum[0] += AT(a + c) * AT(b + c);
    float rest = 0;
    for (; c < n; c++) rest += a[c] * b[c];
    return total((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

/* to += factor * from, of n numbers. */
INLINE void add_scaled(float *to, const float *from, float factor, int64_t n) {
    for (int64_t c = 0; c < n; c++) to[c] += factor * from[c];
}

/* e^x to 2e-7 for x <= 88, 0 below -87 (Cody and Waite's reduction, Cephes' polynomial). */
INLINE vec exponential(vec x) {
    ivec tiny = x < -87.0f;
    x = larger(x, all(-87.0f));
    ivec n = __builtin_convertvector(x * 1.44269504f + choose(x > 0.0f, all(0.5f), all(-0.5f)), ivec);
    vec whole = __builtin_convertvector(n, vec);
    vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return choose(tiny, (vec){0}, (vec)((ivec)p + (n << 23)));
}

INLINE float from_bfloat16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

INLINE uint16_t to_bfloat16(float x) { /* to nearest, ties to even; a NaN stays one */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, nan = (bits >> 16) | 64;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

/* Row `row` of x [.., d], float32 or (half) bfloat16, into `to`, which is filled up with zeros. */
INLINE void load_row(const void *x, int64_t row, int64_t d, int half, float *to) {
    if (half) {
        const uint16_t *from = (const uint16_t *)x + row * d;
        for (int64_t c = 0; c < d; c++) to[c] = from_bfloat16(from[c]);
    } else {
        memcpy(to, (const float *)x + row * d, 4 * d);
    }
    for (int64_t c = d; c < padded(d); c++) to[c] = 0;
}

INLINE void store_row(void *x, int64_t row, int64_t d, int half, const float *from) {
    if (half) {
        uint16_t *to = (uint16_t *)x + row * d;
        for (int64_t c = 0; c < d; c++) to[c] = to_bfloat16(from[c]);
    } else {
        memcpy((float *)x + row * d, from, 4 * d);
    }
}

/* c[r][n] (+)= sum over s of a[r * a_row + s * a_step] * b[s * b_row + n], for ROWS rows and n_vec vectors of n. */
INLINE void tile(int n_vec, int add, int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b,
                 int64_t b_row, float *c, int64_t c_row) {
    vec sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int n = 0; n < n_vec; n++) sum[r][n] = add ? AT(c + r * c_row + n * LANES) : (vec){0};
    for (int64_t s = 0; s < depth; s++) {
        vec right[VECTORS];
        for (int n = 0; n < n_vec; n++) right[n] = AT(b + s * b_row + n * LANES);
        for (int r = 0; r < ROWS; r++) {
            float left = a[r * a_row + s * a_step];
            for (int n = 0; n < n_vec; n++) sum[r][n] += left * right[n];
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int n = 0; n < n_vec; n++) AT(c + r * c_row + n * LANES) = sum[r][n];
}

/* The same for a width of any number of vectors. */
INLINE void product(int64_t width, int add, int64_t depth, const float *a, int64_t a_row, int64_t a_step,
                    const float *b, int64_t b_row, float *c, int64_t c_row) {
    for (; width >= VECTORS * LANES; width -= VECTORS * LANES, b += VECTORS * LANES, c += VECTORS * LANES)
        tile(VECTORS, add, depth, a, a_row, a_step, b, b_row, c, c_row);
    switch (width / LANES) {
        case 3: tile(3, add, depth, a, a_row, a_step, b, b_row, c, c_row); break;
        case 2: tile(2, add, depth, a, a_row, a_step, b, b_row, c, c_row); break;
        case 1: tile(1, add, depth, a, a_row, a_step, b, b_row, c, c_row); break;
    }
}

#endif
