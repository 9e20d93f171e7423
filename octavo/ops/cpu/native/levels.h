// Numbers that do not lie at equal distances, by the code that stands for them.
//
// The levels are facts of GGUF's IQ types and of MXFP4; weights/gguf/bits.py and blocks_grid.py say them in
// Python. Of IQ1 to IQ3 the highest bit of a code is the sign: codes are a digit of a grid's point, and that.
#pragma once
#include <cstdint>

namespace octavo {

struct Levels {
    int offset;      // makes them unsigned
    uint8_t of[16];  // level of a code, plus offset

    constexpr int most() const {
        int found = 0;
        for (uint8_t level : of) found = level > found ? level : found;
        return found;
    }
};

template <int COUNT>
constexpr Levels levels(int offset, const int (&of)[COUNT]) {
    Levels made = {offset, {}};
    for (int code = 0; code < COUNT; ++code) made.of[code] = uint8_t(of[code] + offset);
    return made;
}

inline constexpr Levels BENT_LEVELS =
    levels(128, {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113});

// Twice the levels of MXFP4.
inline constexpr Levels FP4_LEVELS = levels(12, {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12});

// Eight times the levels -1, 0 and 1 of IQ1 with an eighth more, then less: the "sign" says which.
inline constexpr Levels IQ1_LEVELS = levels(9, {-7, 1, 9, 0, -9, -1, 7, 0});
inline constexpr Levels IQ2_LEVELS = levels(43, {8, 25, 43, 0, -8, -25, -43, 0});
inline constexpr Levels IQ3_XXS_LEVELS =
    levels(62, {4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62});
inline constexpr Levels IQ3_S_LEVELS =
    levels(15, {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15});

}  // namespace octavo
