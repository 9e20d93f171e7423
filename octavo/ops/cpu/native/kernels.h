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

struct Kernels {
    const char* name;
    void (*product)(const Matrix&, const Activations&, int first, int last, int first_group, int last_group,
                    const Output&);
    void (*quantize)(const Activations&, int token);
    void (*rms_norm)(const float* x, const float* weight, float epsilon, int width, float* y);
    void (*gated)(const float* x, int inner, int32_t kind, float* y);
    void (*prepare_heads)(const Heads&, const Pages&, float* qkv, int position, int slot);
    void (*attend)(const Heads&, const Pages&, const float* q_HD, int head, int count, const int32_t* table,
                   int length, float* scores, float* out_HD);
};

// The fastest that this processor runs, or the one called `wish` if it runs that; null otherwise.
const Kernels* choose_kernels(const char* wish);

}  // namespace octavo
