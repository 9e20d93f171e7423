// Where sums of a product go.
#pragma once
#include "kernels.h"
#include "simd.h"

namespace octavo {
namespace OCTAVO_ISA {

// One vector of sums of token t, for rows `row` and on; there are `rows` in all.
static inline void put(const Output& out, int t, int row, int rows, Floats value) {
    float* to = out.y + t * out.stride + row;
    if (row + LANES <= rows) {
        if (out.bias) value += load<Floats>(out.bias + row);
        if (out.adds) value += load<Floats>(to);
        store(to, value);
        return;
    }
    for (int i = 0; row + i < rows; ++i) {
        float v = value[i];
        if (out.bias) v += out.bias[row + i];
        to[i] = out.adds ? to[i] + v : v;
    }
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
