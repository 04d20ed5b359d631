// rpcnn._labelmaps: label maps from files, and the boxes around people. numpy in, numpy out, no torch; the GIL is
// released while pixels are read or written.
#include <string>
#include <string_view>
#include <vector>

#include "arrays.h"
#include "boxes.h"
#include "png.h"
#include "resize.h"
#include "run_lengths.h"

namespace {

using namespace rpcnn::labelmaps;

py::array_t<double> boxes(const py::array& label_map, const py::array& person_numbers, int64_t count) {
  const NumberedPersonMaps people = numbered_person_maps("boxes", "person_maps", label_map, person_numbers, count);
  py::array_t<double> out({count, int64_t{4}});
  double* corners = out.mutable_data();
  {
    py::gil_scoped_release release;
    std::vector<Box> found(count);
    people.with_numbers([&](const auto* numbers) {
      enclose_people(people.label_map.data(), numbers, count, people.height, people.width, found.data());
    });
    for (int64_t n = 0; n < count; ++n) found[n].write(corners + 4 * n);
  }
  return out;
}

LabelArray unfilter_png(const py::bytes& rows, int64_t height, int64_t width) {
  const std::string_view bytes = rows;
  constexpr int64_t kMost = int64_t{1} << 31;  // so that the product fits
  if (height < 0 || width < 0 || height >= kMost || width >= kMost ||
      static_cast<int64_t>(bytes.size()) != height * (width + 1))
    fail("unfilter_png", "rows must hold " + std::to_string(height) + " × (1 + " + std::to_string(width) +
                             ") bytes, got " + std::to_string(bytes.size()));
  LabelArray pixels({height, width});
  uint8_t* out = pixels.mutable_data();
  int unknown;
  {
    py::gil_scoped_release release;
    unknown = unfilter(reinterpret_cast<const uint8_t*>(bytes.data()), height, width, out);
  }
  if (unknown >= 0) fail("unfilter_png", "a row's filter must lie in 0..4, got " + std::to_string(unknown));
  return pixels;
}

LabelArray resize(const py::array& maps, int64_t height, int64_t width, const py::array& table, bool mirrored) {
  const LabelArray old = label_array("resize", "maps", maps), labels = label_array("resize", "table", table);
  const py::ssize_t leading = maps.ndim() - 2;
  constexpr int64_t kMost = int64_t{1} << 31;  // so that products fit
  if (leading < 0 || maps.size() == 0 || maps.shape(leading) >= kMost || maps.shape(leading + 1) >= kMost)
    fail("resize", "maps must be [..., H, W] with pixels, got " + shape_text(maps));
  if (height < 1 || width < 1 || height >= kMost || width >= kMost)
    fail("resize",
         "the new size must be positive and below 2^31, got " + std::to_string(height) + ", " + std::to_string(width));
  if (labels.ndim() != 1 || labels.size() != 256) fail("resize", "table must be [256], got " + shape_text(table));
  std::vector<py::ssize_t> shape(maps.shape(), maps.shape() + leading);
  shape.insert(shape.end(), {height, width});
  LabelArray resized(shape);
  const uint8_t* from = old.data();
  uint8_t* to = resized.mutable_data();
  const Resize one(maps.shape(leading), maps.shape(leading + 1), height, width, labels.data(), mirrored);
  const int64_t count = maps.size() / (one.height * one.width);
  {
    py::gil_scoped_release release;
    for (int64_t i = 0; i < count; ++i) one(from + i * one.height * one.width, to + i * height * width);
  }
  return resized;
}

bool paint(const py::array& columns, const py::bytes& code, int64_t value) {
  const std::string_view text = code;
  if (!py::isinstance<py::array_t<uint8_t>>(columns) || !(columns.flags() & py::array::c_style))
    fail("paint_runs", "columns must be a contiguous uint8 array");
  if (value < 0 || value > 255) fail("paint_runs", "value must lie in 0..255, got " + std::to_string(value));
  py::array_t<uint8_t> pixels = py::reinterpret_borrow<py::array_t<uint8_t>>(columns);
  uint8_t* out = pixels.mutable_data();
  py::gil_scoped_release release;
  return paint_runs(text, static_cast<uint8_t>(value), out, pixels.size());
}

}  // namespace

PYBIND11_MODULE(_labelmaps, m) {
  m.doc() = "Label maps from files and the boxes around people; see rpcnn/labelmaps/.";
  m.def(
      "boxes", &boxes, py::arg("label_map"), py::arg("person_numbers"), py::arg("count"),
      "float64 [N, 4]: x1 y1 x2 y2 around the labeled pixels of each person number 1..N; zeros where there are none.");
  m.def("unfilter_png", &unfilter_png, py::arg("rows"), py::arg("height"), py::arg("width"),
        "uint8 [H, W] from the inflated rows of a PNG with one byte per pixel.");
  m.def("resize", &resize, py::arg("maps"), py::arg("height"), py::arg("width"), py::arg("table"), py::arg("mirrored"),
        "uint8 [..., H, W] to [..., height, width]: new pixel i is table[old pixel floor(i * old / new)], or the "
        "mirror.");
  m.def("paint_runs", &paint, py::arg("columns"), py::arg("code"), py::arg("value"),
        "Writes value where a mask given as COCO's compressed run lengths is 1; False where the code does not fit.");
}
