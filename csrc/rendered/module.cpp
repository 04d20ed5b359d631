// rpcnn._rendered: draws textured, skinned meshes with exact labels; see rpcnn/data/rendered/. numpy in, numpy out, no
// torch; the GIL is released while points are moved and pixels are drawn.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "shading.h"

namespace py = pybind11;

namespace {

using namespace rpcnn::rendered;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Floats = Array<float>;
using Ints = Array<int32_t>;
using Bytes = Array<uint8_t>;

[[noreturn]] void fail(const std::string& op, const std::string& problem) {
  throw py::value_error((op + ": " + problem).c_str());
}

// shape: -1 stands for any length.
template <class T>
void require(const std::string& op, const std::string& name, const Array<T>& array,
             const std::vector<py::ssize_t>& shape) {
  bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || array.shape(i) == shape[i];
  if (fits) return;
  std::string want, got;
  for (const py::ssize_t n : shape)
    want += (want.empty() ? "" : ", ") + (n < 0 ? std::string("any") : std::to_string(n));
  for (py::ssize_t i = 0; i < array.ndim(); ++i) got += (i ? ", " : "") + std::to_string(array.shape(i));
  fail(op, name + " must have shape [" + want + "], got [" + got + "]");
}

void require_indices(const std::string& op, const std::string& name, const Ints& array, int64_t count) {
  const int32_t* p = array.data();
  for (py::ssize_t i = 0; i < array.size(); ++i)
    if (p[i] < 0 || p[i] >= count)
      fail(op, name + " must lie in 0.." + std::to_string(count - 1) + ", got " + std::to_string(p[i]));
}

template <class T>
std::vector<T> copy(const Array<T>& array) {
  return std::vector<T>(array.data(), array.data() + array.size());
}

template <size_t N>
void assign(const std::string& op, const std::string& name, const Floats& from, float (&to)[N]) {
  if (from.size() != static_cast<py::ssize_t>(N))
    fail(op, name + " must hold " + std::to_string(N) + " numbers, got " + std::to_string(from.size()));
  for (size_t i = 0; i < N; ++i)
    if (!(std::fabs(from.data()[i]) < 1e6f)) fail(op, name + " must be finite and below 1000000");
  std::copy_n(from.data(), N, to);
}

std::shared_ptr<Texture> make_texture(const Bytes& pixels) {
  require("Texture", "pixels", pixels, {-1, -1, 4});
  const int64_t height = pixels.shape(0), width = pixels.shape(1);
  if (height < 1 || width < 1 || height > 8192 || width > 8192)
    fail("Texture", "sides must lie in 1..8192, got " + std::to_string(height) + " x " + std::to_string(width));
  return std::make_shared<Texture>(static_cast<int>(height), static_cast<int>(width), copy(pixels));
}

std::shared_ptr<Mesh> make_mesh(int64_t vertices, const Ints& triangles, const Ints& uv_triangles, const Floats& uv) {
  require("Mesh", "triangles", triangles, {-1, 3});
  require("Mesh", "uv_triangles", uv_triangles, {triangles.shape(0), 3});
  require("Mesh", "uv", uv, {-1, 2});
  if (vertices < 0) fail("Mesh", "vertices must not be negative, got " + std::to_string(vertices));
  require_indices("Mesh", "triangles", triangles, vertices);
  require_indices("Mesh", "uv_triangles", uv_triangles, uv.shape(0));
  for (py::ssize_t i = 0; i < uv.size(); ++i)
    if (!(std::fabs(uv.data()[i]) < 1e4f)) fail("Mesh", "uv must be finite and below 10000");
  return std::make_shared<Mesh>(Mesh{vertices, copy(triangles), copy(uv_triangles), copy(uv)});
}

std::shared_ptr<Material> make_material(std::shared_ptr<Texture> base, std::shared_ptr<Texture> pattern,
                                        std::shared_ptr<Texture> fold_slopes, bool cut_out,
                                        const std::optional<Floats>& tint, const std::optional<Floats>& dyes,
                                        const std::optional<Floats>& pattern_to_uv, float mean, float contrast,
                                        float occlusion, float folds, float fold_scale, float shine, float gloss,
                                        float softness) {
  auto made = std::make_shared<Material>();
  if (!base) fail("Material", "base must be a Texture, got None");
  made->base = std::move(base), made->pattern = std::move(pattern), made->fold_slopes = std::move(fold_slopes);
  made->cut_out = cut_out;
  if (tint) assign("Material", "tint", *tint, made->tint);
  if (dyes) assign("Material", "dyes", *dyes, made->dyes), made->dyed = true;
  if (pattern_to_uv) assign("Material", "pattern_to_uv", *pattern_to_uv, made->pattern_to_uv);
  if (!(mean > 0)) fail("Material", "mean must be positive, got " + std::to_string(mean));
  if (!(fold_scale > 0 && fold_scale < 1e4f))
    fail("Material", "fold_scale must be positive, got " + std::to_string(fold_scale));
  made->mean = mean, made->contrast = contrast, made->occlusion = occlusion, made->folds = folds;
  made->fold_scale = fold_scale, made->shine = shine, made->gloss = gloss, made->softness = softness;
  return made;
}

std::pair<Floats, Floats> skin_points(const Floats& points, const Ints& bones, const Floats& weights,
                                      const Floats& transforms) {
  require("skin", "points", points, {-1, 3});
  const py::ssize_t count = points.shape(0);
  require("skin", "bones", bones, {count, 4});
  require("skin", "weights", weights, {count, 4});
  require("skin", "transforms", transforms, {-1, 3, 4});
  require_indices("skin", "bones", bones, transforms.shape(0));
  Floats blended({count, py::ssize_t{12}}), posed({count, py::ssize_t{3}});
  float *a = blended.mutable_data(), *b = posed.mutable_data();
  {
    py::gil_scoped_release release;
    skin(count, points.data(), bones.data(), weights.data(), transforms.data(), a, b);
  }
  return {blended, posed};
}

Floats fit_points(const Ints& body_vertices, const Floats& weights, const Floats& offsets, const Floats& body,
                  const std::optional<Floats>& blended) {
  require("fit", "body_vertices", body_vertices, {-1, 3});
  const py::ssize_t count = body_vertices.shape(0);
  require("fit", "weights", weights, {count, 3});
  require("fit", "offsets", offsets, {count, 3});
  require("fit", "body", body, {-1, 3});
  if (blended) require("fit", "blended", *blended, {body.shape(0), 12});
  require_indices("fit", "body_vertices", body_vertices, body.shape(0));
  Floats out({count, py::ssize_t{3}});
  float* p = out.mutable_data();
  const float* a = blended ? blended->data() : nullptr;
  {
    py::gil_scoped_release release;
    fit(count, body_vertices.data(), weights.data(), offsets.data(), body.data(), a, p);
  }
  return out;
}

Floats mesh_normals(const Mesh& mesh, const Floats& points) {
  require("normals", "points", points, {mesh.vertices, 3});
  Floats out({static_cast<py::ssize_t>(mesh.vertices), py::ssize_t{3}});
  float* p = out.mutable_data();
  {
    py::gil_scoped_release release;
    normals(mesh, points.data(), p);
  }
  return out;
}

std::unique_ptr<Canvas> make_canvas(int64_t height, int64_t width, float focal) {
  if (height < 1 || width < 1 || height > 4096 || width > 4096)
    fail("Canvas", "sides must lie in 1..4096, got " + std::to_string(height) + " x " + std::to_string(width));
  if (!(focal > 0 && focal < 1e6f)) fail("Canvas", "focal must be positive, got " + std::to_string(focal));
  return std::make_unique<Canvas>(static_cast<int>(height), static_cast<int>(width), focal);
}

void draw(Canvas& canvas, std::shared_ptr<Mesh> mesh, const Floats& points, const Bytes& labels, int person,
          std::shared_ptr<Material> material, const std::optional<Bytes>& keep, const std::optional<Floats>& clip,
          float bias) {
  if (!mesh || !material) fail("draw", "mesh and material must not be None");
  require("draw", "points", points, {mesh->vertices, 3});
  require("draw", "labels", labels, {mesh->count()});
  if (keep) require("draw", "keep", *keep, {mesh->count()});
  if (clip) require("draw", "clip", *clip, {mesh->vertices});
  if (person < 0 || person > 255) fail("draw", "person must lie in 0..255, got " + std::to_string(person));
  Draw made;
  made.points = copy(points), made.labels = copy(labels), made.bias = bias, made.person = person;
  if (keep) made.keep = copy(*keep);
  if (clip) made.clip = copy(*clip);
  py::gil_scoped_release release;
  made.normals.resize(made.points.size());
  normals(*mesh, made.points.data(), made.normals.data());
  made.mesh = std::move(mesh), made.material = std::move(material);
  canvas.add(std::move(made));
}

py::tuple render(const Canvas& canvas, const Floats& sun_direction, const Floats& sun, const Floats& fill_direction,
                 const Floats& fill, const Floats& up, const Floats& sky, const Floats& ground, float softness,
                 float occlusion, const std::optional<float>& ground_level) {
  Lighting light{};
  assign("render", "sun_direction", sun_direction, light.sun_direction);
  assign("render", "sun", sun, light.sun);
  assign("render", "fill_direction", fill_direction, light.fill_direction);
  assign("render", "fill", fill, light.fill);
  assign("render", "up", up, light.up);
  assign("render", "sky", sky, light.sky);
  assign("render", "ground", ground, light.ground);
  normalize(light.sun_direction), normalize(light.fill_direction), normalize(light.up);
  light.softness = softness, light.occlusion = occlusion;
  const py::ssize_t height = canvas.height(), width = canvas.width();
  Floats color({height, width, py::ssize_t{3}}), coverage({height, width}), depth({height, width});
  Floats sun_on_ground({height, width}), sky_on_ground({height, width});
  Bytes label({height, width}), person({height, width});
  const Picture picture{color.mutable_data(), coverage.mutable_data(), depth.mutable_data(), label.mutable_data(),
                        person.mutable_data()};
  float *on_ground = sun_on_ground.mutable_data(), *above = sky_on_ground.mutable_data();
  {
    py::gil_scoped_release release;
    const Shader shader(canvas, light);
    shader.paint(picture);
    if (ground_level) {
      shader.ground(*ground_level, on_ground, above);
    } else {
      std::fill_n(on_ground, height * width, 1.f);
      std::fill_n(above, height * width, 1.f);
    }
  }
  return py::make_tuple(color, coverage, depth, label, person, sun_on_ground, sky_on_ground);
}

}  // namespace

