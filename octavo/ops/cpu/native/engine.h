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
    Engine(const Kernels* chosen, int num_threads) : kernels(chosen), team(num_threads), scores(num_threads) {}

    const Kernels* kernels;
    Team team;
    std::mutex busy;  // one call at a time
    ActivationRoom activations;
    std::vector<float> floats;
    std::vector<std::vector<float>> scores;  // per thread
};

inline bool is_rounded(const Matrix& m) { return m.form != FORM_FLOAT; }
inline int num_groups(const Matrix& m) { return (m.rows + GROUP_ROWS - 1) / GROUP_ROWS; }

// Within a job: matrices that share their input, side by side in the output.
void share_product(Member& member, const Engine& engine, const Matrix* parts, int num_parts, const Activations& a,
                   int num_tokens, const Output& out);

}  // namespace octavo
