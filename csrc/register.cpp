// Every operator of rpcnn on one screen. Kernels register themselves beside their code: csrc/cpu/<op>.cpp for
// the CPU, csrc/cuda/<op>.cu for CUDA. Fake kernels, autograd and the plain-PyTorch definitions are in
// rpcnn/ops/<op>.py. All of it goes through PyTorch's stable ABI: one build serves every torch from 2.11 on.
#include <Python.h>
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(rpcnn, m) {
  m.def(
      "roi_align(Tensor input, Tensor boxes, float spatial_scale, SymInt output_height, SymInt output_width, "
      "int sampling_ratio, bool aligned) -> Tensor");
  m.def(
      "roi_align_backward(Tensor grad, Tensor boxes, float spatial_scale, SymInt batch, SymInt height, "
      "SymInt width, int sampling_ratio, bool aligned, bool channels_last) -> Tensor");
  m.def(
      "multilevel_roi_align(Tensor[] features, Tensor boxes, float[] spatial_scales, SymInt output_height, "
      "SymInt output_width, int sampling_ratio, bool aligned, float canonical_size, int canonical_level, "
      "float area_offset) -> Tensor");
  m.def(
      "multilevel_roi_align_backward(Tensor grad, Tensor boxes, float[] spatial_scales, SymInt batch, "
      "SymInt[] heights, SymInt[] widths, int sampling_ratio, bool aligned, float canonical_size, "
      "int canonical_level, float area_offset, bool channels_last) -> Tensor[]");
  m.def("nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, int max_keep) -> Tensor");
  m.def(
      "nms_padded(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, SymInt max_keep) -> "
      "(Tensor, Tensor)");
  m.def("grid_anchors(Tensor cells, SymInt[] strides, SymInt[] heights, SymInt[] widths) -> Tensor");
  m.def(
      "decode_proposals(Tensor[] deltas, Tensor[] best, Tensor anchors, SymInt[] heights, SymInt[] widths, "
      "int min_size) -> (Tensor, Tensor)");
  m.def(
      "match_boxes(Tensor boxes, Tensor gt_boxes, float positive, float negative, bool promote_best, SymInt height, "
      "SymInt width) -> Tensor");
  m.def(
      "draw_samples(Tensor matched, Tensor keys, SymInt count, SymInt max_positive, bool negatives) -> "
      "(Tensor, Tensor)");
  m.def(
      "encode_boxes(Tensor gt_boxes, Tensor references, Tensor matched, float center_weight, float size_weight) -> "
      "Tensor");
  m.def("upsample_sum(Tensor[] features, bool align_corners, bool relu) -> Tensor");
  m.def("upsample_sum_backward(Tensor grad, Tensor[] features, bool align_corners, bool relu) -> Tensor[]");
  m.def(
      "gse_fuse(Tensor[] features, Tensor[] gn_weights, Tensor[] gn_biases, int num_groups, float eps, "
      "bool align_corners) -> (Tensor, Tensor, Tensor)");
  m.def(
      "gse_fuse_backward(Tensor grad, Tensor[] features, Tensor[] gn_weights, Tensor[] gn_biases, Tensor mean, "
      "Tensor rstd, int num_groups, bool align_corners) -> (Tensor[], Tensor[], Tensor[])");
  m.def(
      "group_norm(Tensor input, Tensor weight, Tensor bias, int num_groups, float eps, bool relu, Tensor? residual) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "group_norm_backward(Tensor grad, Tensor input, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, "
      "int num_groups, bool relu, Tensor? residual) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("downsample_add(Tensor feature, Tensor[] pyramid) -> Tensor[]");
  m.def("downsample_add_backward(Tensor[] grads, SymInt height, SymInt width) -> Tensor");
  m.def("parsing_miou(Tensor logits_or_labels, Tensor target, int num_classes, int ignore_index) -> Tensor");
  m.def(
      "parsing_loss(Tensor logits, Tensor target, int pool, bool pool_logits, int ignore_index) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "parsing_loss_backward(Tensor? grad_loss, Tensor? grad_pooled, Tensor logits, Tensor target, Tensor log_sum, "
      "Tensor largest, int pool, bool pool_logits, int ignore_index) -> Tensor");
  m.def(
      "paste_parsing(Tensor probabilities, Tensor boxes, Tensor painted, Tensor? semantic, float semantic_height, "
      "float semantic_width, SymInt height, SymInt width, float semantic_weight, float semantic_gate, "
      "bool paint_labels, bool with_people) -> (Tensor, Tensor, Tensor)");
}

// Importing rpcnn._C runs the registrations above; the module itself is empty.
PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
