// GGUF's types whose blocks have scales and, for every weight, some bits.
#include "blocks.h"

#include <cmath>
#include <cstring>

#define OCTAVO_ISA blocks
#include "simd.h"

namespace octavo {
namespace {

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

// Five ternary digits to a byte, the last four bytes four: 243 numbers spread over 256, so that digits are
// carries of times 3.
void ternary_digits(const uint8_t* super, int sub, Block& out) {
    for (int i = 0; i < 32; ++i) {
        const int k = 32 * sub + i;
        int byte = k % 32, digit = sub;
        if (k >= 160) byte = 32 + k % 16, digit = (k - 160) / 16;
        if (k >= 240) byte = 48 + k % 4, digit = (k - 240) / 4;
        uint8_t rest = super[byte];
        for (; digit; --digit) rest *= 3;
        out.q[i] = rest * 3 >> 8;
    }
    set_scale(out, half_at(super + 52));
}

}  // namespace

float half_at(const uint8_t* at) {
    uint16_t h;
    std::memcpy(&h, at, 2);
    return blocks::scalar_half(h);
}

void read_block(int32_t type, const uint8_t* grid, const uint8_t* row, int b, Block& out) {
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
        case TQ1_0: ternary_digits(row + b / 8 * 54, b % 8, out); break;
        case TQ2_0:
            at = row + b / 8 * 66;
            k_two_bits(at, b % 8, out);
            set_scale(out, half_at(at + 64));
            break;
        case MXFP4: at = row + b * 17; nibbles(at + 1, out); set_scale(out, std::ldexp(1.0f, at[0] - 128)); break;
        default: read_grid_block(type, grid, row, b, out);
    }
}

}  // namespace octavo
