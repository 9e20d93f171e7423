// Products of many small matrices, each with its own rows of the inputs: the experts of a mixture.
#include "engine.h"

using namespace octavo;

namespace {

int num_groups_of(const Linear& linear) {
    int groups = 0;
    for (int p = 0; p < linear.num_parts; ++p) groups += num_groups(linear.parts[p]);
    return groups;
}

}  // namespace

// y[starts[i] to starts[i + 1], O] = the same rows of x[T, I] @ linears[i], transposed (+ its bias). All are of one
// shape.
OCTAVO_API void octavo_grouped(Engine* engine, const Linear* linears, const int32_t* starts, int32_t count,
                               const float* x, float* y) {
    std::lock_guard<std::mutex> lock(engine->busy);
    const Kernels& kernels = *engine->kernels;
    const int num_tokens = starts[count], stride = num_rows(linears[0]);
    const Activations a = engine->activations.of(x, num_tokens, linears[0].parts[0].columns);
    bool rounds = false;
    for (int i = 0; i < count; ++i)
        for (int p = 0; p < linears[i].num_parts; ++p) rounds |= is_rounded(linears[i].parts[p]);
    const int per_linear = num_groups_of(linears[0]), total = count * per_linear;
    const int pieces = engine->team.size() * 8, chunk = total > pieces ? total / pieces : 1;
    engine->team.run(2, [&](Member& member) {
        if (rounds)
            member.share(num_tokens, num_tokens > 64 ? 8 : 1, [&](int first, int last) {
                for (int t = first; t < last; ++t) kernels.quantize(a, t);
            });
        member.share(total, chunk, [&](int first, int last) {
            for (int i = first / per_linear; i * per_linear < last; ++i) {
                const Linear& linear = linears[i];
                int64_t column = 0;
                for (int p = 0, start = i * per_linear; p < linear.num_parts; ++p) {
                    const Matrix& part = linear.parts[p];
                    const int end = start + num_groups(part);
                    const int from = first > start ? first : start, to = last < end ? last : end;
                    if (from < to)
                        kernels.product(part, a, starts[i], starts[i + 1], from - start, to - start,
                                        {y + column, stride, linear.bias ? linear.bias + column : nullptr, false});
                    start = end;
                    column += part.rows;
                }
            }
        });
    });
}
