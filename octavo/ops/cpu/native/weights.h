// What drawing a token does to a whole row of logits: exponentials, exact sums of weights, and finding the likely.
#pragma once
#include "kernels.h"
#include "rows.h"

namespace octavo {
namespace OCTAVO_ISA {

// e = exp(factor * x - factor * top), which is 1 at the largest, top. Their sum.
static float exponentials(const float* x, int count, float factor, float top, float* e) {
    const Floats shift = all(top * factor);
    Floats total = {};
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        const Floats v = exponential(load<Floats>(x + i) * all(factor) - shift);
        store(e + i, v);
        total += v;
    }
    float sum = sum_of(total);
    for (; i < count; ++i) sum += e[i] = exponential(all(x[i] * factor) - shift)[0];
    return sum;
}

// The sum of weight_of(e * inverse), exact in any order.
static double mass(const float* e, int count, float inverse) {
    constexpr int TOGETHER = 8;
    double sums[TOGETHER] = {}, total = 0;
    int i = 0;
    for (; i + TOGETHER <= count; i += TOGETHER)
        for (int j = 0; j < TOGETHER; ++j) sums[j] += weight_of(e[i + j] * inverse);
    for (; i < count; ++i) total += weight_of(e[i] * inverse);
    for (double sum : sums) total += sum;
    return total;
}

// Indices, ascending, where e * inverse is at least `least`; how many.
static int find_likely(const float* e, int count, float inverse, float least, int32_t* found) {
    int n = 0, i = 0;
    for (; i + LANES <= count; i += LANES)
        for (uint32_t bits = bits_of(load<Floats>(e + i) * all(inverse) >= all(least)); bits; bits &= bits - 1)
            found[n++] = i + __builtin_ctz(bits);
    for (; i < count; ++i)
        if (e[i] * inverse >= least) found[n++] = i;
    return n;
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
