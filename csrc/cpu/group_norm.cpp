// group_norm: act(γ rstd (x − mean) + β [+ residual]), act = ReLU or nothing, and its gradient.
//
// Forward: Σ(x − k) and Σ(x − k)² of every channel, k being its first pixel, so that a large mean does not cancel; then
// one pass. Backward, e being the gradient where the ReLU passes it: Σe and Σe (x − mean) of every channel; then, with
// m = channels of a group · pixels,
//   dβ = Σe,  dγ = rstd Σe (x − mean),  s = Σ_group γ dβ,  t = Σ_group γ Σe (x − mean),
//   dx = γ rstd e − rstd s / m − rstd³ t / m (x − mean).
// Sums and threads are those of group_statistics.h.
//
// Fewest bytes: forward the map read twice and written once, backward map and gradient read twice, one map written.
#include "group_norm.h"

#include "group_statistics.h"
#include "pyramid_level.h"

namespace rpcnn {
namespace {

using Shape = GroupedMap;

Shape shape_of(const Tensor& x, int64_t groups, bool channels_last) {
  return {x.size(0), x.size(1), groups, x.size(2) * x.size(3), channels_last};
}

// The values of every image and channel, [N · C] each. Backward: constant and slope of dx, too.
template <typename A>
struct PerChannel {
  std::vector<A> center, scale, shift, constant, slope;

  PerChannel(const Shape& s, const A* mean, const A* rstd, const A* gamma, const A* beta)
      : center(s.N * s.C), scale(s.N * s.C), shift(s.N * s.C) {
    for (int64_t n = 0; n < s.N; ++n)
      for (int64_t c = 0; c < s.C; ++c) {
        const int64_t g = n * s.G + c / s.group(), i = n * s.C + c;
        center[i] = mean[g], scale[i] = gamma[c] * rstd[g], shift[i] = beta[c];
      }
  }
};

template <typename A>
struct UnitChannels {
  UnitValues<A> center, scale, shift, constant, slope;
  UnitChannels(const Shape& s, const Unit& unit, const PerChannel<A>& all)
      : center(s, unit, all.center),
        scale(s, unit, all.scale),
        shift(s, unit, all.shift),
        constant(s, unit, all.constant),
        slope(s, unit, all.slope) {}
};

template <typename T, typename A, bool kRelu, bool kResidual, int64_t kInner>
RPCNN_CLONES void normalize(const T* x, const T* residual, const A* center, const A* scale, const A* shift,
                            T* __restrict out, int64_t pixels, int64_t channels) {
  const int64_t inner = kInner ? kInner : channels;
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t i = p * inner + k;
      A u = scale[k] * (A(x[i]) - center[k]) + shift[k];
      if constexpr (kResidual) u += A(residual[i]);
      out[i] = T(activate<A, kRelu>(u));
    }
}

// The gradient of one element where the ReLU passes it.
template <typename T, typename A, bool kRelu, bool kResidual>
inline __attribute__((always_inline)) A masked(A gradient, A q, A scale, A shift, const T* residual, int64_t i) {
  if constexpr (!kRelu) return gradient;
  A u = scale * q + shift;
  if constexpr (kResidual) u += A(residual[i]);
  return passes_gradient(u) ? gradient : A(0);
}

// first[k] += Σe, second[k] += Σe (x − center[k]).
template <typename T, typename A, bool kRelu, bool kResidual, int64_t kInner>
RPCNN_CLONES void add_dots(const T* x, const T* grad, const T* residual, const A* center, const A* scale,
                           const A* shift, double* __restrict first, double* __restrict second, int64_t pixels,
                           int64_t channels) {
  const int64_t inner = kInner ? kInner : channels;
  int64_t p = 0;
  for (; p + 4 <= pixels; p += 4)
    for (int64_t k = 0; k < inner; ++k) {
      A one = 0, two = 0;
#pragma GCC unroll 4
      for (int64_t r = 0; r < 4; ++r) {
        const int64_t i = (p + r) * inner + k;
        const A q = A(x[i]) - center[k];
        const A e = masked<T, A, kRelu, kResidual>(A(grad[i]), q, scale[k], shift[k], residual, i);
        one += e, two += e * q;
      }
      first[k] += double(one), second[k] += double(two);
    }
  for (; p < pixels; ++p)
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t i = p * inner + k;
      const A q = A(x[i]) - center[k];
      const A e = masked<T, A, kRelu, kResidual>(A(grad[i]), q, scale[k], shift[k], residual, i);
      first[k] += double(e), second[k] += double(e * q);
    }
}

