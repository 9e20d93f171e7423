// From the blocks of a GGUF file to packed forms (forms.h), and back to single rows.
//
// The layouts of GGUF's blocks are facts of the format; weights/gguf/blocks*.py say them in Python.
#include <cmath>
#include <cstring>

#include "engine.h"
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

// 32 weights of a row: weight i = scale[i / 16] * (q[i] - bias of the form) + minimum.
struct Block {
    uint8_t q[BLOCK_COLUMNS];
    float scale[2];
    float minimum;
};

enum Type : int32_t {  // GGUF's numbers
    Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14
};

void set_scale(Block& out, float scale, float minimum = 0) {
    out.scale[0] = out.scale[1] = scale;
    out.minimum = minimum;
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
        out.scale[half] = half_at(super + 208) * (int8_t)super[192 + 2 * sub + half];
    out.minimum = 0;
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
    }
}

int32_t form_of(int32_t type) {
    switch (type) {
        case Q4_0: case Q4_1: case Q4_K: return FORM_4;
        case Q5_0: case Q5_1: case Q5_K: return FORM_5;
        case Q6_K: return FORM_6;
        case Q8_0: return FORM_8;
    }
    return plain_form_of(type);
}

int64_t block_bytes(int32_t form) {
    switch (form) {
        case FORM_4: return 2 * 32 + 4 * 64;
        case FORM_5: return 2 * 32 + 5 * 64;
        case FORM_6: return 2 * 32 + 6 * 64;
        default: return 32 + 8 * 64;
    }
}

void put_half(uint8_t* at, float value) {
    const uint16_t h = half_of(value);
    std::memcpy(at, &h, 2);
}

// Row `r` of a group takes its place in a packed block.
void put_block(int32_t form, uint8_t* to, int r, const Block& block) {
    const bool has_two = form != FORM_8;
    put_half(to + 2 * r, block.scale[0]);
    if (has_two) put_half(to + 32 + 2 * r, form == FORM_6 ? block.scale[1] : block.minimum);
    uint8_t* quads = to + (has_two ? 64 : 32);
    for (int i = 0; i < 32; ++i) {
        const int quad = i / 4, at = 4 * r + i % 4;
        if (form == FORM_8) {
            quads[quad * 64 + at] = block.q[i];
            continue;
        }
        quads[quad % 4 * 64 + at] |= (block.q[i] & 15) << (quad < 4 ? 0 : 4);
        if (form == FORM_5) quads[256 + at] |= (block.q[i] >> 4) << quad;
        if (form == FORM_6) quads[256 + quad / 4 * 64 + at] |= (block.q[i] >> 4) << (2 * (quad % 4));
    }
}

// The same as pack_plain_group, for types in blocks.
bool pack_blocks(int32_t type, const uint8_t* rows, int64_t row_bytes, int count, int32_t columns, uint8_t* to) {
    const int32_t form = form_of(type);
    bool fine = true;
    for (int r = 0; r < count; ++r)
        for (int b = 0; b < columns / BLOCK_COLUMNS; ++b) {
            Block block;
            read_block(type, rows + r * row_bytes, b, block);
            put_block(form, to + b * block_bytes(form), r, block);
            fine &= fits_half(block.scale[0]) && fits_half(block.scale[1]) && fits_half(block.minimum);
        }
    return fine;
}

float weight_at(const Matrix& m, int64_t row, int i) {
    const int r = row % GROUP_ROWS;
    const uint8_t* group = m.data + row / GROUP_ROWS * block_bytes(m.form) * (m.columns / BLOCK_COLUMNS);
    const uint8_t* block = group + i / BLOCK_COLUMNS * block_bytes(m.form);
    const int column = i % BLOCK_COLUMNS, quad = column / 4, at = 4 * r + column % 4;
    const float scale = half_at(block + 2 * r);
    if (m.form == FORM_8) return float(int(block[32 + quad * 64 + at]) - 128) * scale;
    const uint8_t* quads = block + 64;
    int q = quads[quad % 4 * 64 + at] >> (quad < 4 ? 0 : 4) & 15;
    if (m.form == FORM_6) {
        q |= (quads[256 + quad / 4 * 64 + at] >> (2 * (quad % 4)) & 3) << 4;
        return float(q - 32) * (column < 16 ? scale : half_at(block + 32 + 2 * r));
    }
    if (m.form == FORM_5) q |= (quads[256 + at] >> quad & 1) << 4;
    return float(q) * scale + half_at(block + 32 + 2 * r);
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
                                             : pack_blocks(type, from, row_bytes, count, columns, to);
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
