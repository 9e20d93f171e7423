// From the blocks of a GGUF file to packed forms (forms.h), and back to single rows.
#include <cmath>
#include <cstring>

#include "blocks.h"
#include "engine.h"
#include "levels.h"
#include "plain_pack.h"

#define OCTAVO_ISA pack
#include "simd.h"

namespace octavo {
namespace {

using pack::half_of;

// Products of two halves may be larger than any half. False for NaN, too.
bool fits_half(float value) {
    return std::fabs(value) < 65520;
}

int32_t form_of(int32_t type) {
    switch (type) {
        case Q4_0: case Q4_1: case Q4_K: return FORM_4;
        case Q5_0: case Q5_1: case Q5_K: return FORM_5;
        case Q6_K: return FORM_6;
        case Q8_0: return FORM_8;
        case Q2_K: return FORM_2;
        case Q3_K: return FORM_3;
        case IQ4_NL: case IQ4_XS: return FORM_BENT;
        case MXFP4: return FORM_FP4;
        case IQ1_S: return FORM_IQ1;
        case IQ1_M: return FORM_IQ1_TWICE;
        case IQ2_XXS: return FORM_IQ2;
        case IQ2_XS: case IQ2_S: return FORM_IQ2_TWICE;
        case IQ3_XXS: return FORM_IQ3_XXS;
        case IQ3_S: return FORM_IQ3_S;
        case TQ1_0: case TQ2_0: return FORM_TERNARY;
    }
    return plain_form_of(type);
}

// What a block of a form is made of (forms.h).
struct Anatomy {
    int scales, minima;
    int planes;  // of 64 bytes
    int low;     // bits in the first planes: 2, 4 or 8
    int bias;
    const Levels* levels = nullptr;
};

constexpr Anatomy leveled(int scales, int planes, const Levels& levels) {
    return {scales, 0, planes, planes == 4 ? 4 : 2, levels.offset, &levels};
}

constexpr Anatomy anatomy_of(int32_t form) {
    switch (form) {
        case FORM_2: return {2, 2, 2, 2, 0};
        case FORM_3: return {2, 0, 3, 2, 4};
        case FORM_4: return {1, 1, 4, 4, 0};
        case FORM_5: return {1, 1, 5, 4, 0};
        case FORM_6: return {2, 0, 6, 4, 32};
        case FORM_TERNARY: return {1, 0, 2, 2, 1};
        case FORM_BENT: return leveled(1, 4, BENT_LEVELS);
        case FORM_FP4: return leveled(1, 4, FP4_LEVELS);
        case FORM_IQ1: return leveled(1, 3, IQ1_LEVELS);
        case FORM_IQ1_TWICE: return leveled(2, 3, IQ1_LEVELS);
        case FORM_IQ2: return leveled(1, 3, IQ2_LEVELS);
        case FORM_IQ2_TWICE: return leveled(2, 3, IQ2_LEVELS);
        case FORM_IQ3_XXS: return leveled(1, 4, IQ3_XXS_LEVELS);
        case FORM_IQ3_S: return leveled(1, 4, IQ3_S_LEVELS);
        default: return {1, 0, 8, 8, 128};
    }
}

constexpr int PLANE = 4 * GROUP_ROWS, NUMBERS = 2 * GROUP_ROWS;  // bytes of a plane, and of 16 numbers

constexpr int64_t block_bytes(int32_t form) {
    const Anatomy is = anatomy_of(form);
    return (is.scales + is.minima) * NUMBERS + is.planes * PLANE;
}

// Bits of one number: `count` of them at a byte's `shift`.
struct Field {
    int byte, shift, count;
};

// Where the number of a row and column lies, from its lowest bits on: in the first planes, and in those behind.
struct Place {
    Field low, high;
};

inline Place place_of(const Anatomy& is, int r, int column) {
    const int quad = column / 4, at = 4 * r + column % 4;
    const int low_planes = is.low, behind = is.planes - low_planes;  // 8 quads of n bits fill n planes
    const int per_byte = 8 / is.low;                                  // quads that share a plane
    Place place = {};
    if (is.low == 4) place.low = {quad % 4 * PLANE + at, quad < 4 ? 0 : 4, 4};
    else place.low = {quad / per_byte * PLANE + at, is.low * (quad % per_byte), is.low};
    if (behind == 1) place.high = {low_planes * PLANE + at, quad, 1};
    if (behind == 2) place.high = {(low_planes + quad / 4) * PLANE + at, 2 * (quad % 4), 2};
    return place;
}

void put_bits(uint8_t* planes, const Field& field, int bits) {
    planes[field.byte] |= (bits & ((1 << field.count) - 1)) << field.shift;
}

int bits_at(const uint8_t* planes, const Field& field) {
    return planes[field.byte] >> field.shift & ((1 << field.count) - 1);
}

void put_half(uint8_t* at, float value) {
    const uint16_t h = half_of(value);
    std::memcpy(at, &h, 2);
}

// Row `r` of a group takes its place in a packed block.
template <int32_t FORM>
void put_block(uint8_t* to, int r, const Block& block) {
    constexpr Anatomy is = anatomy_of(FORM);
    for (int s = 0; s < is.scales; ++s) put_half(to + s * NUMBERS + 2 * r, block.scale[s]);
    for (int m = 0; m < is.minima; ++m) put_half(to + (is.scales + m) * NUMBERS + 2 * r, block.minimum[m]);
    uint8_t* planes = to + (is.scales + is.minima) * NUMBERS;
    for (int i = 0; i < BLOCK_COLUMNS; ++i) {
        const Place place = place_of(is, r, i);
        put_bits(planes, place.low, block.q[i]);
        put_bits(planes, place.high, block.q[i] >> is.low);
    }
}

// The same as pack_plain_group, for types in blocks.
template <int32_t FORM>
bool pack_blocks(int32_t type, const uint8_t* grid, const uint8_t* rows, int64_t row_bytes, int count, int32_t columns, uint8_t* to) {
    bool fine = true;
    for (int r = 0; r < count; ++r)
        for (int b = 0; b < columns / BLOCK_COLUMNS; ++b) {
            Block block;
            read_block(type, grid, rows + r * row_bytes, b, block);
            put_block<FORM>(to + b * block_bytes(FORM), r, block);
            for (int half = 0; half < 2; ++half) fine &= fits_half(block.scale[half]) && fits_half(block.minimum[half]);
        }
    return fine;
}

typedef bool (*PackBlocks)(int32_t, const uint8_t*, const uint8_t*, int64_t, int, int32_t, uint8_t*);

PackBlocks pack_blocks_of(int32_t form) {
    switch (form) {
        case FORM_2: return pack_blocks<FORM_2>;
        case FORM_3: return pack_blocks<FORM_3>;
        case FORM_4: return pack_blocks<FORM_4>;
        case FORM_5: return pack_blocks<FORM_5>;
        case FORM_6: return pack_blocks<FORM_6>;
        case FORM_TERNARY: return pack_blocks<FORM_TERNARY>;
        case FORM_BENT: return pack_blocks<FORM_BENT>;
        case FORM_FP4: return pack_blocks<FORM_FP4>;
        case FORM_IQ1: return pack_blocks<FORM_IQ1>;
        case FORM_IQ1_TWICE: return pack_blocks<FORM_IQ1_TWICE>;
        case FORM_IQ2: return pack_blocks<FORM_IQ2>;
        case FORM_IQ2_TWICE: return pack_blocks<FORM_IQ2_TWICE>;
        case FORM_IQ3_XXS: return pack_blocks<FORM_IQ3_XXS>;
        case FORM_IQ3_S: return pack_blocks<FORM_IQ3_S>;
        default: return pack_blocks<FORM_8>;
    }
}

float weight_at(const Matrix& m, int64_t row, int i) {
    const Anatomy is = anatomy_of(m.form);
    const int r = row % GROUP_ROWS, column = i % BLOCK_COLUMNS, half = column / 16;
    const uint8_t* group = m.data + row / GROUP_ROWS * block_bytes(m.form) * (m.columns / BLOCK_COLUMNS);
    const uint8_t* block = group + i / BLOCK_COLUMNS * block_bytes(m.form);
    const auto number = [&](int first, int count) { return half_at(block + (first + half % count) * NUMBERS + 2 * r); };
    const uint8_t* planes = block + (is.scales + is.minima) * NUMBERS;
    const Place place = place_of(is, r, column);
    int q = bits_at(planes, place.low) | bits_at(planes, place.high) << is.low;
    if (is.levels) q = is.levels->of[q];
    const float weight = float(q - is.bias) * number(0, is.scales);
    return is.minima ? weight + number(is.scales, is.minima) : weight;
}

}  // namespace
}  // namespace octavo

