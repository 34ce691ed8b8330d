/* A program: operations that take a few new tokens through the whole model, in order. decode/program.py makes the list;
   program_run.c goes through it, program_ops.c has the operations. Rows are batch x new tokens, token by token within a
   batch row; attention takes its tokens one after the other. What a batch row keeps is found through tables of addresses:
   rows may be of states that have nothing to do with each other. */

#ifndef PROGRAM_H
#define PROGRAM_H

#include "caches.h"

#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_thread_num(void) { return 0; }
static inline int omp_get_num_threads(void) { return 1; }
#endif

/* As in decode/program.py. */
enum {
    LINE_POSITION, EMBED, PHASE, NORM, MATMUL, KEY_CONV, HEADS, WINDOW, BUCKETS, HEAD_GATE,
    SQUARED_RELU, RELU, GELU, GELU_TANH, SWIGLU, ADD, SOFTCAP
};

/* p, n, x: what they are is said at each operation below; decode/program.py fills them in. */
typedef struct {
    int64_t kind;
    void *p[8];
    int64_t n[8];
    float x[4];
} Operation;

typedef struct {
    const Operation *operations;
    int64_t n_operations, batch, new_tokens, threads;
    const int64_t *tokens;    /* [batch, new] */
    const int64_t *positions; /* [batch]: tokens before these */
    const int64_t *counts;    /* [batch]: how many of the new ones are real, the others fill up at the end; NULL: all */
    int64_t bad;              /* set to 1 + the number of an operation whose sum left the streams' range */
} Program;

void op_line_position(const Program *P, const Operation *o);
void op_embed(const Program *P, const Operation *o);
void op_phase(const Program *P, const Operation *o);
void op_norm(const Program *P, const Operation *o);
void op_matmul(const Program *P, const Operation *o);
void op_key_conv(const Program *P, const Operation *o);
void op_heads(const Program *P, const Operation *o);
void op_window(const Program *P, const Operation *o);
void op_buckets(const Program *P, const Operation *o);
void op_head_gate(const Program *P, const Operation *o);
void op_activate(const Program *P, const Operation *o);
void op_add(Program *P, const Operation *o);

#endif
