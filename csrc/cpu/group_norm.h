// group_norm and its gradient, for other ops.
#pragma once

#include <optional>
#include <tuple>

#include "../tensors.h"

namespace rpcnn {

// out, mean and rstd [N, groups].
std::tuple<Tensor, Tensor, Tensor> group_norm(Tensor input, Tensor weight, Tensor bias, int64_t num_groups, double eps,
                                              bool relu, std::optional<Tensor> residual);

// The gradients of input, weight, bias and, where the ReLU masks one, residual.
std::tuple<Tensor, Tensor, Tensor, Tensor> group_norm_backward(Tensor grad, Tensor input, Tensor weight, Tensor bias,
                                                               Tensor mean, Tensor rstd, int64_t num_groups, bool relu,
                                                               std::optional<Tensor> residual);

}  // namespace rpcnn