using namespace octavo;

// The form that a GGUF type is packed in; -1: there is none.
OCTAVO_API int32_t octavo_form(int32_t type) { return form_of(type); }

// Bytes of a packed matrix.
OCTAVO_API int64_t octavo_packed_bytes(int32_t form, int64_t rows, int64_t columns) {
    const int64_t groups = (rows + GROUP_ROWS - 1) / GROUP_ROWS;
    if (is_plain(form)) return groups * plain_group_bytes(form, int32_t(columns));
    return groups * (columns / BLOCK_COLUMNS) * block_bytes(form);
}

// Pack rows that lie row_bytes apart. grid: as in blocks.h. Returns whether all scales (or weights) are finite.
OCTAVO_API int32_t octavo_pack(Engine* engine, int32_t type, const uint8_t* grid, const uint8_t* stored, int64_t row_bytes,
                               int64_t rows, int32_t columns, uint8_t* packed) {
    std::lock_guard<std::mutex> lock(engine->busy);
    const int32_t form = form_of(type);
    const int groups = int((rows + GROUP_ROWS - 1) / GROUP_ROWS);
    std::atomic<bool> is_finite{true};
    engine->team.run(1, [&](Member& member) {
        member.share(groups, 1, [&](int g, int) {
            const int count = rows - int64_t(g) * GROUP_ROWS < GROUP_ROWS ? int(rows - int64_t(g) * GROUP_ROWS) : GROUP_ROWS;
            const int64_t group_bytes = octavo_packed_bytes(form, GROUP_ROWS, columns);
            uint8_t* to = packed + g * group_bytes;
            std::memset(to, 0, group_bytes);
            const uint8_t* from = stored + int64_t(g) * GROUP_ROWS * row_bytes;
            const bool fine = is_plain(form) ? pack_plain_group(form, from, row_bytes, count, columns, to)
                                             : pack_blocks_of(form)(type, grid, from, row_bytes, count, columns, to);
            if (!fine) is_finite = false;
        });
    });
    return is_finite;
}

// out[count, columns]: rows of the matrix.
OCTAVO_API void octavo_rows(const Matrix* m, const int32_t* ids, int32_t count, float* out) {
    for (int t = 0; t < count; ++t) {
        float* row = out + int64_t(t) * m->columns;
        if (is_plain(m->form)) read_plain_row(*m, ids[t], row);
        else
            for (int i = 0; i < m->columns; ++i) row[i] = weight_at(*m, ids[t], i);
    }
}
