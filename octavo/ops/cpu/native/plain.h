// Products of plain numbers (float32, bfloat16, float16) with any number of tokens, accumulated in float32.
//
// A group of 16 rows lies column by column, a lane a row, so every sum runs over the columns in order, in one
// lane, whatever other rows and tokens share the tile: a token's result does not depend on them in any bit.
//
// A tile keeps the sums of a few groups and tokens in registers while a slice of columns goes past. Slices
// are short enough that weights and inputs are still cached when the next tokens of a block need them;
// between slices the sums wait in memory, which changes no bit of them.
#pragma once
#include "kernels.h"
#include "put.h"
#include "simd.h"

namespace octavo {
namespace OCTAVO_ISA {

#if defined(__AVX512F__)
constexpr int MANY = 12, NARROW = 2, FEW = 4, WIDE = 4;
#elif defined(__AVX2__) || defined(__ARM_NEON)
constexpr int MANY = 6, NARROW = 1, FEW = 2, WIDE = 2;
#else
constexpr int MANY = 2, NARROW = 1, FEW = 1, WIDE = 2;
#endif
// Up to FEW tokens are multiplied with WIDE groups at a time, up to MANY with NARROW: as the registers hold.

constexpr int SLICE = 512;         // columns; even, as bfloat16 lies in pairs of them
constexpr int BLOCK_TOKENS = 96;   // a multiple of MANY
constexpr int PLAIN_AHEAD = 4096;  // bytes of a group that are fetched before they are needed

// How columns of a group lie, and how they become float32.
struct PlainFloat32 {
    static constexpr int STEP = 1, BYTES = GROUP_ROWS * 4;
    static void load_columns(const uint8_t* at, int part, Floats* w) { w[0] = load<Floats>(at + part * LANES * 4); }
};

// Two columns in the halves of 32 bits, the even one below; behind an odd number of columns comes one of zeros.
struct PlainBFloat16 {
    static constexpr int STEP = 2, BYTES = GROUP_ROWS * 4;
    static void load_columns(const uint8_t* at, int part, Floats* w) {
        const Ints pair = load<Ints>(at + part * LANES * 4);
        w[0] = (Floats)(pair << 16);
        w[1] = (Floats)(pair & all(int32_t(0xffff0000)));
    }
};

struct PlainFloat16 {
    static constexpr int STEP = 1, BYTES = GROUP_ROWS * 2;
    static void load_columns(const uint8_t* at, int part, Floats* w) {
        w[0] = load_half((const uint16_t*)at + part * LANES);
    }
};

// What a tile works on: groups that lie `group` bytes apart, tokens that lie `stride` numbers apart.
struct Slice {
    const uint8_t* w;
    int64_t group;
    const float* x;
    int64_t stride;
    int columns;
};

// sums[token][group * 16 + row] += the slice's columns.
template <class F, int GROUPS, int TOKENS>
static void plain_tile(const Slice& s, float* sums) {
    constexpr int PARTS = GROUP_ROWS / LANES, VECTORS = GROUPS * PARTS, WIDTH = GROUPS * GROUP_ROWS;
    Floats acc[VECTORS][TOKENS];
    OCTAVO_UNROLL
    for (int t = 0; t < TOKENS; ++t) {
        OCTAVO_UNROLL
        for (int v = 0; v < VECTORS; ++v) acc[v][t] = load<Floats>(sums + t * WIDTH + v * LANES);
    }
    const uint8_t* at = s.w;
    const float* x = s.x;
    const int even = s.columns / F::STEP * F::STEP;
    const auto add = [&](int c, const Floats (*w)[F::STEP], int count) {
        OCTAVO_UNROLL
        for (int j = 0; j < count; ++j) {
            OCTAVO_UNROLL
            for (int t = 0; t < TOKENS; ++t) {
                const Floats input = all(x[t * s.stride + c + j]);
                OCTAVO_UNROLL
                for (int v = 0; v < VECTORS; ++v) acc[v][t] = fma(w[v][j], input, acc[v][t]);
            }
        }
    };
    const auto read = [&](Floats (*w)[F::STEP]) {
        OCTAVO_UNROLL
        for (int v = 0; v < VECTORS; ++v) F::load_columns(at + v / PARTS * s.group, v % PARTS, w[v]);
        OCTAVO_UNROLL
        for (int g = 0; g < GROUPS; ++g) __builtin_prefetch(at + g * s.group + PLAIN_AHEAD);
        at += F::BYTES;
    };
    for (int c = 0; c < even; c += F::STEP) {
        Floats w[VECTORS][F::STEP];
        read(w);
        add(c, w, F::STEP);
    }
    if (even < s.columns) {
        Floats w[VECTORS][F::STEP];
        read(w);
        add(even, w, 1);
    }
    OCTAVO_UNROLL
    for (int t = 0; t < TOKENS; ++t) {
        OCTAVO_UNROLL
        for (int v = 0; v < VECTORS; ++v) store(sums + t * WIDTH + v * LANES, acc[v][t]);
    }
}

typedef void (*PlainTile)(const Slice&, float*);

constexpr int NUM_SIZES = 5, SIZES[NUM_SIZES] = {1, 2, 4, MANY > 6 ? 8 : 6, 12};

template <class F, int GROUPS, int TOKENS>
constexpr PlainTile tile_or_none() {
    if constexpr (TOKENS <= (GROUPS > NARROW ? FEW : MANY)) return plain_tile<F, GROUPS, TOKENS>;
    else return nullptr;
}

template <class F, int GROUPS>
constexpr PlainTile PLAIN_TILES[NUM_SIZES] = {
    tile_or_none<F, GROUPS, SIZES[0]>(), tile_or_none<F, GROUPS, SIZES[1]>(), tile_or_none<F, GROUPS, SIZES[2]>(),
    tile_or_none<F, GROUPS, SIZES[3]>(), tile_or_none<F, GROUPS, SIZES[4]>()};

// Groups g to g + GROUPS for tokens first to last, at most BLOCK_TOKENS.
template <class F, int GROUPS>
static void plain_block(const Matrix& m, const Activations& a, int first, int last, int g, const Output& out) {
    constexpr int WIDTH = GROUPS * GROUP_ROWS;
    alignas(64) float sums[BLOCK_TOKENS * WIDTH];
    std::memset(sums, 0, (last - first) * WIDTH * sizeof(float));
    const int64_t group = int64_t(m.columns + F::STEP - 1) / F::STEP * F::BYTES;
    for (int c = 0; c < m.columns; c += SLICE) {
        Slice slice = {m.data + g * group + c / F::STEP * F::BYTES, group, nullptr, m.columns,
                       m.columns - c < SLICE ? m.columns - c : SLICE};
        for (int t = first; t < last;) {
            int size = NUM_SIZES - 1;
            while (!PLAIN_TILES<F, GROUPS>[size] || SIZES[size] > last - t) --size;
            slice.x = a.x + int64_t(t) * m.columns + c;
            PLAIN_TILES<F, GROUPS>[size](slice, sums + (t - first) * WIDTH);
            t += SIZES[size];
        }
    }
    for (int t = first; t < last; ++t)
        for (int i = 0; i < WIDTH; i += LANES)
            put(out, t, g * GROUP_ROWS + i, m.rows, load<Floats>(sums + (t - first) * WIDTH + i));
}

template <class F>
static void plain_product(const Matrix& m, const Activations& a, int first, int last, int first_group, int last_group,
                          const Output& out) {
    for (int t = first; t < last; t += BLOCK_TOKENS) {
        const int end = t + BLOCK_TOKENS < last ? t + BLOCK_TOKENS : last;
        int g = first_group;
        if (end - t <= FEW)
            for (; g + WIDE <= last_group; g += WIDE) plain_block<F, WIDE>(m, a, t, end, g, out);
        for (; g + NARROW <= last_group; g += NARROW) plain_block<F, NARROW>(m, a, t, end, g, out);
        for (; g < last_group; ++g) plain_block<F, 1>(m, a, t, end, g, out);
    }
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
