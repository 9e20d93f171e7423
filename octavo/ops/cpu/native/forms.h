// Packed forms: how 16 rows times 32 columns of a matrix lie in memory, and how they come into registers.
//
// A quad is four neighbouring columns of 16 rows: 64 bytes, byte 4 * row + column, one row per lane of 32
// bits. Every block begins with its scales and minima in half precision, one for each row; where there are
// two of a kind, they are for columns 0 to 15 and 16 to 31. pack.cpp writes these.
//
//   FORM_2  2 x 16 scales, 2 x 16 minima, then 2 x 64 bytes with two bits for quads 0 to 3 and 4 to 7.
//           weight = scale * q + minimum
//   FORM_3  2 x 16 scales, the same 128 bytes, then 64 bytes with the third bits: bit i of byte b belongs to
//           byte b of quad i. weight = scale * (q - 4)
//   FORM_4  16 scales, 16 minima, then 4 x 64 bytes: quad i in the low halves, quad i + 4 in the high ones.
//           weight = scale * q + minimum, q from 0 to 15
//   FORM_5  16 scales, 16 minima, the same 256 bytes, then 64 bytes with the fifth bits
//   FORM_6  2 x 16 scales, the same 256 bytes, then 2 x 64 bytes with two more bits. weight = scale * (q - 32)
//   FORM_8  16 scales, then 8 quads. weight = scale * (q - 128)
//   FORM_TERNARY  16 scales, then 2 x 64 bytes as FORM_2. weight = scale * (q - 1)
// and with levels (levels.h), weight = scale * level:
//   FORM_BENT, FORM_FP4, FORM_IQ3_XXS, FORM_IQ3_S: 16 scales, then 4 x 64 bytes as FORM_4
//   FORM_IQ1, FORM_IQ2: 16 scales, then 3 x 64 bytes as FORM_3
//   FORM_IQ1_TWICE, FORM_IQ2_TWICE: 2 x 16 scales, then the same
#pragma once
#include "interface.h"
#include "levels.h"
#include "simd.h"

namespace octavo {
namespace OCTAVO_ISA {

constexpr int HALVES = GROUP_ROWS * 2;   // bytes of 16 numbers in half precision
constexpr int QUAD = GROUP_ROWS * 4;     // bytes of a quad of bytes
constexpr int PART = LANES * 4;          // bytes of it in one vector

static inline void unpack_nibbles(const uint8_t* at, Bytes* w) {
    for (int i = 0; i < 4; ++i) {
        Bytes both = load<Bytes>(at + i * QUAD);
        w[i] = both & all_bytes(15);
        w[i + 4] = both >> 4;
    }
}

// The numbers in `at` have two bits for quads 0 to 3, then for 4 to 7.
static inline Bytes two_bits(const uint8_t* at, int quad) {
    return (load<Bytes>(at + quad / 4 * QUAD) >> (2 * (quad % 4))) & all_bytes(3);
}

// The third bits lie behind these.
static inline void unpack_three_bits(const uint8_t* at, Bytes* w) {
    const Bytes high = load<Bytes>(at + 2 * QUAD);
    for (int i = 0; i < 8; ++i) w[i] = two_bits(at, i) | ((i < 2 ? high << (2 - i) : high >> (i - 2)) & all_bytes(4));
}

// `part` says which of a group's rows: lanes part * LANES and so on. `offset` is what the products of the
// stored, unsigned numbers lack; sum: those of a block's two halves of inputs.
struct Form2 {
    static constexpr int BYTES = 4 * HALVES + 2 * QUAD, MOST = 3, SCALES = 2, MINIMA = 2;
    static void unpack(const uint8_t* block, int part, Bytes* w) {
        for (int i = 0; i < 8; ++i) w[i] = two_bits(block + 4 * HALVES + part * PART, i);
    }
    static int32_t offset(const int32_t*, int) { return 0; }
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t*, int half) {
        return dot<4, MOST>(w + 4 * half, x + 16 * half, Ints{});
    }
};

struct Form3 {
    static constexpr int BYTES = 2 * HALVES + 3 * QUAD, MOST = 7, SCALES = 2, MINIMA = 0;
    static void unpack(const uint8_t* block, int part, Bytes* w) {
        unpack_three_bits(block + 2 * HALVES + part * PART, w);
    }
    static int32_t offset(const int32_t* sum, int half) { return -4 * sum[half]; }
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t* sum, int half) {
        return dot<4, MOST>(w + 4 * half, x + 16 * half, all(offset(sum, half)));
    }
};

struct Form4 {
    static constexpr int BYTES = 2 * HALVES + 4 * QUAD, MOST = 15, SCALES = 1, MINIMA = 1;
    static void unpack(const uint8_t* block, int part, Bytes* w) {
        unpack_nibbles(block + 2 * HALVES + part * PART, w);
    }
    static int32_t offset(const int32_t*, int) { return 0; }
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t*, int) { return dot<8, MOST>(w, x, Ints{}); }
};

