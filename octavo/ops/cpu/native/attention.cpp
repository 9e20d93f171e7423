// Attention of a step: who attends together, and which thread does it.
#include <cmath>

#include "engine.h"

namespace octavo {

namespace {

// Neighbouring tokens of one sequence; the first and the last.
struct Run {
    int seq, first, last;
};

// Tokens are cut into runs of at most `most`, never across sequences; run i is found without a list.
class Runs {
public:
    Runs(const Tokens& tokens, int most) : tokens_(tokens), most_(most) {
        for (int s = 0; s < tokens.num_seqs; ++s) count_ += of(s);
    }
    int count() const { return count_; }
    Run operator[](int i) const {
        int s = 0;
        if (count_ == tokens_.num_seqs) s = i, i = 0;  // each sequence is one run
        for (; i >= of(s); ++s) i -= of(s);
        const int first = tokens_.starts[s] + i * most_, end = tokens_.starts[s + 1];
        return {s, first, first + most_ < end ? first + most_ : end};
    }

private:
    int of(int s) const { return (tokens_.starts[s + 1] - tokens_.starts[s] + most_ - 1) / most_; }

    const Tokens& tokens_;
    const int most_;
    int count_ = 0;
};

}  // namespace

void share_heads(Member& member, const Engine& engine, const Heads& heads, const Pages& pages, const Tokens& tokens,
                 const PageTables& tables, float* qkv) {
    const int64_t width = int64_t(heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim;
    member.share(tokens.num_tokens, tokens.num_tokens > 64 ? 8 : 1, [&](int first, int last) {
        for (int t = first; t < last; ++t)
            engine.kernels->prepare_heads(heads, pages, qkv + t * width, tokens.positions[t], tables.slots[t]);
    });
}

void share_attention(Member& member, Engine& engine, const Heads& heads, const Pages& pages, const Tokens& tokens,
                     const PageTables& tables, const float* qkv, float* out) {
    const int D = heads.head_dim, group = heads.num_heads / heads.num_kv_heads;
    const int64_t width = int64_t(heads.num_heads + 2 * heads.num_kv_heads) * D;
    const Runs runs(tokens, group < MOST_QUERIES ? MOST_QUERIES / group : 1);
    // Heads that share keys read them together, unless threads would have nothing to do.
    const int pieces = runs.count() * heads.num_kv_heads < engine.team.size() ? group : 1;
    const int per_run = heads.num_kv_heads * pieces, heads_each = group / pieces;
    member.share(runs.count() * per_run, 1, [&](int item, int) {
        const Run run = runs[item / per_run];
        const int head = item % per_run * heads_each, k = head / group;
        std::vector<float>& scores = engine.scores[member.thread];
        const size_t room = size_t(MOST_QUERIES) * score_room(tokens.positions[run.last - 1] + 1);
        if (scores.size() < room) scores.resize(room + room / 2);
        const int32_t* table = tables.tables + tables.stride * tokens.rows[run.seq];
        std::vector<Query>& queries = engine.queries[member.thread];
        queries.clear();
        for (int t = run.first; t < run.last; ++t) {
            const int length = tokens.positions[t] + 1;
            const int start = heads.window && length > heads.window ? length - heads.window : 0;
            for (int h = head; h < head + heads_each; ++h)
                queries.push_back({qkv + t * width + h * D, out + (int64_t(t) * heads.num_heads + h) * D, start, length,
                                   heads.sinks ? heads.sinks[h] : -INFINITY, heads.slopes ? heads.slopes[h] : 0});
        }
        engine.kernels->attend(heads, pages, queries.data(), int(queries.size()), k, table, scores.data());
    });
}

}  // namespace octavo

using namespace octavo;

// Norm and rotate the heads of qkv[T, (H + 2 K) * D] in place, write keys and values, attend: out[T, H * D].
OCTAVO_API void octavo_attention(Engine* engine, const Heads* heads, const Pages* pages, const Tokens* tokens,
                                 const PageTables* tables, float* qkv, float* out) {
    std::lock_guard<std::mutex> lock(engine->busy);
    engine->team.run(2, [&](Member& member) {
        share_heads(member, *engine, *heads, *pages, *tokens, *tables, qkv);
        share_attention(member, *engine, *heads, *pages, *tokens, *tables, qkv, out);
    });
}
