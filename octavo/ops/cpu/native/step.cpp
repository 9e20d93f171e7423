// All layers of a decoder in one call.
#include <algorithm>

#include "engine.h"

namespace octavo {
namespace {

// Memory of a step: every array has a row for each token.
struct Arrays {
    float *x;       // the stream
    float *normed;  // what goes into products
    float *qkv, *attended, *inner, *gated;
    float *branch;  // before it is added to the stream, where that is not done at once
};

struct Step {
    Engine& engine;
    const Tokens& tokens;
    const PageTables* tables;
    const int width;
    const Arrays arrays;
    const Activations wide, attended, gated;  // inputs of products, rounded

    int each() const { return tokens.num_tokens > 64 ? 8 : 1; }

    // For every token, on any thread: work(token).
    template <class F>
    void per_token(Member& member, F work) const {
        member.share(tokens.num_tokens, each(), [&](int first, int last) {
            for (int t = first; t < last; ++t) work(t);
        });
    }

    void product(Member& member, const Linear& linear, const Activations& a, float* y, bool adds) const {
        share_product(member, engine, linear.parts, linear.num_parts, a, tokens.num_tokens,
                      {y, num_rows(linear), linear.bias, adds});
    }
};

bool rounds(const Linear& linear) {
    return std::any_of(linear.parts, linear.parts + linear.num_parts, is_rounded);
}

// x += factor * after(branch)
void add_branch(const Step& step, const Norm& after, float factor, int t) {
    float *x = step.arrays.x + int64_t(t) * step.width, *branch = step.arrays.branch + int64_t(t) * step.width;
    if (after.weight) step.engine.kernels->rms_norm(branch, after.weight, after.epsilon, step.width, branch);
    for (int i = 0; i < step.width; ++i) x[i] += factor * branch[i];
}

// Whether a branch's last product cannot be added to the stream as it is.
bool is_apart(const Norm& after, const Layer& layer) { return after.weight || layer.branch_factor != 1.0f; }

// The branch behind the stream is added if it is still apart; then norm and rounding, ready for `next`.
void enter(Member& member, const Step& step, const Norm* after, float factor, const Norm& before, const Linear& next) {
    const Kernels& kernels = *step.engine.kernels;
    const bool is_rounding = rounds(next);
    step.per_token(member, [&](int t) {
        if (after) add_branch(step, *after, factor, t);
        const float* x = step.arrays.x + int64_t(t) * step.width;
        float* normed = step.arrays.normed + int64_t(t) * step.width;
        if (before.weight) kernels.rms_norm(x, before.weight, before.epsilon, step.width, normed);
        else std::copy(x, x + step.width, normed);
        if (is_rounding) kernels.quantize(step.wide, t);
    });
}

void run_layer(Member& member, const Step& step, const Layer& layer, const Layer* before) {
    const Kernels& kernels = *step.engine.kernels;
    const Arrays& arrays = step.arrays;
    const PageTables& tables = step.tables[layer.group];

    const bool was_apart = before && is_apart(before->after_mlp, *before);
    enter(member, step, was_apart ? &before->after_mlp : nullptr, was_apart ? before->branch_factor : 1.0f,
          layer.before_attention, layer.qkv);
    step.product(member, layer.qkv, step.wide, arrays.qkv, false);
    share_heads(member, step.engine, layer.heads, layer.pages, step.tokens, tables, arrays.qkv);
    share_attention(member, step.engine, layer.heads, layer.pages, step.tokens, tables, arrays.qkv, arrays.attended);
    if (rounds(layer.out)) step.per_token(member, [&](int t) { kernels.quantize(step.attended, t); });
    const bool is_attention_apart = is_apart(layer.after_attention, layer);
    step.product(member, layer.out, step.attended, is_attention_apart ? arrays.branch : arrays.x, !is_attention_apart);

    enter(member, step, is_attention_apart ? &layer.after_attention : nullptr, layer.branch_factor, layer.before_mlp,
          layer.gate_up);
    step.product(member, layer.gate_up, step.wide, arrays.inner, false);
    const int inner = layer.down.parts[0].columns;
    const bool is_rounding = rounds(layer.down);
    step.per_token(member, [&](int t) {
        kernels.gated(arrays.inner + int64_t(t) * 2 * inner, inner, layer.gate, arrays.gated + int64_t(t) * inner);
        if (is_rounding) kernels.quantize(step.gated, t);
    });
    const bool is_mlp_apart = is_apart(layer.after_mlp, layer);
    step.product(member, layer.down, step.gated, is_mlp_apart ? arrays.branch : arrays.x, !is_mlp_apart);
}

constexpr int PHASES_OF_A_LAYER = 10;

}  // namespace
}  // namespace octavo

using namespace octavo;

// x[T, E]: what the layers begin with; overwritten. out[T, E]: the stream behind them, normed.
OCTAVO_API void octavo_step(Engine* engine, const Layer* layers, int32_t num_layers, const Tokens* tokens,
                            const PageTables* tables, float* x, int32_t width, const Norm* last, float* out) {
    std::lock_guard<std::mutex> lock(engine->busy);
    int qkv = 0, attended = 0, inner = 0;
    for (int i = 0; i < num_layers; ++i) {
        qkv = std::max(qkv, num_rows(layers[i].qkv));
        attended = std::max(attended, layers[i].out.parts[0].columns);
        inner = std::max(inner, layers[i].down.parts[0].columns);
    }
    const int64_t T = tokens->num_tokens, per_token = 2 * int64_t(width) + qkv + attended + 3 * int64_t(inner);
    if (int64_t(engine->floats.size()) < T * per_token) engine->floats.resize(T * per_token);
    float* at = engine->floats.data();
    const auto take = [&](int64_t columns) { return at += T * columns, at - T * columns; };
    Arrays arrays;
    arrays.x = x;
    arrays.normed = take(width);
    arrays.branch = take(width);
    arrays.qkv = take(qkv);
    arrays.attended = take(attended);
    arrays.inner = take(2 * int64_t(inner));
    arrays.gated = take(inner);
    const Step step = {*engine,
                       *tokens,
                       tables,
                       width,
                       arrays,
                       engine->wide.of(arrays.normed, T, width),
                       engine->activations.of(arrays.attended, T, attended),
                       engine->gated.of(arrays.gated, T, inner)};
    engine->team.run(num_layers * PHASES_OF_A_LAYER + 1, [&](Member& member) {
        for (int i = 0; i < num_layers; ++i) run_layer(member, step, layers[i], i ? &layers[i - 1] : nullptr);
        const Layer& end = layers[num_layers - 1];
        step.per_token(member, [&](int t) {
            if (is_apart(end.after_mlp, end)) add_branch(step, end.after_mlp, end.branch_factor, t);
            engine->kernels->rms_norm(x + int64_t(t) * width, last->weight, last->epsilon, width, out + int64_t(t) * width);
        });
    });
}