struct Form5 {
    static constexpr int BYTES = 2 * HALVES + 5 * QUAD, MOST = 31, SCALES = 1, MINIMA = 1;
    static void unpack(const uint8_t* block, int part, Bytes* w) {
        const uint8_t* at = block + 2 * HALVES + part * PART;
        unpack_nibbles(at, w);
        Bytes high = load<Bytes>(at + 4 * QUAD);
        for (int i = 0; i < 8; ++i) w[i] |= ((high >> i) & all_bytes(1)) << 4;
    }
    static int32_t offset(const int32_t*, int) { return 0; }
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t*, int) { return dot<8, MOST>(w, x, Ints{}); }
};

struct Form6 {
    static constexpr int BYTES = 2 * HALVES + 6 * QUAD, MOST = 63, SCALES = 2, MINIMA = 0;
    static void unpack(const uint8_t* block, int part, Bytes* w) {
        const uint8_t* at = block + 2 * HALVES + part * PART;
        unpack_nibbles(at, w);
        for (int i = 0; i < 8; ++i) w[i] |= two_bits(at + 4 * QUAD, i) << 4;
    }
    static int32_t offset(const int32_t* sum, int half) { return -32 * sum[half]; }
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t* sum, int half) {
        return dot<4, MOST>(w + 4 * half, x + 16 * half, all(offset(sum, half)));
    }
};

struct Form8 {
    static constexpr int BYTES = HALVES + 8 * QUAD, MOST = 255, SCALES = 1, MINIMA = 0;
    static void unpack(const uint8_t* block, int part, Bytes* w) {
        for (int i = 0; i < 8; ++i) w[i] = load<Bytes>(block + HALVES + i * QUAD + part * PART);
    }
    static int32_t offset(const int32_t* sum, int) { return -128 * (sum[0] + sum[1]); }
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t* sum, int) {
        return dot_biased<8>(w, x, sum[0] + sum[1]);
    }
};

struct FormTernary {
    static constexpr int BYTES = HALVES + 2 * QUAD, MOST = 3, SCALES = 1, MINIMA = 0;
    static void unpack(const uint8_t* block, int part, Bytes* w) {
        for (int i = 0; i < 8; ++i) w[i] = two_bits(block + HALVES + part * PART, i);
    }
    static int32_t offset(const int32_t* sum, int) { return -(sum[0] + sum[1]); }
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t* sum, int half) {
        return dot<8, MOST>(w, x, all(offset(sum, half)));
    }
};

// Codes of levels are 3 or 4 bits wide.
template <const Levels& LEVELS, int BITS, int NUM_SCALES>
struct FormLevels {
    static constexpr int BYTES = NUM_SCALES * HALVES + BITS * QUAD, MOST = LEVELS.most(), SCALES = NUM_SCALES, MINIMA = 0;
    static void unpack(const uint8_t* block, int part, Bytes* w) {
        const uint8_t* at = block + SCALES * HALVES + part * PART;
        if constexpr (BITS == 4) unpack_nibbles(at, w);
        else unpack_three_bits(at, w);
        for (int i = 0; i < 8; ++i) w[i] = look_up(LEVELS.of, w[i]);
    }
    static int32_t offset(const int32_t* sum, int half) {
        return -LEVELS.offset * (SCALES == 1 ? sum[0] + sum[1] : sum[half]);
    }
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t* sum, int half) {
        return dot<8 / SCALES, MOST>(w + 4 * half, x + 16 * half, all(offset(sum, half)));
    }
};

// Its levels need all eight bits.
struct FormBent : FormLevels<BENT_LEVELS, 4, 1> {
    static Ints dot_quads(const Bytes* w, const int8_t* x, const int32_t* sum, int half) {
        return Form8::dot_quads(w, x, sum, half);
    }
};
using FormFp4 = FormLevels<FP4_LEVELS, 4, 1>;
using FormIq1 = FormLevels<IQ1_LEVELS, 3, 1>;
using FormIq1Twice = FormLevels<IQ1_LEVELS, 3, 2>;
using FormIq2 = FormLevels<IQ2_LEVELS, 3, 1>;
using FormIq2Twice = FormLevels<IQ2_LEVELS, 3, 2>;
using FormIq3Xxs = FormLevels<IQ3_XXS_LEVELS, 4, 1>;
using FormIq3S = FormLevels<IQ3_S_LEVELS, 4, 1>;

// What minimum number `m` of a block is multiplied with: the sum of the inputs that it is for, in their scale.
template <class F>
static inline float scaled_share(const float* scaled_sums, const float* scales, const int32_t* sums, int block, int m) {
    return F::MINIMA == 1 ? scaled_sums[block] : scales[block] * float(sums[2 * block + m]);
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
