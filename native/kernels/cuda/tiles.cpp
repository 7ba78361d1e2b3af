#include "tiles.h"

#include <algorithm>
#include <limits>
#include <queue>

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

namespace {

Order all_heads(int32_t heads, int32_t at_once) { return {heads, std::numeric_limits<int32_t>::max() / heads, at_once}; }

std::vector<int32_t> of_each_tile(const Tiles& tiles, const std::function<int32_t(int32_t)>& work_of) {
    std::vector<int32_t> work(tiles.count);
    for (int32_t i = 0; i < tiles.count; ++i) work[i] = work_of(i);
    return work;
}

// When the last thread block ends, in visits, if each multiprocessor takes the next one as soon as it is free.
int64_t last_end(const Plan& plan, const Tiles& tiles, int32_t heads, const std::vector<int32_t>& work) {
    const int32_t around = plan.cluster == 1 ? 3 : 4;  // before the first visit and after the last
    std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> free_at;
    for (int32_t i = 0; i < plan.order.at_once; ++i) free_at.push(0);
    int64_t last = 0;
    for (int32_t i = 0; i < tiles.count * heads; ++i) {
        const int32_t visits = work[find_head_tile(tiles, plan.order, heads, i).tile];
        const int64_t end = free_at.top() + around + (visits + plan.cluster - 1) / plan.cluster;
        free_at.pop();
        free_at.push(end);
        last = std::max(last, end);
    }
    return last;
}

}  // namespace

Order l2_order(int64_t head_bytes, int32_t heads, int32_t multiprocessors) {
    constexpr int64_t cache_share = 32 << 20;
    int64_t section = std::max<int64_t>(1, cache_share / std::max<int64_t>(1, head_bytes));
    if (section >= heads) return all_heads(heads, multiprocessors);
    while (heads % section != 0) --section;
    return {static_cast<int32_t>(section), static_cast<int32_t>((multiprocessors + section - 1) / section), multiprocessors};
}

Plan balanced_plan(const Plan& plan, int32_t most, const Tiles& tiles, int32_t heads, const std::function<int32_t(int32_t)>& work_of) {
    constexpr int32_t many = 8;        // tiles for each multiprocessor: they even out whatever the plan
    constexpr double worth_it = 1.05;  // sections gain 0 to 9 % by the cache, and the count of visits is no measurement
    const int32_t multiprocessors = plan.order.at_once * plan.cluster;
    Plan best = plan;
    if (int64_t{tiles.count} * heads > int64_t{many} * multiprocessors) return best;
    const std::vector<int32_t> work = of_each_tile(tiles, work_of);
    int64_t best_end = last_end(best, tiles, heads, work);
    for (int32_t cluster = plan.cluster; cluster <= most; cluster *= 2) {
        // A cluster lies within 16 or 18 multiprocessors; fours leave some of them over.
        const int32_t at_once = multiprocessors / cluster - (cluster > 2);
        if (at_once < 1) break;
        const Plan other{all_heads(heads, at_once), cluster};
        const int64_t end = last_end(other, tiles, heads, work);
        if (best_end > worth_it * end) {
            best = other;
            best_end = end;
        }
    }
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