PYBIND11_MODULE(_rendered, m) {
  m.doc() = "Draws textured, skinned meshes with exact labels; see rpcnn/data/rendered/.";
  py::class_<Texture, std::shared_ptr<Texture>>(m, "Texture", "RGBA bytes [H, W, 4] with mip-maps.")
      .def(py::init(&make_texture), py::arg("pixels"));
  py::class_<Mesh, std::shared_ptr<Mesh>>(m, "Mesh", "Triangles [T, 3] of vertices and of uv [U, 2].")
      .def(py::init(&make_mesh), py::arg("vertices"), py::arg("triangles"), py::arg("uv_triangles"), py::arg("uv"))
      .def("normals", &mesh_normals, py::arg("points"), "Unit normals float32 [N, 3] of points [N, 3].");
  py::class_<Material, std::shared_ptr<Material>>(m, "Material", "How a surface looks; csrc/rendered/material.h.")
      .def(py::init(&make_material), py::arg("base"), py::arg("pattern") = py::none(),
           py::arg("fold_slopes") = py::none(), py::arg("cut_out") = false, py::arg("tint") = py::none(),
           py::arg("dyes") = py::none(), py::arg("pattern_to_uv") = py::none(), py::arg("mean") = 0.5f,
           py::arg("contrast") = 1.f, py::arg("occlusion") = 0.f, py::arg("folds") = 0.f, py::arg("fold_scale") = 4.f,
           py::arg("shine") = 0.f, py::arg("gloss") = 20.f, py::arg("softness") = 0.f);
  py::class_<Canvas>(m, "Canvas", "Draws meshes in camera space and lights them.")
      .def(py::init(&make_canvas), py::arg("height"), py::arg("width"), py::arg("focal"))
      .def("draw", &draw, py::arg("mesh"), py::arg("points"), py::arg("labels"), py::arg("person"), py::arg("material"),
           py::arg("keep") = py::none(), py::arg("clip") = py::none(), py::arg("bias") = 0.f)
      .def("render", &render, py::kw_only(), py::arg("sun_direction"), py::arg("sun"), py::arg("fill_direction"),
           py::arg("fill"), py::arg("up"), py::arg("sky"), py::arg("ground"), py::arg("softness"), py::arg("occlusion"),
           py::arg("ground_level") = py::none(),
           "(color [H, W, 3] linear and premultiplied, coverage, depth, label, person, sun and sky on the ground).");
  m.def("skin", &skin_points, py::arg("points"), py::arg("bones"), py::arg("weights"), py::arg("transforms"),
        "(blended transforms float32 [N, 12], posed points float32 [N, 3]).");
  m.def("fit", &fit_points, py::arg("body_vertices"), py::arg("weights"), py::arg("offsets"), py::arg("body"),
        py::arg("blended") = py::none(), "Points [M, 3] bound to three vertices of the body each.");
}
