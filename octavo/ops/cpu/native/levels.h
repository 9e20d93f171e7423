// Numbers of four bits that do not lie at equal distances, each plus an offset that makes it unsigned.
//
// The levels are facts of GGUF's IQ4 types and of MXFP4; weights/gguf/bits.py says them in Python.
#pragma once
#include <cstdint>

namespace octavo {

constexpr int BENT_OFFSET = 128;
constexpr uint8_t BENT_LEVELS[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

// Twice the levels of MXFP4.
constexpr int FP4_OFFSET = 12;
constexpr uint8_t FP4_LEVELS[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

}  // namespace octavo
