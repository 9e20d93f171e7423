// One linear layer, and the rows of a matrix.
#include "engine.h"

namespace octavo {

void share_product(Member& member, const Engine& engine, const Matrix* parts, int num_parts, const Activations& a,
                   int num_tokens, const Output& out) {
    int total = 0;
    for (int p = 0; p < num_parts; ++p) total += num_groups(parts[p]);
    // Enough pieces that a thread which is held up leaves its share to the others.
    const int pieces = engine.team.size() * 8, chunk = total > pieces ? total / pieces : 1;
    member.share(total, chunk, [&](int first, int last) {
        int64_t column = 0;
        for (int p = 0, start = 0; p < num_parts; ++p) {
            const int count = num_groups(parts[p]);
            const int from = first > start ? first - start : 0, to = last - start < count ? last - start : count;
            if (from < to)
                engine.kernels->product(parts[p], a, 0, num_tokens, from, to,
                                {out.y + column, out.stride, out.bias ? out.bias + column : nullptr, out.adds});
            start += count;
            column += parts[p].rows;
        }
    });
}

}  // namespace octavo

using namespace octavo;

// y[T, stride] = x[T, I] @ the matrices, side by side, transposed (+ bias[O]); added to y if `adds`.
OCTAVO_API void octavo_linear(Engine* engine, const Matrix* parts, int32_t num_parts, const float* x, int32_t num_tokens,
                              float* y, int64_t stride, const float* bias, int32_t adds) {
    std::lock_guard<std::mutex> lock(engine->busy);
    const Kernels& kernels = *engine->kernels;
    const Activations a = engine->activations.of(x, num_tokens, parts[0].columns);
    bool rounds = false;
    for (int p = 0; p < num_parts; ++p) rounds |= is_rounded(parts[p]);
    engine->team.run(2, [&](Member& member) {
        if (rounds)
            member.share(num_tokens, num_tokens > 64 ? 8 : 1, [&](int first, int last) {
                for (int t = first; t < last; ++t) kernels.quantize(a, t);
            });
        share_product(member, *engine, parts, num_parts, a, num_tokens, {y, stride, bias, adds != 0});
    });
}