template <typename T, typename A, bool kRelu, bool kResidual, int64_t kInner>
RPCNN_CLONES void gradients(const T* x, const T* grad, const T* residual, const A* center, const A* scale,
                            const A* shift, const A* constant, const A* slope, T* __restrict grad_x,
                            T* __restrict grad_residual, int64_t pixels, int64_t channels) {
  const int64_t inner = kInner ? kInner : channels;
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t i = p * inner + k;
      const A q = A(x[i]) - center[k];
      const A e = masked<T, A, kRelu, kResidual>(A(grad[i]), q, scale[k], shift[k], residual, i);
      grad_x[i] = T(scale[k] * e - constant[k] - slope[k] * q);
      if constexpr (kRelu && kResidual) grad_residual[i] = T(e);
    }
}

// f(kRelu, kResidual) with both as constants.
template <typename F>
void choose(bool relu, bool residual, const F& f) {
  if (relu)
    residual ? f(std::true_type{}, std::true_type{}) : f(std::true_type{}, std::false_type{});
  else
    residual ? f(std::false_type{}, std::true_type{}) : f(std::false_type{}, std::false_type{});
}

template <typename F>
void in_units(const Shape& s, const F& f) {
  parallel(s.units(), std::max<int64_t>(1, 4096 * s.units() / (s.N * s.C * s.pixels)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(Unit(s, i));
  });
}

