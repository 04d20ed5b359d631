// parsing_loss: with m = max_k x_k and Z = Σ_k exp(x_k − m) of each pixel, per valid pixel of class y the cross entropy
// log Z − (x_y − m), the counts of parsing_miou, and per cell the maximum of p_k = exp(x_k − m) / Z. Its gradient:
// g_k = p_k (a [valid] − Σ_j p_j b_j) + p_k b_k − a [valid, k = y], where a is the gradient of the sum and b_k that of
// the maximum where this pixel is it, else 0.
//
// Fewest bytes, 16 RoIs × 20 classes × 128², float32: forward 21 MB of logits in, 1.3 MB of maxima and 1 MB of log Z +
// m out; backward 23 MB in, 21 MB out. PyTorch's ops move 185 MB forward and 279 MB backward. Not timed yet.
//
// By tiles of few cells, whose planes of all classes stay in the L1 cache. Within a tile the pixels are ordered by
// their place in the cell first and by cell second, so that the maximum over a cell runs over vectors of cells, in the
// order of PyTorch's max_pool2d. exp and log are those of exponential.h, in vectors. A maximum is rarely hit: the
// gradient of each is added to one pixel, and all others only scale p_k by a [valid] − Σ_j p_j b_j.
#include <optional>
#include <tuple>

#include "class_maps.h"
#include "exponential.h"

namespace rpcnn {
namespace {

// planes := exp(planes − shift), sum[i] = Σ_k of them.
template <typename A>
RPCNN_CLONES void exponentials(A* __restrict planes, int64_t K, int64_t count, const A* __restrict shift,
                               A* __restrict sum) {
  for (int64_t i = 0; i < count; ++i) sum[i] = A(0);
  for (int64_t k = 0; k < K; ++k) {
    A* plane = planes + k * count;
    for (int64_t i = 0; i < count; ++i) {
      plane[i] = exp_of(plane[i] - shift[i]);
      sum[i] += plane[i];
    }
  }
}

// From Z and m: 1 / Z, log Z and log Z + m.
template <typename A>
RPCNN_CLONES void logarithms(const A* __restrict sum, const A* __restrict shift, int64_t count, A* __restrict inverse,
                             A* __restrict log, A* __restrict log_sum) {
  for (int64_t i = 0; i < count; ++i) {
    inverse[i] = A(1) / sum[i];
    log[i] = log_of(sum[i]);
    log_sum[i] = log[i] + shift[i];
  }
}

// best[j] = the largest plane · scale of cell j over its places, which[j] = the first such place, or the last NaN's.
template <typename A>
RPCNN_CLONES void largest_of_cells(const A* __restrict plane, const A* __restrict scale, int64_t places, int64_t cells,
                                   A* __restrict best, int32_t* __restrict which) {
  for (int64_t j = 0; j < cells; ++j) best[j] = -std::numeric_limits<A>::infinity(), which[j] = 0;
  for (int64_t place = 0; place < places; ++place)
    for (int64_t j = 0; j < cells; ++j) {
      const A value = plane[place * cells + j] * scale[place * cells + j];
      const bool more = (value > best[j]) | (value != value);
      which[j] = more ? int32_t(place) : which[j];
      best[j] = more ? value : best[j];
    }
}

template <typename A>
RPCNN_CLONES void scale_planes(A* __restrict planes, int64_t K, int64_t count, const A* __restrict scale) {
  for (int64_t k = 0; k < K; ++k)
    for (int64_t i = 0; i < count; ++i) planes[k * count + i] *= scale[i];
}

// to[i] = from[i · from_step] or to[i · to_step] = from[i].
template <typename T, typename A>
RPCNN_CLONES void gather(const T* from, int64_t step, int64_t count, A* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = A(from[i * step]);
}
template <typename T, typename A>
RPCNN_CLONES void scatter(const A* from, int64_t count, T* to, int64_t step) {
  for (int64_t i = 0; i < count; ++i) to[i * step] = T(from[i]);
}

// The sizes of one call, and how its cells are cut into tiles.
struct Cells {
  int64_t R, K, H, W, pool, rows, columns;  // rows and columns of cells
  int64_t places, tile;                     // pixels of a cell, most cells of a tile
  bool channels_last;

