// The blocks of a GGUF file, read 32 weights at a time.
//
// Their layouts are facts of the format; weights/gguf/blocks*.py say them in Python.
#pragma once
#include "interface.h"

namespace octavo {

enum Type : int32_t {  // GGUF's numbers
    Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14,
    IQ2_XXS = 16, IQ2_XS = 17, IQ3_XXS = 18, IQ1_S = 19, IQ4_NL = 20, IQ3_S = 21, IQ2_S = 22, IQ4_XS = 23, IQ1_M = 29,
    TQ1_0 = 34, TQ2_0 = 35, MXFP4 = 39
};

// 32 weights of a row: weight i = scale[i / 16] * (q[i] - bias of the form) + minimum[i / 16]. Of forms with
// levels q is the number of one.
struct Block {
    uint8_t q[BLOCK_COLUMNS];
    float scale[2];
    float minimum[2];
};

inline void set_half(Block& out, int half, float scale, float minimum = 0) {
    out.scale[half] = scale;
    out.minimum[half] = minimum;
}

inline void set_scale(Block& out, float scale, float minimum = 0) {
    set_half(out, 0, scale, minimum);
    set_half(out, 1, scale, minimum);
}

// The number in half precision that lies there.
float half_at(const uint8_t* at);

// Block b of a row that is stored as `type`. grid: the type's points (ops/grids.py), if it has any.
void read_block(int32_t type, const uint8_t* grid, const uint8_t* row, int b, Block& out);

// The same for types with a grid.
void read_grid_block(int32_t type, const uint8_t* grid, const uint8_t* row, int b, Block& out);

}  // namespace octavo
