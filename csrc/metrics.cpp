// rpcnn._metrics: the evaluator's counting core. numpy in, numpy out, no torch; the GIL is released while it counts.
//
// Fewest bytes: two bytes read per pixel. Four tables take turns, so that neighbouring pixels of one kind do not wait
// for each other's increment.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace py = pybind11;

namespace {

using Labels = py::array_t<uint8_t, py::array::c_style>;

py::array_t<int64_t> joint_histogram(const Labels& truth, const Labels& prediction) {
  if (truth.size() != prediction.size()) throw py::value_error("joint_histogram: truth and prediction differ in size");
  py::array_t<int64_t> out({256, 256});
  const uint8_t *t = truth.data(), *p = prediction.data();
  int64_t* counts = out.mutable_data();
  const int64_t pixels = truth.size();
  {
    py::gil_scoped_release release;
    std::vector<int64_t> tables(4 * 65536, 0);
    for (int64_t i = 0; i < pixels; ++i) ++tables[(i & 3) * 65536 + t[i] * 256 + p[i]];
    for (int64_t k = 0; k < 65536; ++k)
      counts[k] = tables[k] + tables[65536 + k] + tables[2 * 65536 + k] + tables[3 * 65536 + k];
  }
  return out;
}

}  // namespace

PYBIND11_MODULE(_metrics, m) {
  m.doc() = "Counting for rpcnn.metrics.";
  m.def("joint_histogram", &joint_histogram, py::arg("truth").noconvert(), py::arg("prediction").noconvert(),
        "int64 [256, 256] counts of (truth, prediction) pairs of two uint8 arrays of one size.");
}
