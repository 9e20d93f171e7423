// From the blocks of a GGUF file to packed forms (forms.h), and back to single rows.
//
// The layouts of GGUF's blocks are facts of the format; weights/gguf/blocks*.py say them in Python.
#include <cmath>
#include <cstring>

#include "engine.h"
#include "levels.h"
#include "plain_pack.h"

#define OCTAVO_ISA pack
#include "simd.h"

namespace octavo {
namespace {

using pack::half_of;
using pack::scalar_half;

// Products of two halves may be larger than any half. False for NaN, too.
bool fits_half(float value) {
    return std::fabs(value) < 65520;
}

float half_at(const uint8_t* at) {
    uint16_t h;
    std::memcpy(&h, at, 2);
    return scalar_half(h);
}

// 32 weights of a row: weight i = scale[i / 16] * (q[i] - bias of the form) + minimum[i / 16]. Of forms with
// levels q is the number of one.
struct Block {
    uint8_t q[BLOCK_COLUMNS];
    float scale[2];
    float minimum[2];
};

enum Type : int32_t {  // GGUF's numbers
    Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14,
    IQ4_NL = 20, IQ4_XS = 23, MXFP4 = 39
};

void set_scale(Block& out, float scale, float minimum = 0) {
    out.scale[0] = out.scale[1] = scale;
    out.minimum[0] = out.minimum[1] = minimum;
}

void set_half(Block& out, int half, float scale, float minimum = 0) {
    out.scale[half] = scale;
    out.minimum[half] = minimum;
}

void nibbles(const uint8_t* at, Block& out) {
    for (int i = 0; i < 16; ++i) {
        out.q[i] = at[i] & 15;
        out.q[i + 16] = at[i] >> 4;
    }
}

void fifth_bits(const uint8_t* at, Block& out) {
    for (int i = 0; i < 32; ++i) out.q[i] |= (at[i / 8] >> (i % 8) & 1) << 4;
}

// Scale and minimum of one of eight groups: six bits each, in twelve bytes.
void k_scale(const uint8_t* super, int sub, Block& out) {
    const uint8_t* s = super + 4;
    int scale, minimum;
    if (sub < 4) {
        scale = s[sub] & 63;
        minimum = s[sub + 4] & 63;
    } else {
        scale = (s[sub + 4] & 15) | (s[sub - 4] >> 2 & 48);
        minimum = s[sub + 4] >> 4 | (s[sub] >> 2 & 48);
    }
    set_scale(out, half_at(super) * scale, -half_at(super + 2) * minimum);
}

void k_nibbles(const uint8_t* at, int sub, Block& out) {
    at += sub / 2 * 32;
    for (int i = 0; i < 32; ++i) out.q[i] = sub % 2 ? at[i] >> 4 : at[i] & 15;
}

void six_bits(const uint8_t* super, int sub, Block& out) {
    const uint8_t *low = super + sub / 4 * 64 + sub % 2 * 32, *high = super + 128 + sub / 4 * 32;
    for (int i = 0; i < 32; ++i) {
        const int nibble = sub % 4 < 2 ? low[i] & 15 : low[i] >> 4;
        out.q[i] = nibble | (high[i] >> (2 * (sub % 4)) & 3) << 4;
    }
    for (int half = 0; half < 2; ++half)
        set_half(out, half, half_at(super + 208) * (int8_t)super[192 + 2 * sub + half]);
}

void k_two_bits(const uint8_t* at, int sub, Block& out) {
    for (int i = 0; i < 32; ++i) out.q[i] = at[sub / 4 * 32 + i] >> (2 * (sub % 4)) & 3;
}

void two_bits(const uint8_t* super, int sub, Block& out) {
    k_two_bits(super + 16, sub, out);
    for (int half = 0; half < 2; ++half) {
        const uint8_t both = super[2 * sub + half];
        set_half(out, half, half_at(super + 80) * (both & 15), -half_at(super + 82) * (both >> 4));
    }
}

void three_bits(const uint8_t* super, int sub, Block& out) {
    k_two_bits(super + 32, sub, out);
    for (int i = 0; i < 32; ++i) out.q[i] |= (super[i] >> sub & 1) << 2;
    for (int half = 0; half < 2; ++half) {
        const int k = 2 * sub + half;
        const int low = k < 8 ? super[96 + k] & 15 : super[88 + k] >> 4;
        const int high = super[104 + k % 4] >> (2 * (k / 4)) & 3;
        set_half(out, half, half_at(super + 108) * ((low | high << 4) - 32));
    }
}

void bent(const uint8_t* super, int sub, Block& out) {
    nibbles(super + 8 + sub * 16, out);
    const int low = super[4 + sub / 2] >> (4 * (sub % 2)) & 15, high = super[2 + sub / 4] >> (2 * (sub % 4)) & 3;
    set_scale(out, half_at(super) * ((low | high << 4) - 32));
}

// Block b of a row that is stored as `type`.
void read_block(int32_t type, const uint8_t* row, int b, Block& out) {
    const uint8_t* at;
    switch (type) {
        case Q4_0: at = row + b * 18; nibbles(at + 2, out); set_scale(out, half_at(at), -8 * half_at(at)); break;
        case Q4_1: at = row + b * 20; nibbles(at + 4, out); set_scale(out, half_at(at), half_at(at + 2)); break;
        case Q5_0:
            at = row + b * 22;
            nibbles(at + 6, out);
            fifth_bits(at + 2, out);
            set_scale(out, half_at(at), -16 * half_at(at));
            break;
        case Q5_1:
            at = row + b * 24;
            nibbles(at + 8, out);
            fifth_bits(at + 4, out);
            set_scale(out, half_at(at), half_at(at + 2));
            break;
        case Q8_0:
            at = row + b * 34;
            for (int i = 0; i < 32; ++i) out.q[i] = at[2 + i] ^ 128;
            set_scale(out, half_at(at));
            break;
        case Q4_K: at = row + b / 8 * 144; k_nibbles(at + 16, b % 8, out); k_scale(at, b % 8, out); break;
        case Q5_K:
            at = row + b / 8 * 176;
            k_nibbles(at + 48, b % 8, out);
            for (int i = 0; i < 32; ++i) out.q[i] |= (at[16 + i] >> (b % 8) & 1) << 4;
            k_scale(at, b % 8, out);
            break;
        case Q6_K: six_bits(row + b / 8 * 210, b % 8, out); break;
        case Q2_K: two_bits(row + b / 8 * 84, b % 8, out); break;
        case Q3_K: three_bits(row + b / 8 * 110, b % 8, out); break;
        case IQ4_NL: at = row + b * 18; nibbles(at + 2, out); set_scale(out, half_at(at)); break;
        case IQ4_XS: bent(row + b / 8 * 136, b % 8, out); break;
        case MXFP4: at = row + b * 17; nibbles(at + 1, out); set_scale(out, std::ldexp(1.0f, at[0] - 128)); break;
    }
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
    }
    return plain_form_of(type);
}

// What a block of a form is made of (forms.h).
struct Anatomy {
    int scales, minima;
    int planes;  // of 64 bytes
    int low;     // bits in the first planes: 2, 4 or 8
    int bias;
};

constexpr Anatomy anatomy_of(int32_t form) {
    switch (form) {
        case FORM_2: return {2, 2, 2, 2, 0};
        case FORM_3: return {2, 0, 3, 2, 4};
        case FORM_4: return {1, 1, 4, 4, 0};
        case FORM_5: return {1, 1, 5, 4, 0};
        case FORM_6: return {2, 0, 6, 4, 32};
        case FORM_BENT: return {1, 0, 4, 4, BENT_OFFSET};
        case FORM_FP4: return {1, 0, 4, 4, FP4_OFFSET};
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
bool pack_blocks(int32_t type, const uint8_t* rows, int64_t row_bytes, int count, int32_t columns, uint8_t* to) {
    bool fine = true;
    for (int r = 0; r < count; ++r)
        for (int b = 0; b < columns / BLOCK_COLUMNS; ++b) {
            Block block;
            read_block(type, rows + r * row_bytes, b, block);
            put_block<FORM>(to + b * block_bytes(FORM), r, block);
            for (int half = 0; half < 2; ++half) fine &= fits_half(block.scale[half]) && fits_half(block.minimum[half]);
        }
    return fine;
}

typedef bool (*PackBlocks)(int32_t, const uint8_t*, int64_t, int, int32_t, uint8_t*);

PackBlocks pack_blocks_of(int32_t form) {
    switch (form) {
        case FORM_2: return pack_blocks<FORM_2>;
        case FORM_3: return pack_blocks<FORM_3>;
        case FORM_4: return pack_blocks<FORM_4>;
        case FORM_5: return pack_blocks<FORM_5>;
        case FORM_6: return pack_blocks<FORM_6>;
        case FORM_BENT: return pack_blocks<FORM_BENT>;
        case FORM_FP4: return pack_blocks<FORM_FP4>;
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
    if (m.form == FORM_BENT) q = BENT_LEVELS[q];
    if (m.form == FORM_FP4) q = FP4_LEVELS[q];
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

// Pack rows that lie row_bytes apart. Returns whether all scales (or weights) are finite.
OCTAVO_API int32_t octavo_pack(Engine* engine, int32_t type, const uint8_t* stored, int64_t row_bytes, int64_t rows,
                               int32_t columns, uint8_t* packed) {
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
                                             : pack_blocks_of(form)(type, from, row_bytes, count, columns, to);
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