void check_inputs(const char* op, const Tensor& input, const Tensor& weight, const Tensor& bias, int64_t num_groups,
                  const std::optional<Tensor>& residual) {
  STD_TORCH_CHECK(input.dim() == 4 && input.is_cpu() && input.size(2) > 0 && input.size(3) > 0, op,
                  ": input must be a map [N, C, H, W] with at least one pixel, on the CPU");
  STD_TORCH_CHECK(num_groups > 0 && input.size(1) % num_groups == 0, op, ": num_groups must divide ", input.size(1),
                  ", got ", num_groups);
  const auto dtype = input.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const Tensor* v : {&weight, &bias})
    STD_TORCH_CHECK(v->dim() == 1 && v->size(0) == input.size(1) && v->scalar_type() == dtype && v->is_cpu(), op,
                    ": weight and bias must be [C] vectors on the CPU, float64 with a float64 input, else float32");
  if (residual)
    STD_TORCH_CHECK(residual->dim() == 4 && sizes_of(*residual) == sizes_of(input) && residual->is_cpu() &&
                        residual->scalar_type() == input.scalar_type(),
                    op, ": residual must have the input's shape, dtype and device");
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> group_norm(Tensor input, Tensor weight, Tensor bias, int64_t num_groups, double eps,
                                              bool relu, std::optional<Tensor> residual) {
  check_inputs("group_norm", input, weight, bias, num_groups, residual);
  const bool channels_last = is_channels_last(input);
  const Tensor x = dense(input, channels_last), gamma = torch::stable::contiguous(weight),
               beta = torch::stable::contiguous(bias), onto = residual ? dense(*residual, channels_last) : x;
  const Shape s = shape_of(x, num_groups, channels_last);
  Tensor out = empty_cpu(sizes_of(x), x.scalar_type(), channels_last);
  Tensor mean = empty_cpu({s.N, num_groups}, gamma.scalar_type()),
         rstd = empty_cpu({s.N, num_groups}, gamma.scalar_type());
  if (x.numel() == 0) return {out, mean, rstd};
  dispatch_floating("group_norm", x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const T *data = x.const_data_ptr<T>(), *other = onto.const_data_ptr<T>();
    A *m = mean.mutable_data_ptr<A>(), *r = rstd.mutable_data_ptr<A>();
    T* target = out.mutable_data_ptr<T>();
    group_statistics(data, s, eps, s.G, m, r);
    const PerChannel<A> all(s, m, r, gamma.const_data_ptr<A>(), beta.const_data_ptr<A>());
    choose(relu, residual.has_value(), [&](auto with_relu, auto with_residual) {
      in_units(s, [&](const Unit& unit) {
        const UnitChannels<A> own(s, unit, all);
        as_rows(s, unit, [&](auto inner, int64_t at, int64_t pixels, int64_t channels) {
          normalize<T, A, decltype(with_relu)::value, decltype(with_residual)::value, decltype(inner)::value>(
              data + at, other + at, own.center, own.scale, own.shift, target + at, pixels, channels);
        });
      });
    });
  });
  return {out, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> group_norm_backward(Tensor grad, Tensor input, Tensor weight, Tensor bias,
                                                               Tensor mean, Tensor rstd, int64_t num_groups, bool relu,
                                                               std::optional<Tensor> residual) {
  check_inputs("group_norm_backward", input, weight, bias, num_groups, residual);
  STD_TORCH_CHECK(grad.dim() == 4 && sizes_of(grad) == sizes_of(input) && grad.is_cpu() &&
                      grad.scalar_type() == input.scalar_type(),
                  "group_norm_backward: grad must have the shape, dtype and device of input");
  for (const Tensor* t : {&mean, &rstd})
    STD_TORCH_CHECK(t->numel() == input.size(0) * num_groups && t->scalar_type() == weight.scalar_type() &&
                        t->is_contiguous() && t->is_cpu(),
                    "group_norm_backward: mean and rstd must be [N, groups] as group_norm returned them");
  const bool channels_last = is_channels_last(input), masks_residual = relu && residual;
  const Tensor x = dense(input, channels_last), gamma = torch::stable::contiguous(weight),
               beta = torch::stable::contiguous(bias), onto = residual ? dense(*residual, channels_last) : x,
               g = dense(grad, channels_last);
  const Shape s = shape_of(x, num_groups, channels_last);
  Tensor grad_input = empty_cpu(sizes_of(x), x.scalar_type(), channels_last);
  Tensor grad_residual =
      masks_residual ? empty_cpu(sizes_of(x), x.scalar_type(), channels_last) : empty_cpu({0}, x.scalar_type());
  Tensor grad_weight = empty_cpu({s.C}, gamma.scalar_type()), grad_bias = empty_cpu({s.C}, gamma.scalar_type());
  if (x.numel() == 0)
    return {grad_input, torch::stable::fill_(grad_weight, 0), torch::stable::fill_(grad_bias, 0), grad_residual};
  dispatch_floating("group_norm_backward", x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = accumulate_t<T>;
    const T *data = x.const_data_ptr<T>(), *other = onto.const_data_ptr<T>(), *source = g.const_data_ptr<T>();
    T *target = grad_input.mutable_data_ptr<T>(), *target_residual = grad_residual.mutable_data_ptr<T>();
    const A *m = mean.const_data_ptr<A>(), *r = rstd.const_data_ptr<A>(), *weights = gamma.const_data_ptr<A>();
    A *d_gamma = grad_weight.mutable_data_ptr<A>(), *d_beta = grad_bias.mutable_data_ptr<A>();
    PerChannel<A> all(s, m, r, weights, beta.const_data_ptr<A>());
    choose(relu, masks_residual, [&](auto with_relu, auto with_residual) {
      constexpr bool kRelu = decltype(with_relu)::value, kResidual = decltype(with_residual)::value;
      const auto sums = sums_of_units(s, [&](const Unit& unit, double* first, double* second) {
        const UnitChannels<A> own(s, unit, all);
        as_rows(s, unit, [&](auto inner, int64_t at, int64_t pixels, int64_t channels) {
          add_dots<T, A, kRelu, kResidual, decltype(inner)::value>(
              data + at, source + at, other + at, own.center, own.scale, own.shift, first, second, pixels, channels);
        });
      });
      all.constant.resize(s.N * s.C), all.slope.resize(s.N * s.C);
      std::vector<double> to_gamma(s.C, 0), to_beta(s.C, 0);
      for (int64_t n = 0; n < s.N; ++n)
        for (int64_t group = 0; group < s.G; ++group) {
          const double scale = double(r[n * s.G + group]);
          const int64_t begin = group * s.group(), end = begin + s.group();
          double one = 0, two = 0;
          for (int64_t c = begin; c < end; ++c) {
            double first, second;
            channel_sums(s, sums, n, c, &first, &second);
            to_beta[c] += first, to_gamma[c] += scale * second;
            one += double(weights[c]) * first, two += double(weights[c]) * second;
          }
          for (int64_t i = n * s.C + begin; i < n * s.C + end; ++i) {
            all.constant[i] = A(scale * one / s.count());
            all.slope[i] = A(scale * scale * scale * two / s.count());
          }
        }
      for (int64_t c = 0; c < s.C; ++c) d_gamma[c] = A(to_gamma[c]), d_beta[c] = A(to_beta[c]);
      in_units(s, [&](const Unit& unit) {
        const UnitChannels<A> own(s, unit, all);
        as_rows(s, unit, [&](auto inner, int64_t at, int64_t pixels, int64_t channels) {
          gradients<T, A, kRelu, kResidual, decltype(inner)::value>(
              data + at, source + at, other + at, own.center, own.scale, own.shift, own.constant, own.slope,
              target + at, target_residual + (kResidual ? at : 0), pixels, channels);
        });
      });
    });
  });
  return {grad_input, grad_weight, grad_bias, grad_residual};
}

namespace {

STABLE_TORCH_LIBRARY_IMPL(rpcnn, CPU, m) {
  m.impl("group_norm", TORCH_BOX(&group_norm));
  m.impl("group_norm_backward", TORCH_BOX(&group_norm_backward));
}

}  // namespace
}  // namespace rpcnn
