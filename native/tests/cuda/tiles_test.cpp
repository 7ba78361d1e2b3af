#include "harness.h"
#include "tiles.h"

#include <algorithm>
#include <array>

// nvcc has them for device code without a word; this file is not compiled by it.
using std::max;
using std::min;
#include "key_work.cuh"
#include "query_work.cuh"

using namespace trainer::cuda;

namespace {

struct Batch {
    std::vector<int32_t> boundaries{0};
    tn_attention_shape shape{};

    Batch(const std::vector<int32_t>& lengths, int32_t q_heads, int32_t kv_heads) {
        for (int32_t length : lengths) boundaries.push_back(boundaries.back() + length);
        shape.q_tokens = shape.k_tokens = boundaries.back();
        shape.q_heads = q_heads;
        shape.kv_heads = kv_heads;
        shape.head_dim = 64;
        shape.sequences = static_cast<int32_t>(lengths.size());
        shape.cu_seqlens_q = shape.cu_seqlens_k = boundaries.data();
        shape.scale = 1;
        shape.causal = 1;
        shape.window = -1;
    }
};

}  // namespace

TEST("tiles of shared rows hold every row of every head once") {
    for (auto [q_heads, kv_heads] : {std::pair{7, 1}, {14, 2}, {4, 2}, {3, 3}}) {
        const std::vector<int32_t> lengths{300, 1, 0, 64, 65, 1000, 128};
        const Batch batch(lengths, q_heads, kv_heads);
        const Attention a = attention(batch.shape);
        std::map<std::pair<int, int>, int> seen;  // (head, first token of 64 rows)
        for (const Tiles& tiles : cut_into_tiles(batch.shape, Axis::queries, {64, q_heads / kv_heads, 3}))
            for (int32_t tile = 0; tile < tiles.count; ++tile)
                for (int32_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
                    const QueryWork<3> w = query_work<3, 128>(a, tiles.cut, find_tile(tiles, Axis::queries, tile), kv_head);
                    for (const QueryPart& part : w.part) {
                        if (part.first_row >= w.sequence.q_length) continue;
                        ++seen[{part.head, w.sequence.q_begin + part.first_row}];
                        const int last_row = std::min(part.first_row + 64, w.sequence.q_length) - 1;
                        expect(w.end_block * 128 > last_row, "a part misses keys");
                    }
                }
        size_t blocks = 0;
        for (int32_t length : lengths) blocks += (length + 63) / 64;
        expect(seen.size() == blocks * q_heads, "rows are missing");
        for (const auto& [rows, times] : seen) expect(times == 1, "rows come twice");
    }
}

TEST("every pair of tile and head is one thread block's, and none has more to do than in turn") {
    std::mt19937 random(1);
    int given_out = 0;
    for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<int32_t> lengths(1 + random() % 40);
        for (int32_t& length : lengths) length = 1 + static_cast<int32_t>(random() % 2048);
        const Batch batch(lengths, 14, 2);
        const Attention a = attention(batch.shape);
        const int32_t blocks = 1 + static_cast<int32_t>(random() % 132);
        const Tiles tiles = cut_into_tiles(batch.shape, Axis::queries, {64, 7, 3})[0];
        std::vector<int32_t> work(tiles.count);
        for (int32_t i = 0; i < tiles.count; ++i) {
            const QueryWork<3> w = query_work<3, 128>(a, tiles.cut, find_tile(tiles, Axis::queries, i), 0);
            work[i] = w.end_block - w.begin_block;
        }
        const Shares shares = shares_of({2, 1 << 20, blocks}, tiles, 2, [&](int32_t tile) { return work[tile]; });
        given_out += shares.count > 0;
        if (shares.count == 0) continue;
        std::vector<int> seen(tiles.count * 2);
        std::vector<int64_t> load(blocks), in_turn(blocks);
        for (int32_t i = 0; i < shares.count; ++i)
            for (int32_t j = 0; j < shares.share[i].count; ++j) {
                const int32_t pair = shares.share[i].first + j, block = shares.share[i].block + j;
                expect(block < blocks, "no such thread block");
                ++seen.at(pair);
                load[block] += 4 * work[pair / 2] + 5;
            }
        for (int times : seen) expect(times == 1, "a pair is nobody's, or two thread blocks'");
        for (int32_t pair = 0; pair < tiles.count * 2; ++pair) {
            const int32_t place = pair % blocks;
            in_turn[pair / blocks % 2 == 0 ? place : blocks - 1 - place] += 4 * work[pair / 2] + 5;
        }
        expect(*std::max_element(load.begin(), load.end()) < *std::max_element(in_turn.begin(), in_turn.end()), "no gain");
    }
    expect(given_out > 20, "nearly nothing was given out");
}

