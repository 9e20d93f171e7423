// One step of a recurrence of one head: the state forgets, learns and answers.
//
// A state is `width` rows of `size` numbers. Sums run along a row, whole vectors first, always in one order.
#pragma once
#include "interface.h"
#include "simd.h"

namespace octavo {
namespace OCTAVO_ISA {

// row = decay * row + factor * added; returns the new row times `asked`.
static inline float learn(float* row, float decay, float factor, const float* added, const float* asked, int size) {
    Floats sums = {};
    int i = 0;
    for (; i + LANES <= size; i += LANES) {
        const Floats state = fma(all(factor), load<Floats>(added + i), all(decay) * load<Floats>(row + i));
        store(row + i, state);
        sums = fma(state, load<Floats>(asked + i), sums);
    }
    float sum = sum_of(sums);
    for (; i < size; ++i) {
        row[i] = decay * row[i] + factor * added[i];
        sum += row[i] * asked[i];
    }
    return sum;
}

static inline float ask(const float* row, const float* asked, int size) {
    Floats sums = {};
    int i = 0;
    for (; i + LANES <= size; i += LANES) sums = fma(load<Floats>(row + i), load<Floats>(asked + i), sums);
    float sum = sum_of(sums);
    for (; i < size; ++i) sum += row[i] * asked[i];
    return sum;
}

// state = decay * state + dt * x b^T; y = state c + skip * x (ops/ssd.py)
static void walk_ssd(float* state, int width, int size, const float* x, const float* b, const float* c, float dt,
                     float decay, float skip, float* y) {
    for (int p = 0; p < width; ++p) y[p] = learn(state + p * size, decay, dt * x[p], b, c, size) + skip * x[p];
}

// state = decay * state; state += beta * (v - state k) k^T; y = state q (ops/gated_delta.py)
static void walk_delta(float* state, int width, int size, const float* q, const float* k, const float* v, float beta,
                       float decay, float* y) {
    for (int p = 0; p < width; ++p) {
        float* row = state + p * size;
        const float told = beta * (v[p] - decay * ask(row, k, size));
        y[p] = learn(row, decay, told, k, q, size);
    }
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
