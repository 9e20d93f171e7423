// One token for each row of logits: the best, or one drawn. ops/sampling/ says what is meant, in torch.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "kernels.h"

using namespace octavo;

namespace {

enum Code : int32_t { FINE = 0, BROKEN = 1, EMPTY = 2 };        // ops/sampling/choose.py
enum Kind : int64_t { GREEDY = 0, UNFILTERED = 1, FILTERED = 2 };  // ops/sampling/settings.py, as the next
constexpr int64_t NO_TOP_K = int64_t(1) << 31;
constexpr int ROUNDS = 10;
struct Settings {
    int64_t kind, top_k;
    double temperature, top_p, min_p;
    int64_t keys[2 * ROUNDS];
};

constexpr double ONE = 0x1p40;        // the weight of probability 1: ops/sampling/draw.py
constexpr double LARGEST = 1e37;      // ops/sampling/filters.py
constexpr int BLOCK = 1024;           // tokens whose weights are summed at once
constexpr float LEASTS[] = {0x1p-12f, 0x1p-18f, 0x1p-26f, 0.0f};  // tokens this likely are looked at, then more

// Philox4x32-10 at (position, 0), as ops/sampling/random.py has it: 53 bits below 1.
double uniform(const Settings& settings, int64_t position) {
    uint32_t c0 = uint32_t(position), c1 = uint32_t(position >> 32), c2 = 0, c3 = 0;
    for (int r = 0; r < ROUNDS; ++r) {
        const uint64_t p0 = uint64_t(c0) * 0xD2511F53, p1 = uint64_t(c2) * 0xCD9E8D57;
        c0 = uint32_t(p1 >> 32) ^ c1 ^ uint32_t(settings.keys[2 * r]);
        c2 = uint32_t(p0 >> 32) ^ c3 ^ uint32_t(settings.keys[2 * r + 1]);
        c1 = uint32_t(p1);
        c3 = uint32_t(p0);
    }
    return double(uint64_t(c0 >> 5) << 26 | c1 >> 6) * 0x1p-53;
}

// A row's probabilities, e * inverse, and the memory that drawing from them takes.
struct Row {
    const Kernels& kernels;
    const int count;
    float inverse = 0;
    std::vector<float> e, ranked;
    std::vector<int32_t> likely;
    std::vector<double> ends;

    Row(const Kernels& kernels, int count) : kernels(kernels), count(count), e(count), likely(count) {}

    float at(int i) const { return e[i] * inverse; }

    void fill(const float* logits, float best, double temperature) {
        // Where a tiny temperature would send the best, or its own inverse, to infinity, the one that just does
        // not is as good.
        const double coldness = 1.0 / std::max(temperature, std::max(1.0, std::fabs(double(best))) / LARGEST);
        inverse = 1.0f / kernels.exponentials(logits, count, float(coldness), best, e.data());
    }

    int draw_from_all(double u) {
        ends.clear();
        double total = 0;
        for (int first = 0; first < count; first += BLOCK)
            ends.push_back(total += kernels.mass(e.data() + first, std::min(BLOCK, count - first), inverse));
        const double target = std::floor(u * total);
        const int block = int(std::upper_bound(ends.begin(), ends.end(), target) - ends.begin());
        double sum = block ? ends[block - 1] : 0;
        int i = block * BLOCK;
        while ((sum += weight_of(at(i))) <= target) ++i;
        return i;
    }

    int draw_filtered(const Settings& settings, double u) {
        for (float least : LEASTS) {
            const int n = kernels.find_likely(e.data(), count, inverse, least, likely.data());
            float threshold;
            if (!find_threshold(settings, n, least, &threshold)) continue;
            double total = 0, sum = 0;
            for (int i = 0; i < n; ++i) total += kept(i, threshold);
            const double target = std::floor(u * total);
            int i = 0;
            while ((sum += kept(i, threshold)) <= target) ++i;
            return likely[i];
        }
        return 0;  // never: among all tokens the threshold is found
    }

private:
    double kept(int i, float threshold) const {
        const float p = at(likely[i]);
        return p >= threshold ? weight_of(p) : 0;
    }

    // The smallest probability that min_p, top_k and top_p leave, if the n likely tokens are enough to tell.
    bool find_threshold(const Settings& settings, int n, float least, float* threshold) {
        if (n == 0) return false;
        ranked.resize(n);
        for (int i = 0; i < n; ++i) ranked[i] = at(likely[i]);
        float *begin = ranked.data(), *end = begin + n;
        float t = inverse * float(settings.min_p);
        if (settings.top_k <= n) {
            float* last = begin + settings.top_k - 1;
            std::nth_element(begin, last, end, std::greater<float>());
            t = std::max(t, *last);
        }
        const bool knows_kept = n == count || t >= least;
        if (settings.top_p < 1) {
            const bool is_whole = settings.min_p == 0 && settings.top_k >= NO_TOP_K;
            if (!is_whole && !knows_kept) return false;
            end = std::partition(begin, end, [&](float p) { return p >= t; });
            const double found = weights(begin, end), goal = settings.top_p * (is_whole ? ONE : found);
            if (found < goal && !knows_kept) return false;
            t = std::max(t, nucleus(begin, end, goal));
        } else if (!knows_kept) return false;
        *threshold = t;
        return true;
    }

    static double weights(const float* begin, const float* end) {
        double sum = 0;
        for (; begin < end; ++begin) sum += weight_of(*begin);
        return sum;
    }

    // The smallest of these that has less than `goal` above it; those that weigh nothing do not count. Sorts only
    // as far as it has to.
    static float nucleus(float* begin, float* end, double goal) {
        float smallest = *std::max_element(begin, end);
        double above = 0;
        while (begin < end && above < goal) {
            const float a = *begin, b = begin[(end - begin) / 2], c = end[-1];
            const float pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
            float* larger = std::partition(begin, end, [=](float p) { return p > pivot; });
            const double mass = weights(begin, larger);
            if (above + mass >= goal) {
                end = larger;
                continue;
            }
            begin = std::partition(larger, end, [=](float p) { return p == pivot; });
            const double equal = weight_of(pivot);
            if (equal > 0) smallest = pivot;
            above += mass + equal * (begin - larger);
        }
        return smallest;
    }
};

}  // namespace

// chosen[2, S]: a token for each row of V logits (0 where none can be chosen), and whether the row was usable.
// Row s has the settings of line rows[s], and its token comes to positions[s]; settings null: the best ones.
OCTAVO_API void octavo_choose_tokens(const float* logits, int64_t stride, int32_t num_rows, int32_t vocab_size,
                                     const Settings* settings, const int64_t* rows, const int64_t* positions,
                                     int32_t* chosen) {
    static const Kernels& kernels = *choose_kernels(nullptr);
    Row row(kernels, settings ? vocab_size : 0);
    for (int s = 0; s < num_rows; ++s) {
        const float* x = logits + s * stride;
        float best;
        int token = kernels.best(x, vocab_size, &best);
        const bool is_fine = std::isfinite(best);
        if (settings && is_fine && settings[rows[s]].kind != GREEDY) {
            const Settings& own = settings[rows[s]];
            row.fill(x, best, own.temperature);
            const double u = uniform(own, positions[s]);
            token = own.kind == FILTERED ? row.draw_filtered(own, u) : row.draw_from_all(u);
        }
        chosen[s] = is_fine ? token : 0;
        chosen[num_rows + s] = is_fine ? FINE : best == -std::numeric_limits<float>::infinity() ? EMPTY : BROKEN;
    }
}