TEST("clusters are made where thread blocks are too few or too long, and only there") {
    const auto plan = [](const std::vector<int32_t>& work, int32_t most) {
        Tiles tiles{};
        tiles.count = static_cast<int32_t>(work.size());
        return balanced_plan({2, 1 << 20, 132}, most, tiles, 2, [&](int32_t tile) { return work[tile]; }).cluster;
    };
    expect(plan(std::vector<int32_t>(16, 112), 4) == 4, "32 thread blocks leave 100 multiprocessors idle");
    expect(plan(std::vector<int32_t>(33, 112), 4) == 2, "66 leave half of them");
    expect(plan(std::vector<int32_t>(66, 112), 4) == 1, "132 leave none");
    expect(plan(std::vector<int32_t>(16, 112), 1) == 1, "a kernel without clusters");
    expect(plan(std::vector<int32_t>(1000, 112), 4) == 1, "many even out");
    expect(plan(std::vector<int32_t>(8, 0), 4) == 1, "nothing to share");
}

TEST("tiles numbered by sequence are all there, those of one sequence side by side") {
    const std::vector<int32_t> lengths{300, 1, 0, 64, 65, 1000, 128};
    const Batch batch(lengths, 4, 2);
    Tiles tiles = cut_into_tiles(batch.shape, Axis::keys, {128})[0];
    number_by_sequence(tiles, Axis::keys);
    std::map<int32_t, std::vector<int32_t>> levels;  // by the sequence's first token
    std::vector<int32_t> order;
    for (int32_t i = 0; i < tiles.count; ++i) {
        const Tile tile = find_tile_of_sequence(tiles, Axis::keys, i);
        if (order.empty() || order.back() != tile.sequence.k_begin) order.push_back(tile.sequence.k_begin);
        expect(tile.levels == (tile.sequence.k_length + 127) / 128, "another sequence's levels");
        levels[tile.sequence.k_begin].push_back(tile.level);
    }
    expect(order.size() == 6 && levels.size() == 6, "sequences come in pieces");
    expect(tiles.count == 3 + 1 + 1 + 1 + 8 + 1, "tiles are missing");
    for (const auto& [begin, seen] : levels)
        for (size_t i = 0; i < seen.size(); ++i) expect(seen[i] == int32_t(seen.size() - 1 - i), "not from the highest level down");
}

TEST("every pair of tile and head has its thread blocks, whatever the plan") {
    for (int32_t pairs : {1, 2, 7, 32, 33})
        for (int32_t cluster : {1, 2, 4})
            for (int32_t shared = 0; shared <= (cluster == 1 ? 0 : pairs); ++shared) {
                const Plan plan{{}, cluster, shared};
                expect(plan.blocks(pairs) % cluster == 0, "the last cluster is not whole");
                std::map<int32_t, std::vector<int32_t>> ranks;
                for (int32_t block = 0; block < plan.blocks(pairs); ++block) {
                    const Place place = place_of(plan, block);
                    expect(place.cluster == (place.pair < shared ? cluster : 1), "shared by others than planned");
                    expect(place.pair < pairs || block >= plan.blocks(pairs) - cluster, "a whole cluster has nothing to do");
                    if (place.cluster > 1) expect(place.rank == block % cluster, "not its rank in the cluster");
                    ranks[place.pair].push_back(place.rank);
                }
                for (int32_t pair = 0; pair < pairs; ++pair)
                    expect(ranks[pair].size() == size_t(pair < shared ? cluster : 1), "a pair has too few thread blocks, or too many");
            }
}

