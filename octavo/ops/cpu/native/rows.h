// Work on one row at a time: norm, rounding to 8 bits, gates, rotation. Any width: what does not fill a
// vector is done number by number.
#pragma once
#include "interface.h"
#include "kv.h"
#include "simd.h"

namespace octavo {
namespace OCTAVO_ISA {

// e^x: 2^n times a polynomial of degree 6 for the rest, relative error under 2e-7 between -87 and 88.
static inline Floats exponential(Floats x) {
    x = x < all(-87.0f) ? all(-87.0f) : x;
    x = x > all(88.0f) ? all(88.0f) : x;
    Floats n = to_float(nearest(x * all(1.44269504f)));
    Floats r = fma(n, all(-0.693359375f), x);
    r = fma(n, all(2.12194440e-4f), r);
    constexpr float FACTORS[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    Floats p = all(1.0f / 720);
    for (float factor : FACTORS) p = fma(p, r, all(factor));
    Ints bits = (nearest(n) + all(127)) << 23;
    return p * (Floats)bits;
}

static inline Floats hyperbolic_tangent(Floats x) {
    x = x < all(-15.0f) ? all(-15.0f) : x;
    x = x > all(15.0f) ? all(15.0f) : x;
    Floats e = exponential(x * all(2.0f));
    return (e - all(1.0f)) / (e + all(1.0f));
}

// One number through a function of vectors, so that a row's end gives the same bits as its middle.
template <class F>
static inline float scalar(F function, float x) { return function(all(x))[0]; }

// y = x / rms(x) * weight; x and y may be the same.
static void rms_norm(const float* x, const float* weight, float epsilon, int width, float* y) {
    Floats squares = {};
    int i = 0;
    for (; i + LANES <= width; i += LANES) {
        Floats v = load<Floats>(x + i);
        squares = fma(v, v, squares);
    }
    float total = sum_of(squares);
    for (; i < width; ++i) total += x[i] * x[i];
    const float factor = 1.0f / std::sqrt(total / width + epsilon);
    for (i = 0; i + LANES <= width; i += LANES)
        store(y + i, load<Floats>(x + i) * all(factor) * load<Floats>(weight + i));
    for (; i < width; ++i) y[i] = x[i] * factor * weight[i];
}

// Row `t` of a.x to 8 bits. A number that is not finite makes its block's scale NaN, and so every result.
static void quantize(const Activations& a, int t) {
    const int num_blocks = a.columns / BLOCK_COLUMNS;
    const float* x = a.x + int64_t(t) * a.columns;
    int8_t* q = a.q + int64_t(t) * a.columns;
    constexpr int VECTORS = BLOCK_COLUMNS / LANES;
    for (int b = 0; b < num_blocks; ++b, x += BLOCK_COLUMNS, q += BLOCK_COLUMNS) {
        Floats v[VECTORS], most = {}, zero = {};
        for (int i = 0; i < VECTORS; ++i) {
            v[i] = load<Floats>(x + i * LANES);
            most = larger(most, v[i] < Floats{} ? -v[i] : v[i]);
            zero += v[i] * all(0.0f);
        }
        const float top = largest_of(most);
        const float inverse = top > 0 ? 127.0f / top : 0.0f;
        const float scale = top / 127.0f + sum_of(zero);
        Ints halves[2] = {};
        for (int i = 0; i < VECTORS; ++i) {
            Ints rounded = nearest(v[i] * all(inverse));
            typedef int8_t Narrow __attribute__((vector_size(LANES)));
            store(q + i * LANES, __builtin_convertvector(rounded, Narrow));
            halves[i / (VECTORS / 2)] += rounded;
        }
        const int32_t sums[2] = {sum_of(halves[0]), sum_of(halves[1])};
        const int64_t at = int64_t(t) * num_blocks + b;
        a.scale[at] = scale;
        a.scaled_sum[at] = scale * float(sums[0] + sums[1]);
        a.sum[2 * at] = sums[0];
        a.sum[2 * at + 1] = sums[1];
    }
}

static int best(const float* x, int count, float* value) {
    Floats top = all(-INFINITY);
    Ints is_nan = {};
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        Floats v = load<Floats>(x + i);
        is_nan |= v != v;
        top = larger(top, v);
    }
    bool broken = bits_of(is_nan) != 0;
    float most = largest_of(top);
    for (; i < count; ++i) {
        broken |= x[i] != x[i];
        most = x[i] > most ? x[i] : most;
    }
    *value = broken ? NAN : most;
    if (broken) return 0;
    int found = 0;
    while (found + LANES <= count && !bits_of(load<Floats>(x + found) == all(most))) found += LANES;
    while (found < count && x[found] != most) ++found;
    return found;
}

static inline Floats silu(Floats x) { return x / (all(1.0f) + exponential(-x)); }
static inline Floats gelu_tanh(Floats x) {
    Floats inner = all(0.7978845608f) * fma(all(0.044715f) * x * x, x, x);
    return all(0.5f) * x * (all(1.0f) + hyperbolic_tangent(inner));
}

// y = gate(x[:inner]) * x[inner:]
static void gated(const float* x, int inner, int32_t kind, float* y) {
    const auto function = kind == GATE_SILU ? silu : gelu_tanh;
    int i = 0;
    for (; i + LANES <= inner; i += LANES) store(y + i, function(load<Floats>(x + i)) * load<Floats>(x + inner + i));
    for (; i < inner; ++i) y[i] = scalar(function, x[i]) * x[inner + i];
}

// The first `rotated` values of a head turn, half against half.
static void rotate(float* head, const float* angles, int rotated) {
    const int half = rotated / 2;
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
        Floats first = load<Floats>(head + i), second = load<Floats>(head + half + i);
        Floats cosine = load<Floats>(angles + i), sine = load<Floats>(angles + half + i);
        store(head + i, first * cosine - second * sine);
        store(head + half + i, second * cosine + first * sine);
    }
    for (; i < half; ++i) {
        float first = head[i], second = head[half + i];
        head[i] = first * angles[i] - second * angles[half + i];
        head[half + i] = second * angles[i] + first * angles[half + i];
    }
}

// Norm and rotate one token's heads [H + 2 K, D] in place, keys and values to their pages. slot < 0: nowhere.
static void prepare_heads(const Heads& h, const Pages& pages, float* qkv, int position, int slot) {
    const int D = h.head_dim, first_value = h.num_heads + h.num_kv_heads;
    for (int i = 0; i < first_value; ++i) {
        float* head = qkv + i * D;
        const float* norm = i < h.num_heads ? h.q_norm : h.k_norm;
        if (norm) rms_norm(head, norm, h.norm_epsilon, D, head);
        if (h.rotation) rotate(head, h.rotation + int64_t(position) * h.rotated, h.rotated);
    }
    if (slot >= 0) write_kv(pages, qkv + h.num_heads * D, qkv + first_value * D, h.num_kv_heads, D, slot);
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
