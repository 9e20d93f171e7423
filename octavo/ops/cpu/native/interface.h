// The library's C interface: plain structs and functions, called from Python with raw pointers.
//
// Shape letters as in the Python code: T tokens, I input width, O output width, E stream width, H query
// heads, K KV heads, D head width, S sequences. All floats are float32, all arrays row-major.
#pragma once
#include <cstdint>

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

namespace octavo {

constexpr int GROUP_ROWS = 16;     // output rows that are packed together
constexpr int BLOCK_COLUMNS = 32;  // inputs that share a scale of the activations

// How a matrix is packed (forms.h). The numbers are known to Python.
enum Form : int32_t {
    FORM_FLOAT = 0, FORM_4 = 1, FORM_5 = 2, FORM_6 = 3, FORM_8 = 4, FORM_BFLOAT16 = 5, FORM_FLOAT16 = 6,
    FORM_2 = 7, FORM_3 = 8, FORM_BENT = 9, FORM_FP4 = 10, FORM_TERNARY = 11, FORM_IQ1 = 12, FORM_IQ1_TWICE = 13,
    FORM_IQ2 = 14, FORM_IQ2_TWICE = 15, FORM_IQ3_XXS = 16, FORM_IQ3_S = 17
};

struct Matrix {
    const uint8_t* data;
    int32_t form;
    int32_t rows;
    int32_t columns;
};

enum Gate : int32_t { GATE_SILU = 0, GATE_GELU_TANH = 1 };

// Inputs of products: as they are, and rounded to 8 bits with a scale for every 32.
struct Activations {
    const float* x;         // [T, I]
    int8_t* q;              // [T, I]
    float* scale;           // [T, I / 32]
    float* scaled_sum;      // [T, I / 32]: scale times the sum of a block's q
    int32_t* sum;           // [T, I / 16]: sums of q
    int32_t columns;
};

// In which numbers keys and values are kept (kv.h). The numbers of these are known to Python.
enum KvKind : int32_t { KV_FLOAT32 = 0, KV_BFLOAT16 = 1, KV_FLOAT16 = 2, KV_INT8 = 3 };

// What a query sees of the paged KV cache of one layer. In a block lie the heads one after the other, each with
// D * block_size numbers and, where the kind has them, block_size float32 scales.
struct Pages {
    uint8_t* keys;          // number (token, d) of a head at d * block_size + token
    uint8_t* values;        // number (token, d) of a head at token * D + d
    int64_t page;           // bytes from a block to the next
    int32_t block_size;
    int32_t kind;
};

struct Heads {
    int32_t num_heads;
    int32_t num_kv_heads;
    int32_t head_dim;
    int32_t rotated;        // leading values of each head that turn with the position
    int32_t window;         // keys a query sees, its own included; 0: all
    float scale;
    float soft_cap;         // 0: none
    float norm_epsilon;
    const float* rotation;  // [positions, rotated]: cosines, then sines; null: nothing turns
    const float* q_norm;    // [D] or null
    const float* k_norm;
    const float* sinks;     // [H]: a score beside those of the keys; null: none
    const float* slopes;    // [H]: what a score loses for each position that its key is behind; null: nothing
    int32_t rounds_biases;  // 1: positions, and slopes times them, become bfloat16 and are scaled like scores
};

// The tokens of a step. Sequence s has tokens starts[s] to starts[s + 1] and the block table of row rows[s].
struct Tokens {
    const int32_t* positions;  // [T]
    const int32_t* starts;     // [S + 1]
    const int32_t* rows;       // [S]
    int32_t num_tokens;
    int32_t num_seqs;
};

// Where the layers of one KV group find a step's pages.
struct PageTables {
    const int32_t* slots;      // [T]: where each token's key and value go; negative: nowhere
    const int32_t* tables;     // [rows, stride]: block ids
    int64_t stride;
};

struct Norm {
    const float* weight;       // null: none
    float epsilon;
};

// A linear layer: matrices that share their input, side by side.
struct Linear {
    Matrix parts[3];
    const float* bias;         // null: none
    int32_t num_parts;
};

// Sequences that walk through a step's tokens (as in Tokens), with what their rows remember.
struct Recurrence {
    const int32_t* rows;       // [S]
    const int32_t* starts;     // [S + 1]
    const int32_t* lengths;    // [S]: tokens of the whole sequence, the step's included
    int32_t num_seqs;
    float* states;             // [rows, heads, width, size]
    int32_t heads, width, size;
    int32_t groups;            // of neighbouring heads that share what is added to states and asked of them
};

// x + after(attention(before(x))), then the same with a gated MLP.
struct Layer {
    Norm before_attention, after_attention, before_mlp, after_mlp;
    Linear qkv, out, gate_up, down;
    Heads heads;
    Pages pages;
    int32_t group;             // whose PageTables hold
    int32_t gate;              // rows.h
    float branch_factor;       // what branches are multiplied with; 1: nothing
};

}  // namespace octavo
