// All that is compiled once per instruction set, as a table.
#pragma once
#include "interface.h"

namespace octavo {

struct Output {
    float* y;            // [T, stride]
    int64_t stride;
    const float* bias;   // [O] or null
    bool adds;           // to what is there
};

// One query head of one token, and the keys it sees: first to length.
struct Query {
    const float* q;
    float* out;
    int first;
    int length;
    float sink;  // a score that takes its share of the softmax and has no value; minus infinity: none
    float slope;  // of linear biases, where heads have them
};
constexpr int MOST_QUERIES = 12;  // that attend together

// Floats that the scores of so many keys take.
static inline int score_room(int num_keys) { return (num_keys + 31) / 16 * 16; }

// A probability as a whole number of 2^-40, so that sums of them are exact: ops/sampling/draw.py.
static inline float weight_of(float probability) {
    const float scaled = probability * 0x1p40f;
    return scaled < 0x1p23f ? (scaled + 0x1p23f) - 0x1p23f : scaled;  // to the nearest, ties to even
}

struct Kernels {
    const char* name;
    void (*product)(const Matrix&, const Activations&, int first, int last, int first_group, int last_group,
                    const Output&);
    void (*quantize)(const Activations&, int token);
    void (*rms_norm)(const float* x, const float* weight, float epsilon, int width, float* y);
    void (*gated)(const float* x, int inner, int32_t kind, float* y);
    // The lowest index of the largest number; value: that number, or NaN if there is one among all.
    int (*best)(const float* x, int count, float* value);
    // weights.h
    float (*exponentials)(const float* x, int count, float factor, float top, float* e);
    double (*mass)(const float* e, int count, float inverse);
    int (*find_likely)(const float* e, int count, float inverse, float least, int32_t* found);
    void (*prepare_heads)(const Heads&, const Pages&, float* qkv, int position, int slot);
    void (*walk_ssd)(float* state, int width, int size, const float* x, const float* b, const float* c, float dt,
                     float decay, float skip, float* y);
    void (*walk_delta)(float* state, int width, int size, const float* q, const float* k, const float* v, float beta,
                       float decay, float* y);
    // scores: MOST_QUERIES * score_room(the longest's number of keys) floats.
    void (*attend)(const Heads&, const Pages&, const Query* queries, int count, int k, const int32_t* table,
                   float* scores);
};

// The fastest that this processor runs, or the one called `wish` if it runs that; null otherwise.
const Kernels* choose_kernels(const char* wish);

}  // namespace octavo