  Cells(const Tensor& logits, int64_t pool)
      : R(logits.size(0)),
        K(logits.size(1)),
        H(logits.size(2)),
        W(logits.size(3)),
        pool(pool),
        rows(H / pool),
        columns(W / pool),
        places(pool * pool),
        tile(std::min(columns, std::max(kLanes, pixels_in_cache(K) / places / kLanes * kLanes))),
        channels_last(is_channels_last(logits)) {}
};

// One tile: `count` cells side by side, from cell (row, column) of a RoI.
struct Tile {
  const Cells& cells;
  int64_t roi, row, column, count;

  int64_t pixels() const { return cells.places * count; }
  // f(first pixel of the RoI's map, first pixel of the tile's order) for each place; pixels are `pool` and 1 apart.
  template <typename F>
  void for_places(const F& f) const {
    for (int64_t place = 0; place < cells.places; ++place)
      f((row * cells.pool + place / cells.pool) * cells.W + column * cells.pool + place % cells.pool, place * count);
  }
  // planes [K][pixels] in the tile's order.
  template <typename T, typename A>
  void load(const T* logits, A* planes) const {
    const T* map = logits + roi * cells.K * cells.H * cells.W;
    for_places([&](int64_t from, int64_t to) {
      if (cells.channels_last)
        return planes_of<T, A>(map + from * cells.K, cells.pool * cells.K, cells.K, count, planes + to, pixels());
      for (int64_t k = 0; k < cells.K; ++k)
        gather(map + k * cells.H * cells.W + from, cells.pool, count, planes + k * pixels() + to);
    });
  }
  template <typename T, typename A>
  void store(const A* planes, T* logits) const {
    T* map = logits + roi * cells.K * cells.H * cells.W;
    for_places([&](int64_t to, int64_t from) {
      if (cells.channels_last)
        return pixels_of<T, A>(planes + from, pixels(), cells.K, count, map + to * cells.K, cells.pool * cells.K);
      for (int64_t k = 0; k < cells.K; ++k)
        scatter(planes + k * pixels() + from, count, map + k * cells.H * cells.W + to, cells.pool);
    });
  }
  // The same for one number a pixel.
  template <typename T, typename A>
  void load_pixels(const T* map, A* to) const {
    for_places(
        [&](int64_t from, int64_t at) { gather(map + roi * cells.H * cells.W + from, cells.pool, count, to + at); });
  }
  template <typename T, typename A>
  void store_pixels(const A* from, T* map) const {
    for_places(
        [&](int64_t to, int64_t at) { scatter(from + at, count, map + roi * cells.H * cells.W + to, cells.pool); });
  }
  // Labels; -1 where they are no class or ignored.
  void load_labels(const uint8_t* target, int64_t ignored, int32_t* to) const {
    load_pixels(target, to);
    for (int64_t i = 0; i < pixels(); ++i)
      if (to[i] >= cells.K || to[i] == ignored) to[i] = -1;
  }
  // Of class k of the tile's cells, in pooled maps: the first, and the distance of neighbors.
  int64_t cell(int64_t k) const {
    const int64_t plane = cells.rows * cells.columns, first = row * cells.columns + column;
    return roi * cells.K * plane + (cells.channels_last ? first * cells.K + k : k * plane + first);
  }
  int64_t cell_step() const { return cells.channels_last ? cells.K : 1; }
};

// f(tile) for the tiles of one row of cells.
template <typename F>
void for_tiles(const Cells& cells, int64_t roi, int64_t row, const F& f) {
  for (int64_t column = 0; column < cells.columns; column += cells.tile)
    f(Tile{cells, roi, row, column, std::min(cells.tile, cells.columns - column)});
}

void check(const Tensor& logits, const Tensor& target, int64_t pool) {
  STD_TORCH_CHECK(logits.dim() == 4 && logits.is_cpu() && logits.size(1) > 0 && logits.size(1) <= 256,
                  "parsing_loss: logits must be [R, K, H, W] of 1 to 256 classes on the CPU");
  STD_TORCH_CHECK(target.dim() == 3 && target.is_cpu() && target.scalar_type() == ScalarType::Byte &&
                      target.size(0) == logits.size(0) && target.size(1) == logits.size(2) &&
                      target.size(2) == logits.size(3),
                  "parsing_loss: target must be uint8 [R, H, W] of the logits' sizes on the CPU");
  STD_TORCH_CHECK(pool > 0 && pool <= 16 && logits.size(2) > 0 && logits.size(3) > 0 && logits.size(2) % pool == 0 &&
                      logits.size(3) % pool == 0,
                  "parsing_loss: pool must be 1 to 16 and divide height and width, got ", pool);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> parsing_loss(Tensor logits, Tensor target, int64_t pool,
                                                                        bool pool_logits, int64_t ignore_index) {
  check(logits, target, pool);
  const Cells cells(logits, pool);
  const Tensor source = dense(logits, cells.channels_last), truth = dense(target, false);
  const int64_t R = cells.R, K = cells.K;
  const ScalarType dtype = logits.scalar_type();
  const ScalarType wide = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const Tensor loss = empty_cpu({}, wide), valid = empty_cpu({R}, ScalarType::Long);
  const Tensor miou = empty_cpu({R}, ScalarType::Float), log_sum = empty_cpu({R, cells.H, cells.W}, wide);
  const Tensor pooled = empty_cpu({R, K, cells.rows, cells.columns}, dtype, cells.channels_last);
  const Tensor largest = empty_cpu({R, K, cells.rows, cells.columns}, ScalarType::Byte, cells.channels_last);
  std::vector<double> losses(R);
  dispatch_floating("parsing_loss", dtype, [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const T* from = source.const_data_ptr<T>();
    const uint8_t* labels = truth.const_data_ptr<uint8_t>();
    parallel(R, 1, [&](int64_t begin, int64_t end) {
      const int64_t most = cells.places * cells.tile;
      std::vector<A> planes(K * most), best(most), sum(most), scale(most, A(1)), log(most), logs(most), picked(most);
      std::vector<A> top(cells.tile);
      std::vector<int32_t> truths(most), label(most), place(cells.tile);
      for (int64_t roi = begin; roi < end; ++roi) {
        Counts counts(K);
        double total = 0;
        const auto do_tile = [&](const Tile& tile) {
          const int64_t count = tile.pixels();
          tile.load(from, planes.data());
          tile.load_labels(labels, ignore_index, truths.data());
          argmax_planes<A, A>(planes.data(), K, count, count, best.data(), label.data());
          counts.add(label.data(), truths.data(), count);
          for (int64_t i = 0; i < count; ++i)
            picked[i] = truths[i] < 0 ? A(0) : planes[truths[i] * count + i] - best[i];
          const auto pool_planes = [&] {
            for (int64_t k = 0; k < K; ++k) {
              const A* plane = planes.data() + k * count;
              largest_of_cells(plane, scale.data(), cells.places, tile.count, top.data(), place.data());
              scatter(top.data(), tile.count, pooled.mutable_data_ptr<T>() + tile.cell(k), tile.cell_step());
              scatter(place.data(), tile.count, largest.mutable_data_ptr<uint8_t>() + tile.cell(k), tile.cell_step());
            }
          };
          if (pool_logits) pool_planes();
          exponentials(planes.data(), K, count, best.data(), sum.data());
          logarithms(sum.data(), best.data(), count, pool_logits ? sum.data() : scale.data(), log.data(), logs.data());
          if (!pool_logits) pool_planes();
          for (int64_t i = 0; i < count; ++i)
            if (truths[i] >= 0) total += double(log[i] - picked[i]);
          tile.store_pixels(logs.data(), log_sum.mutable_data_ptr<A>());
        };
        for (int64_t row = 0; row < cells.rows; ++row) for_tiles(cells, roi, row, do_tile);
        losses[roi] = total;
        valid.mutable_data_ptr<int64_t>()[roi] = counts.pixels();
        miou.mutable_data_ptr<float>()[roi] = counts.mean_iou();
      }
    });
    double total = 0;
    for (const double one : losses) total += one;
    *loss.mutable_data_ptr<A>() = A(total);
  });
  return {loss, valid, miou, pooled, log_sum, largest};
}

Tensor parsing_loss_backward(std::optional<Tensor> grad_loss, std::optional<Tensor> grad_pooled, Tensor logits,
                             Tensor target, Tensor log_sum, Tensor largest, int64_t pool, bool pool_logits,
                             int64_t ignore_index) {
  check(logits, target, pool);
  const Cells cells(logits, pool);
  const int64_t K = cells.K;
  const bool last = cells.channels_last;
  const ScalarType dtype = logits.scalar_type();
  const ScalarType wide = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(!grad_loss || (grad_loss->numel() == 1 && grad_loss->scalar_type() == wide && grad_loss->is_cpu()),
                  "parsing_loss_backward: grad_loss must be one number of the loss's dtype on the CPU");
  const auto covers_cells = [&](const Tensor& t, ScalarType type) {
    return t.is_cpu() && t.scalar_type() == type && t.dim() == 4 && t.size(0) == cells.R && t.size(1) == K &&
           t.size(2) == cells.rows && t.size(3) == cells.columns;
  };
  STD_TORCH_CHECK(!grad_pooled || covers_cells(*grad_pooled, dtype),
                  "parsing_loss_backward: grad_pooled must be [R, K, H / pool, W / pool] in the logits' dtype");
  STD_TORCH_CHECK(covers_cells(largest, ScalarType::Byte) && log_sum.scalar_type() == wide &&
                      log_sum.numel() == target.numel() && log_sum.is_cpu(),
                  "parsing_loss_backward: log_sum and largest must be those of parsing_loss");
  const Tensor source = dense(logits, last), truth = dense(target, false), logs = dense(log_sum, false);
  const Tensor places = dense(largest, last);
  std::optional<Tensor> grads;
  if (grad_pooled) grads = dense(*grad_pooled, last);
  const Tensor out = empty_cpu(sizes_of(logits), dtype, last);
  dispatch_floating("parsing_loss_backward", dtype, [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const A grad = grad_loss ? *grad_loss->const_data_ptr<A>() : A(0);
    const uint8_t* winners = places.const_data_ptr<uint8_t>();
    const int32_t last_place = int32_t(cells.places) - 1;  // `largest` is an argument: it may name a place outside
    parallel(cells.R * cells.rows, 1, [&](int64_t begin, int64_t end) {
      const int64_t most = cells.places * cells.tile;
      std::vector<A> planes(K * most), shift(most), sum(most), scale(most), hits(K * cells.tile);
      std::vector<int32_t> truths(most), place(K * cells.tile);
      const auto do_tile = [&](const Tile& tile) {
        const int64_t count = tile.pixels();
        tile.load(source.const_data_ptr<T>(), planes.data());
        tile.load_labels(truth.const_data_ptr<uint8_t>(), ignore_index, truths.data());
        tile.load_pixels(logs.const_data_ptr<A>(), shift.data());
        exponentials(planes.data(), K, count, shift.data(), sum.data());
        for (int64_t i = 0; i < count; ++i) scale[i] = truths[i] < 0 ? A(0) : grad;
        for (int64_t k = 0; grads && k < K; ++k) {
          A* hit = hits.data() + k * tile.count;
          int32_t* at = place.data() + k * tile.count;
          gather(grads->const_data_ptr<T>() + tile.cell(k), tile.cell_step(), tile.count, hit);
          gather(winners + tile.cell(k), tile.cell_step(), tile.count, at);
          for (int64_t j = 0; j < tile.count; ++j) {
            at[j] = std::min(at[j], last_place) * int32_t(tile.count) + int32_t(j);
            if (pool_logits) continue;
            hit[j] *= planes[k * count + at[j]];
            scale[at[j]] -= hit[j];
          }
        }
        scale_planes(planes.data(), K, count, scale.data());
        for (int64_t k = 0; grads && k < K; ++k)
          for (int64_t j = 0; j < tile.count; ++j)
            planes[k * count + place[k * tile.count + j]] += hits[k * tile.count + j];
        for (int64_t i = 0; i < count; ++i)
          if (truths[i] >= 0) planes[truths[i] * count + i] -= grad;
        tile.store(planes.data(), out.mutable_data_ptr<T>());
      };
      for (int64_t i = begin; i < end; ++i) for_tiles(cells, i / cells.rows, i % cells.rows, do_tile);
    });
  });
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("parsing_loss", TORCH_BOX(&parsing_loss));
  m.impl("parsing_loss_backward", TORCH_BOX(&parsing_loss_backward));
}

}  // namespace
}  // namespace rpcnn
