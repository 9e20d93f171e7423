#include "pool.h"

#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace octavo {

namespace {

// Some 30 us: longer than threads of one step usually wait for each other, shorter than a time slice.
constexpr int SPINS = 1000;

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

void Patience::wait() {
    if (num_spins_ < SPINS) {
        ++num_spins_;
        pause();
    } else {
        std::this_thread::yield();
    }
}

Team::Team(int num_threads) {
    threads_.reserve(num_threads);
    try {
        for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this, i] { serve(i); });
    } catch (const std::system_error&) {
        // The system lets no more of them start (ulimit -u, a container's pids limit): those that run do it all.
    }
}

Team::~Team() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stops_ = true;
        ++epoch_;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void Team::run(int num_phases, const Job& job) {
    if (num_phases > num_phases_) {
        phases_ = std::make_unique<Phase[]>(num_phases);
        num_phases_ = num_phases;
    } else {
        for (int i = 0; i < num_phases; ++i) {
            phases_[i].next.store(0, std::memory_order_relaxed);
            phases_[i].num_done.store(0, std::memory_order_relaxed);
        }
    }
    job_ = &job;
    num_left_.store(0, std::memory_order_relaxed);
    joined_.store(1);
    epoch_.fetch_add(1);
    // Either a sleeper is counted here, or it sees the new epoch before it sleeps: both are ordered strictly.
    if (num_asleep_.load() > 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    Member member(*this, 0);
    job(member);
    const uint32_t num_joined = joined_.fetch_and(~1u) >> 1;
    Patience patience;
    while (num_left_.load(std::memory_order_acquire) < num_joined) patience.wait();
}

bool Team::join() {
    uint32_t seen = joined_.load(std::memory_order_acquire);
    while (seen & 1)
        if (joined_.compare_exchange_weak(seen, seen + 2, std::memory_order_acq_rel)) return true;
    return false;
}

void Team::serve(int thread) {
    uint32_t epoch = 0;
    for (;;) {
        for (int i = 0; i < SPINS && epoch_.load(std::memory_order_acquire) == epoch; ++i) pause();
        if (epoch_.load() == epoch) {
            std::unique_lock<std::mutex> lock(mutex_);
            num_asleep_.fetch_add(1);
            wake_.wait(lock, [&] { return epoch_.load() != epoch; });
            num_asleep_.fetch_sub(1);
        }
        if (stops_) return;
        epoch = epoch_.load();
        if (!join()) continue;
        Member member(*this, thread);
        (*job_)(member);
        num_left_.fetch_add(1, std::memory_order_acq_rel);
    }
}

}  // namespace octavo
