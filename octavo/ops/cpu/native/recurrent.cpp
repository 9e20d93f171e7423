// Recurrences: every head of every sequence walks its tokens one by one, so that nothing depends on how a
// prompt is cut or who else is there.
#include <algorithm>

#include "engine.h"

using namespace octavo;

namespace {

// For every token of every sequence and head, in order: step(state, token, head).
template <class F>
void walk(Engine* engine, const Recurrence& r, F step) {
    std::lock_guard<std::mutex> lock(engine->busy);
    const int64_t per_head = int64_t(r.width) * r.size;
    engine->team.run(1, [&](Member& member) {
        member.share(r.num_seqs * r.heads, 1, [&](int item, int) {
            const int s = item / r.heads, h = item % r.heads, start = r.starts[s], end = r.starts[s + 1];
            float* state = r.states + (int64_t(r.rows[s]) * r.heads + h) * per_head;
            if (r.lengths[s] == end - start) std::fill(state, state + per_head, 0.0f);  // its first tokens
            for (int t = start; t < end; ++t) step(state, t, h);
        });
    });
}

}  // namespace

// ops/ssd.py tells what this is. x[T, x_stride], b and c [T, stride], dt and decay [T, H], y[T, H * width].
OCTAVO_API void octavo_ssd(Engine* engine, const Recurrence* r, const float* x, int64_t x_stride, const float* b,
                           int64_t b_stride, const float* c, int64_t c_stride, const float* dt, const float* decay,
                           const float* skip, float* y) {
    const int per_group = r->heads / r->groups;
    walk(engine, *r, [&](float* state, int64_t t, int h) {
        const int64_t group = int64_t(h / per_group) * r->size, at = t * r->heads + h;
        engine->kernels->walk_ssd(state, r->width, r->size, x + t * x_stride + h * r->width, b + t * b_stride + group,
                                  c + t * c_stride + group, dt[at], decay[at], skip[h], y + at * r->width);
    });
}

// ops/gated_delta.py tells what this is. q and k [T, groups * size], v[T, v_stride], beta and decay [T, H].
OCTAVO_API void octavo_gated_delta(Engine* engine, const Recurrence* r, const float* q, const float* k, const float* v,
                                   int64_t v_stride, const float* beta, const float* decay, float* y) {
    const int per_group = r->heads / r->groups;
    walk(engine, *r, [&](float* state, int64_t t, int h) {
        const int64_t group = (t * r->groups + h / per_group) * r->size, at = t * r->heads + h;
        engine->kernels->walk_delta(state, r->width, r->size, q + group, k + group, v + t * v_stride + h * r->width,
                                    beta[at], decay[at], y + at * r->width);
    });
}
