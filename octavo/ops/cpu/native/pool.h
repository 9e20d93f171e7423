// Threads that work on one job at a time, together with the thread that calls.
//
// Nobody waits for a thread that has not begun: on a busy machine a thread may wake late, and then those
// that run do its share. A job is a row of phases, a phase is a number of items; whoever is free takes the
// next ones, and a phase is over when its items are done, not when all threads have come.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace octavo {

// Spins for a moment, then lets others use the core.
class Patience {
public:
    void wait();

private:
    int num_spins_ = 0;
};

class Team;

// One thread's way through a job.
class Member {
public:
    Member(Team& team, int thread) : thread(thread), team_(team) {}

    // The next phase: items 0 to count, `chunk` at a time, as work(first, last). Returns when all are done.
    template <class F>
    void share(int count, int chunk, F work);

    const int thread;

private:
    Team& team_;
    int phase_ = 0;
};

using Job = std::function<void(Member&)>;

class Team {
public:
    // The caller's thread and as many more as the system lets start.
    explicit Team(int num_threads);
    ~Team();
    int size() const { return int(threads_.size()) + 1; }

    // Every thread that comes in time runs the job, which has at most num_phases. One job at a time.
    void run(int num_phases, const Job& job);

private:
    friend class Member;

    struct alignas(64) Phase {
        std::atomic<int> next{0};
        alignas(64) std::atomic<int> num_done{0};
    };

    void serve(int thread);
    bool join();

    const Job* job_ = nullptr;
    std::unique_ptr<Phase[]> phases_;
    int num_phases_ = 0;

    // The lowest bit says whether the job can be joined, the rest counts those who have.
    std::atomic<uint32_t> joined_{0};
    std::atomic<uint32_t> num_left_{0};

    // Rises with every job: what idle threads wait for.
    std::atomic<uint32_t> epoch_{0};
    std::atomic<int> num_asleep_{0};
    std::atomic<bool> stops_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

template <class F>
void Member::share(int count, int chunk, F work) {
    Team::Phase& phase = team_.phases_[phase_++];
    for (int first; (first = phase.next.fetch_add(chunk, std::memory_order_relaxed)) < count;) {
        const int last = first + chunk < count ? first + chunk : count;
        work(first, last);
        phase.num_done.fetch_add(last - first, std::memory_order_acq_rel);
    }
    Patience patience;
    while (phase.num_done.load(std::memory_order_acquire) < count) patience.wait();
}

}  // namespace octavo
