// Label maps as numpy arrays: the checks and error messages that rpcnn._labelmaps and rpcnn._metrics share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

namespace rpcnn::labelmaps {

namespace py = pybind11;

using LabelArray = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;

[[noreturn]] inline void fail(const std::string& op, const std::string& problem) {
  throw py::value_error((op + ": " + problem).c_str());
}

inline std::string shape_text(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
  return text + "]";
}

// The array with contiguous memory. Raises ValueError for any dtype but uint8.
inline LabelArray label_array(const std::string& op, const std::string& name, const py::array& array) {
  if (!py::isinstance<py::array_t<uint8_t>>(array))
    fail(op, name + " must be uint8, got " + py::str(array.dtype()).cast<std::string>());
  return LabelArray::ensure(array);
}

// Person maps that share no pixel, as rpcnn.labelmaps.people holds them.
struct NumberedPersonMaps {
  LabelArray label_map;      // [H, W]
  py::array person_numbers;  // uint8 or uint16 [H, W]: n + 1 at the pixels of person n, else 0
  int64_t count, height, width;
  bool bytes;  // the numbers are uint8

  // f(person_numbers) with a pointer of their type; needs no GIL.
  template <class F>
  auto with_numbers(const F& f) const {
    return bytes ? f(static_cast<const uint8_t*>(person_numbers.data()))
                 : f(static_cast<const uint16_t*>(person_numbers.data()));
  }
};

inline NumberedPersonMaps numbered_person_maps(const std::string& op, const std::string& name,
                                               const py::array& label_map, const py::array& person_numbers,
                                               int64_t count) {
  NumberedPersonMaps people{};
  people.label_map = label_array(op, name, label_map);
  people.bytes = py::isinstance<py::array_t<uint8_t>>(person_numbers);
  if (!people.bytes && !py::isinstance<py::array_t<uint16_t>>(person_numbers))
    fail(op, name + ": person numbers must be uint8 or uint16");
  people.person_numbers = py::array::ensure(person_numbers, py::array::c_style);
  if (label_map.ndim() != 2 || person_numbers.ndim() != 2 ||
      !std::equal(label_map.shape(), label_map.shape() + 2, person_numbers.shape()))
    fail(op, name + ": labels and person numbers must have one shape [H, W], got " + shape_text(label_map) + " and " +
                 shape_text(person_numbers));
  constexpr int64_t kMost = std::numeric_limits<uint16_t>::max();  // the largest person number
  if (count < 0 || count > kMost)
    fail(op,
         name + ": the number of people must lie in 0.." + std::to_string(kMost) + ", got " + std::to_string(count));
  people.count = count, people.height = label_map.shape(0), people.width = label_map.shape(1);
  return people;
}

}  // namespace rpcnn::labelmaps
