// What one handle of the library holds: threads, kernels, and memory that calls share.
#pragma once
#include <mutex>
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace octavo {

// Room for activations that grows and is never given back.
class ActivationRoom {
public:
    // For `tokens` rows of `columns` numbers at x.
    Activations of(const float* x, int64_t tokens, int32_t columns) {
        const int64_t blocks = tokens * (columns / BLOCK_COLUMNS);
        if (int64_t(scale_.size()) < blocks) {
            q_.resize(blocks * BLOCK_COLUMNS);
            scale_.resize(blocks);
            scaled_sum_.resize(blocks);
            sum_.resize(blocks * 2);
        }
        return {x, q_.data(), scale_.data(), scaled_sum_.data(), sum_.data(), columns};
    }

private:
    std::vector<int8_t> q_;
    std::vector<float> scale_, scaled_sum_;
    std::vector<int32_t> sum_;
};

struct Engine {
    Engine(const Kernels* chosen, int num_threads) : kernels(chosen), team(num_threads), scores(num_threads), queries(num_threads) {}

    const Kernels* kernels;
    Team team;
    std::mutex busy;  // one call at a time
    ActivationRoom activations, wide, gated;
    std::vector<float> floats;
    std::vector<std::vector<float>> scores;  // per thread, as the next
    std::vector<std::vector<Query>> queries;
};

inline bool is_plain(int32_t form) { return form == FORM_FLOAT || form == FORM_BFLOAT16 || form == FORM_FLOAT16; }
inline bool is_rounded(const Matrix& m) { return !is_plain(m.form); }
inline int num_groups(const Matrix& m) { return (m.rows + GROUP_ROWS - 1) / GROUP_ROWS; }

inline int num_rows(const Linear& linear) {
    int rows = 0;
    for (int p = 0; p < linear.num_parts; ++p) rows += linear.parts[p].rows;
    return rows;
}

// Phases of a job follow; each returns when its work is done.

// Norm, rotation, and keys and values to their pages, for all heads of qkv[T, (H + 2 K) * D].
void share_heads(Member& member, const Engine& engine, const Heads& heads, const Pages& pages, const Tokens& tokens,
                 const PageTables& tables, float* qkv);

// out[T, H * D]
void share_attention(Member& member, Engine& engine, const Heads& heads, const Pages& pages, const Tokens& tokens,
                     const PageTables& tables, const float* qkv, float* out);

// Matrices that share their input, side by side in the output.
void share_product(Member& member, const Engine& engine, const Matrix* parts, int num_parts, const Activations& a,
                   int num_tokens, const Output& out);

}  // namespace octavo
