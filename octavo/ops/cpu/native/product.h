// Products of packed matrices with a few tokens at a time, accumulated in float32.
//
// A token's sum runs over the blocks in order, in one register, whatever other tokens share the tile: its
// result does not depend on them in any bit.
#pragma once
#include "forms.h"
#include "kernels.h"
#include "matrix_unit.h"
#include "plain.h"
#include "put.h"

namespace octavo {
namespace OCTAVO_ISA {

constexpr int AHEAD = 8192;  // bytes: far enough that weights are there when their turn comes
constexpr int TILE = 8;  // tokens that use unpacked weights before the next ones are unpacked

template <class F, int TOKENS>
static void tile(const uint8_t* group, const Activations& a, int token, int row, int rows, const Output& out) {
    const int num_blocks = a.columns / BLOCK_COLUMNS;
    const int8_t* q = a.q + int64_t(token) * a.columns;
    const float* scales = a.scale + int64_t(token) * num_blocks;
    const float* scaled_sums = a.scaled_sum + int64_t(token) * num_blocks;
    const int32_t* sums = a.sum + int64_t(token) * num_blocks * 2;
    for (int part = 0; part < GROUP_ROWS / LANES; ++part) {
        Floats acc[TOKENS] = {};
        const uint8_t* block = group;
        for (int b = 0; b < num_blocks; ++b, block += F::BYTES) {
            for (int i = 0; i < F::BYTES; i += 64) __builtin_prefetch(block + AHEAD + i);
            Bytes w[8];
            F::unpack(block, part, w);
            const uint16_t* halves = (const uint16_t*)block + part * LANES;
            Floats scale[F::SCALES], minimum[F::MINIMA + 1];
            for (int s = 0; s < F::SCALES; ++s) scale[s] = load_half(halves + s * GROUP_ROWS);
            for (int m = 0; m < F::MINIMA; ++m) minimum[m] = load_half(halves + (F::SCALES + m) * GROUP_ROWS);
            OCTAVO_UNROLL
            for (int t = 0; t < TOKENS; ++t) {
                const int8_t* x = q + int64_t(t) * a.columns + b * BLOCK_COLUMNS;
                const Floats x_scale = all(scales[t * num_blocks + b]);
                for (int s = 0; s < F::SCALES; ++s) {
                    Ints sum = F::dot_quads(w, x, sums + (t * num_blocks + b) * 2, s);
                    acc[t] = fma(to_float(sum), scale[s] * x_scale, acc[t]);
                }
                for (int m = 0; m < F::MINIMA; ++m)
                    acc[t] = fma(minimum[m], all(scaled_share<F>(scaled_sums, scales, sums, t * num_blocks + b, m)), acc[t]);
            }
        }
        OCTAVO_UNROLL
        for (int t = 0; t < TOKENS; ++t) put(out, token + t, row + part * LANES, rows, acc[t]);
    }
}

typedef void (*Tile)(const uint8_t*, const Activations&, int, int, int, const Output&);

// By the number of tokens; what lies between is put together from these, which compile in half the time.
template <class F>
struct Tiles {
    static constexpr Tile of[TILE + 1] = {nullptr, tile<F, 1>, tile<F, 2>, tile<F, 3>, tile<F, 4>,
                                          nullptr, nullptr,    nullptr,    tile<F, TILE>};
};

static inline int tile_size(int num_tokens) {
    return num_tokens >= TILE ? TILE : num_tokens < TILE / 2 ? num_tokens : TILE / 2;
}

template <class F>
static void native_product(const Matrix& m, const Activations& a, int first, int last, int first_group, int last_group,
                           const Output& out) {
#if defined(__AMX_INT8__)
    first = unit_product<F>(m, a, first, last, first_group, last_group, out);
#endif
    const int64_t group_bytes = int64_t(m.columns / BLOCK_COLUMNS) * F::BYTES;
    for (int g = first_group; g < last_group; ++g)
        for (int t = first, size; t < last; t += size) {
            size = tile_size(last - t);
            Tiles<F>::of[size](m.data + g * group_bytes, a, t, g * GROUP_ROWS, m.rows, out);
        }
}

// Rows of groups first_group to last_group for tokens first to last.
static void product(const Matrix& m, const Activations& a, int first, int last, int first_group, int last_group,
                    const Output& out) {
    const auto run = [&] {
        switch (m.form) {
            case FORM_BFLOAT16: return plain_product<PlainBFloat16>;
            case FORM_FLOAT16: return plain_product<PlainFloat16>;
            case FORM_2: return native_product<Form2>;
            case FORM_3: return native_product<Form3>;
            case FORM_4: return native_product<Form4>;
            case FORM_5: return native_product<Form5>;
            case FORM_6: return native_product<Form6>;
            case FORM_8: return native_product<Form8>;
            case FORM_BENT: return native_product<FormBent>;
            case FORM_FP4: return native_product<FormFp4>;
            case FORM_TERNARY: return native_product<FormTernary>;
            case FORM_IQ1: return native_product<FormIq1>;
            case FORM_IQ1_TWICE: return native_product<FormIq1Twice>;
            case FORM_IQ2: return native_product<FormIq2>;
            case FORM_IQ2_TWICE: return native_product<FormIq2Twice>;
            case FORM_IQ3_XXS: return native_product<FormIq3Xxs>;
            case FORM_IQ3_S: return native_product<FormIq3S>;
            default: return plain_product<PlainFloat32>;
        }
    }();
    run(m, a, first, last, first_group, last_group, out);
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
