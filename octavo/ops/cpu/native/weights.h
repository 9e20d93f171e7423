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

typedef float HalfFloats __attribute__((vector_size(LANES * 2)));
typedef double Doubles __attribute__((vector_size(LANES * 4)));

// weight_of each of these probabilities.
static inline Doubles weights_of(HalfFloats probabilities) {
    constexpr float WHOLE = 0x1p23f;
    const HalfFloats scaled = probabilities * 0x1p40f, rounded = (scaled + WHOLE) - WHOLE;
    return __builtin_convertvector(scaled < WHOLE ? rounded : scaled, Doubles);
}

// The sum of weight_of(e * inverse), exact in any order.
static double mass(const float* e, int count, float inverse) {
    constexpr int HALF = LANES / 2;
    Doubles even = {}, odd = {};
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        even += weights_of(load<HalfFloats>(e + i) * inverse);
        odd += weights_of(load<HalfFloats>(e + i + HALF) * inverse);
    }
    even += odd;
    double total = 0;
    for (int lane = 0; lane < HALF; ++lane) total += even[lane];
    for (; i < count; ++i) total += weight_of(e[i] * inverse);
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