// Ranks of a cluster that disagreed about where visits begin would do some twice and others never.
TEST("every block of keys gets each of its visits once, whatever the chip and the plan") {
    size_t by_sequence = 0, descending = 0, ascending = 0, in_clusters = 0;
    const auto check = [&](const std::vector<int32_t>& lengths, int32_t q_heads, int32_t kv_heads, int32_t multiprocessors, const Sharing& sharing) {
        Batch batch(lengths, q_heads, kv_heads);
        batch.shape.head_dim = 128;
        const Attention a = attention(batch.shape);
        Tiles tiles = cut_into_tiles(batch.shape, Axis::keys, {128})[0];
        Plan plan = key_plan<128, 64, true>(batch.shape, tiles, 1024, multiprocessors, sharing);
        plan.run = meeting_run(batch.shape, tiles, plan.order, 64 * 1024);
        by_sequence += plan.order.by_sequence;
        in_clusters += plan.cluster > 1;
        std::map<std::array<int, 2>, std::map<std::pair<int, int>, int>> seen;  // (first key's token, key head): of each visit
        std::map<std::array<int, 2>, size_t> visits;
        const int64_t pairs = int64_t{tiles.count} * kv_heads;
        for (int32_t block = 0; block < plan.blocks(pairs); ++block) {
            const Place place = place_of(plan, block);
            if (place.pair >= pairs) continue;
            const KeyWork w = key_work<128, 64, true>(a, tiles, plan, place, block);
            const std::array<int, 2> keys{w.sequence.k_begin + w.first_key, w.kv_head};
            visits[keys] = w.group * (w.end_block - w.begin_block);
            (w.descends ? descending : ascending) += w.run > 0;
            for (int i = 0; i < w.visits(); ++i) {
                const int index = i * w.cluster + w.rank;
                const Visit v = w.run > 0 ? w.meeting_visit(index) : w.visit(index);
                expect(v.head / w.group == w.kv_head && w.begin_block <= v.block && v.block < w.end_block, "a visit elsewhere");
                ++seen[keys][{v.head, v.block}];
            }
        }
        expect(static_cast<int64_t>(visits.size()) == pairs, "blocks of keys are missing");
        for (const auto& [keys, expected] : visits) {
            expect(seen[keys].size() == expected, "visits are missing");
            for (const auto& [visit, times] : seen[keys]) expect(times == 1, "a visit is made twice");
        }
    };
    for (int32_t multiprocessors : {16, 78, 114, 131, 132})
        for (auto [q_heads, kv_heads] : {std::pair{28, 4}, {14, 2}, {8, 8}, {5, 1}})
            for (const Sharing& sharing : {Sharing{}, Sharing{1}, Sharing{4, 4}, Sharing{4, 2, 2}})
                for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{2048}, {1024}, {4096, 700, 300, 130}, {64}})
                    check(lengths, q_heads, kv_heads, multiprocessors, sharing);
    check(std::vector<int32_t>(70, 200), 16, 8, 132, {});
    check(std::vector<int32_t>(100, 500), 28, 4, 132, {});
    expect(by_sequence >= 2 && descending > 100 && ascending > 100 && in_clusters > 50, "some plans were never made");
}

TEST("only what is long is shared") {
    Tiles tiles{};
    std::vector<int32_t> work(120, 20);
    std::fill_n(work.begin(), 10, 100);
    tiles.count = static_cast<int32_t>(work.size());
    const Plan plan = balanced_plan({2, 1 << 20, 132}, 4, tiles, 2, [&](int32_t tile) { return work[tile]; });
    expect(plan.cluster == 2 && plan.shared == 20, "20 of 240 pairs take twice as long as a multiprocessor has to do");
}
