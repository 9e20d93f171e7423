#include "plain_pack.h"

#include <cstring>

#define OCTAVO_ISA plain_pack
#include "simd.h"

namespace octavo {
namespace {

constexpr int STRIP = 64;  // columns of 16 rows that are written while their lines are cached

// Where in its group a number of 16 bits lies. bfloat16: pairs of columns, float16: column by column.
int64_t place(int32_t form, int r, int column) {
    return form == FORM_BFLOAT16 ? (column / 2 * GROUP_ROWS + r) * int64_t(2) + column % 2
                                 : column * int64_t(GROUP_ROWS) + r;
}

bool is_finite(uint32_t bits) { return (bits & 0x7f800000) != 0x7f800000; }
bool is_finite(int32_t form, uint16_t bits) {
    const uint16_t exponent = form == FORM_BFLOAT16 ? 0x7f80 : 0x7c00;
    return (bits & exponent) != exponent;
}

}  // namespace

int32_t plain_form_of(int32_t type) {
    switch (type) {
        case TYPE_FLOAT32: return FORM_FLOAT;
        case TYPE_FLOAT16: return FORM_FLOAT16;
        case TYPE_BFLOAT16: return FORM_BFLOAT16;
    }
    return -1;
}

int64_t plain_group_bytes(int32_t form, int32_t columns) {
    const int64_t numbers = int64_t(columns) * GROUP_ROWS;
    if (form == FORM_FLOAT) return numbers * 4;
    return form == FORM_FLOAT16 ? numbers * 2 : (numbers + columns % 2 * GROUP_ROWS) * 2;
}

bool pack_plain_group(int32_t form, const uint8_t* rows, int64_t row_bytes, int count, int32_t columns, uint8_t* to) {
    bool fine = true;
    for (int first = 0; first < columns; first += STRIP) {
        const int last = first + STRIP < columns ? first + STRIP : columns;
        for (int r = 0; r < count; ++r) {
            const uint8_t* row = rows + r * row_bytes;
            for (int i = first; i < last; ++i) {
                if (form == FORM_FLOAT) {
                    uint32_t bits;
                    std::memcpy(&bits, row + int64_t(i) * 4, 4);
                    fine &= is_finite(bits);
                    std::memcpy(to + (int64_t(i) * GROUP_ROWS + r) * 4, &bits, 4);
                } else {
                    uint16_t bits;
                    std::memcpy(&bits, row + int64_t(i) * 2, 2);
                    fine &= is_finite(form, bits);
                    std::memcpy(to + place(form, r, i) * 2, &bits, 2);
                }
            }
        }
    }
    return fine;
}

void read_plain_row(const Matrix& m, int64_t row, float* out) {
    const int r = row % GROUP_ROWS;
    const uint8_t* group = m.data + row / GROUP_ROWS * plain_group_bytes(m.form, m.columns);
    for (int i = 0; i < m.columns; ++i) {
        if (m.form == FORM_FLOAT) {
            std::memcpy(out + i, group + (int64_t(i) * GROUP_ROWS + r) * 4, 4);
            continue;
        }
        uint16_t bits;
        std::memcpy(&bits, group + place(m.form, r, i) * 2, 2);
        const uint32_t wide = uint32_t(bits) << 16;
        if (m.form == FORM_BFLOAT16) std::memcpy(out + i, &wide, 4);
        else out[i] = plain_pack::scalar_half(bits);
    }
}

}  // namespace octavo
