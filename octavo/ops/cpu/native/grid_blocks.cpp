// GGUF's IQ1, IQ2 and IQ3 types: points of a grid, signs, and scales for 16 or 32 weights.
//
// A weight becomes a code: the digit of its point, and above it a bit for its sign (levels.h). `super` is a
// block of 256 weights, `sub` says which 32 of them.
#include <cstring>

#include "blocks.h"

namespace octavo {
namespace {

template <class T>
T word_at(const uint8_t* at) {
    T word;
    std::memcpy(&word, at, sizeof word);
    return word;
}

// `width` digits become codes of so many bits and a sign each.
void put_point(const uint8_t* digits, int width, int bits, uint32_t signs, uint8_t* q) {
    for (int i = 0; i < width; ++i) q[i] = digits[i] | (signs >> i & 1) << bits;
}

// The eighth sign makes the number of negative ones even.
uint32_t eight_signs(uint32_t seven) {
    uint32_t parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return seven | (parity & 1) << 7;
}

float half_step(int scale) { return 0.5f + float(scale); }

void read_iq2_xxs(const uint8_t* grid, const uint8_t* super, int sub, Block& out) {
    const uint8_t* at = super + 2 + 8 * sub;
    const uint32_t word = word_at<uint32_t>(at + 4);
    for (int i = 0; i < 4; ++i) put_point(grid + 8 * at[i], 8, 2, eight_signs(word >> (7 * i) & 127), out.q + 8 * i);
    set_scale(out, half_at(super) * half_step(word >> 28) * 0.25f);
}

void set_iq2_scales(const uint8_t* super, uint8_t both, Block& out) {
    set_half(out, 0, half_at(super) * half_step(both & 15) * 0.25f);
    set_half(out, 1, half_at(super) * half_step(both >> 4) * 0.25f);
}

void read_iq2_xs(const uint8_t* grid, const uint8_t* super, int sub, Block& out) {
    for (int i = 0; i < 4; ++i) {
        const uint16_t word = word_at<uint16_t>(super + 2 + 8 * sub + 2 * i);
        put_point(grid + 8 * (word & 511), 8, 2, eight_signs(word >> 9), out.q + 8 * i);
    }
    set_iq2_scales(super, super[66 + sub], out);
}

void read_iq2_s(const uint8_t* grid, const uint8_t* super, int sub, Block& out) {
    for (int i = 0; i < 4; ++i) {
        const int k = 4 * sub + i, point = super[2 + k] | (super[66 + sub] >> (2 * i) & 3) << 8;
        put_point(grid + 8 * point, 8, 2, super[34 + k], out.q + 8 * i);
    }
    set_iq2_scales(super, super[74 + sub], out);
}

void read_iq3_xxs(const uint8_t* grid, const uint8_t* super, int sub, Block& out) {
    const uint32_t word = word_at<uint32_t>(super + 66 + 4 * sub);
    for (int i = 0; i < 8; ++i) {
        const uint32_t signs = eight_signs(word >> (7 * (i / 2)) & 127) >> (4 * (i % 2));
        put_point(grid + 4 * super[2 + 8 * sub + i], 4, 3, signs, out.q + 4 * i);
    }
    set_scale(out, half_at(super) * half_step(word >> 28) * 0.5f);
}

void read_iq3_s(const uint8_t* grid, const uint8_t* super, int sub, Block& out) {
    for (int i = 0; i < 8; ++i) {
        const int point = super[2 + 8 * sub + i] | (super[66 + sub] >> i & 1) << 8;
        put_point(grid + 4 * point, 4, 3, super[74 + 4 * sub + i / 2] >> (4 * (i % 2)), out.q + 4 * i);
    }
    set_scale(out, half_at(super) * float(1 + 2 * (super[106 + sub / 2] >> (4 * (sub % 2)) & 15)));
}

// Levels of IQ1 are an eighth of what levels.h has.
float iq1_scale(float scale, int odd) { return scale * float(2 * odd + 1) * 0.125f; }

void read_iq1_s(const uint8_t* grid, const uint8_t* super, int sub, Block& out) {
    const uint16_t word = word_at<uint16_t>(super + 34 + 2 * sub);
    for (int i = 0; i < 4; ++i) {
        const int point = super[2 + 4 * sub + i] | (word >> (3 * i) & 7) << 8;
        put_point(grid + 8 * point, 8, 2, word >> 15 ? 255 : 0, out.q + 8 * i);
    }
    set_scale(out, iq1_scale(half_at(super), word >> 12 & 7));
}

void read_iq1_m(const uint8_t* grid, const uint8_t* super, int sub, Block& out) {
    for (int i = 0; i < 4; ++i) {
        const int k = 4 * sub + i, nibble = super[32 + k / 2] >> (4 * (k % 2)) & 15;
        const int point = super[k] | (nibble & 7) << 8;
        put_point(grid + 8 * point, 8, 2, nibble & 8 ? 255 : 0, out.q + 8 * i);
    }
    // The highest four bits of four words are the block's scale, its lowest first.
    uint8_t whole[2] = {};
    for (int i = 0; i < 4; ++i) whole[i / 2] |= super[49 + 2 * i] >> 4 << (4 * (i % 2));
    for (int half = 0; half < 2; ++half) {
        const int k = 2 * sub + half;
        const uint16_t word = word_at<uint16_t>(super + 48 + k / 4 * 2);
        set_half(out, half, iq1_scale(half_at(whole), word >> (3 * (k % 4)) & 7));
    }
}

}  // namespace

void read_grid_block(int32_t type, const uint8_t* grid, const uint8_t* row, int b, Block& out) {
    const int super = b / 8, sub = b % 8;
    switch (type) {
        case IQ1_S: read_iq1_s(grid, row + super * 50, sub, out); break;
        case IQ1_M: read_iq1_m(grid, row + super * 56, sub, out); break;
        case IQ2_XXS: read_iq2_xxs(grid, row + super * 66, sub, out); break;
        case IQ2_XS: read_iq2_xs(grid, row + super * 74, sub, out); break;
        case IQ2_S: read_iq2_s(grid, row + super * 82, sub, out); break;
        case IQ3_XXS: read_iq3_xxs(grid, row + super * 98, sub, out); break;
        case IQ3_S: read_iq3_s(grid, row + super * 110, sub, out); break;
    }
}

}  // namespace octavo
