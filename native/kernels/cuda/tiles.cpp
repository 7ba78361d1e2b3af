#include "tiles.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

namespace trainer::cuda {

std::vector<Tiles> cut_into_tiles(const tn_attention_shape& shape, Axis axis, const Cut& cut) {
    std::vector<Sequence> sequences;
    for (int32_t s = 0; s < shape.sequences; ++s) {
        const int32_t *q = shape.cu_seqlens_q + s, *k = shape.cu_seqlens_k + s;
        const Sequence sequence{q[0], q[1] - q[0], k[0], k[1] - k[0], 0};
        if ((axis == Axis::queries ? sequence.q_length : sequence.k_length) > 0) sequences.push_back(sequence);
    }
    const auto levels = [&](const Sequence& s) { return cut.tiles(axis == Axis::queries ? s.q_length : s.k_length); };
    std::stable_sort(sequences.begin(), sequences.end(), [&](const Sequence& a, const Sequence& b) { return levels(a) > levels(b); });

    std::vector<Tiles> tables;
    for (size_t begin = 0; begin < sequences.size(); begin += Tiles::capacity) {
        Tiles& table = tables.emplace_back();
        table.cut = cut;
        table.count = 0;
        table.sequences = static_cast<int32_t>(std::min<size_t>(Tiles::capacity, sequences.size() - begin));
        for (int32_t i = 0; i < table.sequences; ++i) {
            Sequence& s = table.sequence[i] = sequences[begin + i];
            if (i > 0) s.first_tile = table.sequence[i - 1].first_tile + i * (levels(table.sequence[i - 1]) - levels(s));
            table.count += levels(s);
        }
    }
    return tables;
}

void number_by_sequence(Tiles& tiles, Axis axis) {
    int32_t before = 0;
    for (int32_t i = 0; i < tiles.sequences; ++i) {
        Sequence& s = tiles.sequence[i];
        s.first_tile = before;
        before += tiles.cut.tiles(axis == Axis::queries ? s.q_length : s.k_length);
    }
}

Order all_heads(int32_t heads, int32_t multiprocessors) { return {heads, std::numeric_limits<int32_t>::max() / heads, multiprocessors}; }

namespace {

std::vector<int32_t> of_each_tile(const Tiles& tiles, const std::function<int32_t(int32_t)>& work_of) {
    std::vector<int32_t> work(tiles.count);
    for (int32_t i = 0; i < tiles.count; ++i) work[i] = work_of(i);
    return work;
}

// When the last thread block ends, in visits, if each multiprocessor takes the next one as soon as it is free. work: of the pairs.
int64_t last_end(const Plan& plan, const std::vector<int32_t>& work, const std::vector<int32_t>& last, size_t heads) {
    constexpr int32_t around = 3, around_shared = 4;  // before the first visit and after the last
    // A cluster lies within 16 or 18 multiprocessors; fours leave some of them over.
    const int32_t clusters = std::max(1, plan.order.at_once / plan.cluster - (plan.cluster > 2));
    std::map<int64_t, int32_t> free_at{{0, clusters}};  // and how many are then
    int32_t visits = 0, count = 0;                      // many in a row have the same to do
    const auto run = [&](int32_t next_visits) {
        if (next_visits == visits) {
            ++count;
            return;
        }
        while (count > 0) {
            const auto first = free_at.begin();
            const int32_t some = std::min(count, first->second);
            free_at[first->first + visits] += some;
            count -= some;
            if ((first->second -= some) == 0) free_at.erase(first);
        }
        visits = next_visits;
        count = 1;
    };
    const size_t shared = plan.shared, cluster = plan.cluster;
    for (size_t i = 0; i < shared; ++i) run(around_shared + (work[i] + plan.cluster - 1) / plan.cluster);
    for (size_t i = shared; i < work.size(); i += cluster)
        run(around + *std::max_element(work.begin() + i, work.begin() + std::min(i + cluster, work.size())));
    for (size_t i = 0; i < last.size() * heads; i += cluster) {
        const size_t end = std::min(i + cluster, last.size() * heads);
        run(around + *std::max_element(last.begin() + i / heads, last.begin() + (end - 1) / heads + 1));
    }
    run(0);
    return free_at.rbegin()->first;
}

}  // namespace

Order l2_order(int64_t head_bytes, int32_t heads, int32_t multiprocessors) {
    int64_t section = std::max<int64_t>(1, cache_share / std::max<int64_t>(1, head_bytes));
    if (section >= heads) return all_heads(heads, multiprocessors);
    while (heads % section != 0) --section;
    return {static_cast<int32_t>(section), static_cast<int32_t>((multiprocessors + section - 1) / section), multiprocessors};
}

Plan balanced_plan(const Order& order, int32_t most, const Tiles& tiles, int32_t heads, const std::function<int32_t(int32_t)>& work_of,
                   const std::vector<int32_t>& last) {
    constexpr double worth_it = 1.02;  // the count of visits is no measurement
    const int32_t multiprocessors = order.at_once;
    const int64_t pairs = int64_t{tiles.count} * heads;
    if (pairs == 0) return {order};
    const std::vector<int32_t> tile_work = of_each_tile(tiles, work_of);
    const int64_t sum = heads * std::accumulate(last.begin(), last.end(), std::accumulate(tile_work.begin(), tile_work.end(), int64_t{0}));
    const int32_t longest = *std::max_element(tile_work.begin(), tile_work.end());
    // Where others come after them, the last of the plan's thread blocks end long before all is done, unless one takes that long.
    if (last.empty() ? int64_t{longest} * even_out * multiprocessors < sum : int64_t{longest} * 4 * multiprocessors < 3 * sum) return {order};
    const auto work_in = [&](const Order& o) {
        std::vector<int32_t> work(pairs);
        for (int32_t i = 0; i < pairs; ++i) work[i] = tile_work[find_head_tile(tiles, o, heads, i).tile];
        return work;
    };
    Plan best{order};
    int64_t best_end = last_end(best, work_in(order), last, heads);
    const Order all = all_heads(heads, multiprocessors);
    const std::vector<int32_t> work = work_in(all);
    const auto consider = [&](const Plan& plan) {
        const int64_t end = last_end(plan, work, last, heads);
        if (best_end <= worth_it * end) return;
        best = plan;
        best_end = end;
    };
    consider({all});
    if (most == 1) return best;
    // The first pairs, as long as they have more to do than so many eighths of what a multiprocessor has on average.
    for (int32_t eighths : {8, 6, 4, 0}) {
        const auto above = [&](int32_t visits) { return int64_t{visits} * 8 * multiprocessors > eighths * sum; };
        const int32_t shared = static_cast<int32_t>(std::find_if_not(work.begin(), work.end(), above) - work.begin());
        if (shared > 0) consider({in_clusters(all, 2), 2, shared});
    }
    if (multiprocessors >= 2 * most) consider({in_clusters(all, most), most, static_cast<int32_t>(pairs)});
    return best;
}

Shares shares_of(const Order& order, const Tiles& tiles, int32_t heads, const std::function<int32_t(int32_t)>& work_of) {
    const Shares none{};
    const int64_t pairs = int64_t{tiles.count} * heads;
    const int32_t blocks = order.at_once;
    if (order.section_heads < heads || pairs <= blocks || pairs > 16 * int64_t{blocks}) return none;
    const std::vector<int32_t> work = of_each_tile(tiles, work_of);
    const auto cost = [&](int32_t tile) { return 4 * work[tile] + 5; };  // a tile's ends take about as long as 1.25 visits

    std::vector<int64_t> in_turn(blocks);
    for (int32_t i = 0; i < pairs; ++i) {
        const int32_t place = i % blocks;
        in_turn[i / blocks % 2 == 0 ? place : blocks - 1 - place] += cost(i / heads);
    }

    struct Neighbours {  // thread blocks that have the same to do
        int32_t block, count;
        int64_t load;
    };
    std::vector<Neighbours> all{{0, blocks, 0}};
    const auto join = [&](size_t i) {
        if (i == 0 || i >= all.size() || all[i - 1].load != all[i].load) return;
        all[i - 1].count += all[i].count;
        all.erase(all.begin() + i);
    };
    const auto less = [](const Neighbours& x, const Neighbours& y) { return x.load < y.load; };
    Shares shares{};
    for (int32_t tile = 0, next = 0; tile < tiles.count; tile = next) {
        while (next < tiles.count && work[next] == work[tile]) ++next;
        for (int32_t first = tile * heads, end = next * heads, count; first < end; first += count) {
            const size_t least = std::min_element(all.begin(), all.end(), less) - all.begin();
            const Neighbours before = all[least];
            count = std::min(before.count, end - first);
            if (shares.count == Shares::capacity) return none;
            shares.share[shares.count++] = {first, static_cast<uint16_t>(before.block), static_cast<uint16_t>(count)};
            all[least] = {before.block, count, before.load + cost(tile)};
            if (count < before.count) all.insert(all.begin() + least + 1, {before.block + count, before.count - count, before.load});
            join(least + 1);
            join(least);
        }
    }
    return std::max_element(all.begin(), all.end(), less)->load < *std::max_element(in_turn.begin(), in_turn.end()) ? shares : none;
}

Attention attention(const tn_attention_shape& s) {
    return {s.q_tokens, s.k_tokens, s.q_heads, s.kv_heads, s.head_dim, s.causal, s.window, s.scale,
            static_cast<float>(s.scale * 1.4426950408889634)};
}

}  // namespace trainer::cuda
