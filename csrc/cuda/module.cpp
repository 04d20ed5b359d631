// Importing rpcnn._C_cuda registers the CUDA kernels for the operators that rpcnn._C declares. It is a module
// of its own because a library linked to CUDA does not load where torch is a CPU build.
#include <Python.h>

PyMODINIT_FUNC PyInit__C_cuda() {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
