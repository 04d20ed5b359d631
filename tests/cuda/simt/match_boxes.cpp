#include "match_boxes_kernel.cuh"

#include <cstring>
#include <memory>

#include "exports.h"

// A copy that starts where `Corners` must, and ends where an overrun is seen.
template <typename T>
static std::unique_ptr<rpcnn::Corners<T>[]> corners(const void* from, int64_t n) {
  std::unique_ptr<rpcnn::Corners<T>[]> out(new rpcnn::Corners<T>[n]);
  memcpy(out.get(), from, n * sizeof(rpcnn::Corners<T>));
  return out;
}

SIMT_EXPORT match_boxes(int64_t dtype, const void* boxes, int64_t n, const void* gt_boxes, int64_t G,
                        const double* thresholds, bool promote_best, int64_t height, int64_t width, int64_t* matched) {
  return simt_run([&] {
    const auto run = [&](auto type) {
      using T = decltype(type);
      const auto own = corners<T>(boxes, n), truth = corners<T>(gt_boxes, G);
      std::unique_ptr<T[]> best(new T[promote_best ? G * rpcnn::match_pieces(n) : 0]);
      const rpcnn::MatchRule<T> rule{T(thresholds[0]), T(thresholds[1]), promote_best,
                                     height >= 0,      T(height),        T(width)};
      rpcnn::launch_match_boxes<T>(own.get(), n, truth.get(), G, best.get(), rule, matched, nullptr);
    };
    dtype == 1 ? run(double{}) : run(float{});
  });
}
