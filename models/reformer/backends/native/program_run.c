/* A program from its first operation to its last (program.h). All threads go through the list together and meet after
   every operation, since an operation takes microseconds. */

#include <sched.h>

#include "program.h"

enum { PATIENCE = 2000 }; /* spins before yielding */

/* Where all threads meet. OpenMP's own barrier spins for milliseconds while a thread that other programs have displaced
   cannot come; this one lets them, and it, run. */
static void meet(int64_t *arrived, int64_t *round) {
    int64_t threads = omp_get_num_threads(), now = __atomic_load_n(round, __ATOMIC_ACQUIRE);
    if (threads == 1) return;
    if (__atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(round, now + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int64_t spins = 0; __atomic_load_n(round, __ATOMIC_ACQUIRE) == now; spins++)
        if (spins > PATIENCE) sched_yield();
}

void decode(Program *P) {
    int64_t arrived = 0, round = 0;
#pragma omp parallel num_threads(P->threads)
    for (int64_t n = 0; n < P->n_operations; n++) {
        const Operation *o = P->operations + n;
        switch (o->kind) {
            case LINE_POSITION: op_line_position(P, o); break;
            case EMBED: op_embed(P, o); break;
            case PHASE: op_phase(P, o); break;
            case NORM: op_norm(P, o); break;
            case MATMUL: op_matmul(P, o); break;
            case KEY_CONV: op_key_conv(P, o); break;
            case HEADS: op_heads(P, o); break;
            case WINDOW: op_window(P, o); break;
            case BUCKETS: op_buckets(P, o); break;
            case HEAD_GATE: op_head_gate(P, o); break;
            case ADD: op_add(P, o); break;
            default: op_activate(P, o);
        }
        meet(&arrived, &round);
    }
}
