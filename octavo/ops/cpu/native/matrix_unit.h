// Products of packed matrices on the matrix unit of a processor (Intel AMX), 16 tokens at a time.
//
// A block's quads lie in memory as the unit wants them. It multiplies bytes only: scales and sums are what
// they are in product.h, in the same order, so that a result has the same bits as there.
//
// Per block of 16 tokens x 16 rows x 32 columns the unit takes 16 cycles where VNNI takes 64 or more; scales
// take about 30 in both.
#pragma once
#if defined(__AMX_INT8__)
#include "forms.h"
#include "kernels.h"
#include "put.h"

namespace octavo {
namespace OCTAVO_ISA {

constexpr int UNIT_TOKENS = 16;

// The unit belongs to a thread while one of these lives.
class MatrixUnit {
public:
    MatrixUnit() {
        // Tile 0 has sums. 1 and 2 have a block's inputs and weights, 3 and 4 half a block's.
        Shape shape;
        const uint16_t bytes[] = {4 * GROUP_ROWS, BLOCK_COLUMNS, QUAD, BLOCK_COLUMNS / 2, QUAD};
        const uint8_t rows[] = {UNIT_TOKENS, UNIT_TOKENS, BLOCK_COLUMNS / 4, UNIT_TOKENS, BLOCK_COLUMNS / 8};
        for (int i = 0; i < 5; ++i) shape.bytes[i] = bytes[i], shape.rows[i] = rows[i];
        _tile_loadconfig(&shape);
    }
    ~MatrixUnit() { _tile_release(); }
    MatrixUnit(const MatrixUnit&) = delete;

    // sums[16]: of each token, for 16 rows, all 32 columns, or 16 if a block has two scales.
    template <int SCALES>
    static void multiply(const Bytes* w, const int8_t* x, int64_t stride, Ints* sums) {
        _tile_zero(0);
        if constexpr (SCALES == 1) {
            _tile_loadd(1, x, stride);
            _tile_loadd(2, w, QUAD);
            _tile_dpbsud(0, 1, 2);
        } else {
            _tile_loadd(3, x, stride);
            _tile_loadd(4, w, QUAD);
            _tile_dpbsud(0, 3, 4);
        }
        _tile_stored(0, sums, QUAD);
    }

private:
    struct alignas(64) Shape {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    };
};

template <class F>
static void unit_tile(const uint8_t* group, const Activations& a, int token, int row, int rows, const Output& out) {
    const int num_blocks = a.columns / BLOCK_COLUMNS;
    const int8_t* q = a.q + int64_t(token) * a.columns;
    const float* scales = a.scale + int64_t(token) * num_blocks;
    const float* scaled_sums = a.scaled_sum + int64_t(token) * num_blocks;
    const int32_t* sums = a.sum + int64_t(token) * num_blocks * 2;
    Floats acc[UNIT_TOKENS] = {};
    const uint8_t* block = group;
    for (int b = 0; b < num_blocks; ++b, block += F::BYTES) {
        alignas(64) Bytes w[8];
        alignas(64) Ints products[UNIT_TOKENS];
        F::unpack(block, 0, w);
        const uint16_t* halves = (const uint16_t*)block;
        for (int s = 0; s < F::SCALES; ++s) {
            const Floats scale = load_half(halves + s * GROUP_ROWS);
            MatrixUnit::multiply<F::SCALES>(w + 4 * s, q + b * BLOCK_COLUMNS + 16 * s, a.columns, products);
            OCTAVO_UNROLL_16
            for (int t = 0; t < UNIT_TOKENS; ++t) {
                const Ints sum = products[t] + all(F::offset(sums + (t * num_blocks + b) * 2, s));
                acc[t] = fma(to_float(sum), scale * all(scales[t * num_blocks + b]), acc[t]);
            }
        }
        for (int m = 0; m < F::MINIMA; ++m) {
            const Floats minimum = load_half(halves + (F::SCALES + m) * GROUP_ROWS);
            OCTAVO_UNROLL_16
            for (int t = 0; t < UNIT_TOKENS; ++t)
                acc[t] = fma(minimum, all(scaled_share<F>(scaled_sums, scales, sums, t * num_blocks + b, m)), acc[t]);
        }
    }
    OCTAVO_UNROLL_16
    for (int t = 0; t < UNIT_TOKENS; ++t) put(out, token + t, row, rows, acc[t]);
}

// As native_product, for tokens from `first` on while there are 16; returns the first that is left.
template <class F>
static int unit_product(const Matrix& m, const Activations& a, int first, int last, int first_group, int last_group,
                        const Output& out) {
    if (last - first < UNIT_TOKENS) return first;
    const MatrixUnit unit;
    const int64_t group_bytes = int64_t(m.columns / BLOCK_COLUMNS) * F::BYTES;
    const int end = last - (last - first) % UNIT_TOKENS;
    for (int g = first_group; g < last_group; ++g)
        for (int t = first; t < end; t += UNIT_TOKENS)
            unit_tile<F>(m.data + g * group_bytes, a, t, g * GROUP_ROWS, m.rows, out);
    return end;
}

}  // namespace OCTAVO_ISA
}  // namespace octavo
#endif
