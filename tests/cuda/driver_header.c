/* SPDX-License-Identifier: Apache-2.0 */
/* Our declarations of the driver API against NVIDIA's, where cuda.h is present. Compiled, never
 * linked: a difference is an error or a warning of the compiler. */
#include "device/cuda_driver.h"

#include <cuda.h>

#define SAME(ours, theirs) \
    _Static_assert(_Generic((ours *)0, theirs * : 1, default : 0), #ours " is not " #theirs)
SAME(um_cu_device, CUdevice);
SAME(um_cu_ptr, CUdeviceptr);
SAME(um_cu_context, CUcontext);
SAME(um_cu_module, CUmodule);
SAME(um_cu_function, CUfunction);
SAME(um_cu_stream, CUstream);
SAME(um_cu_event, CUevent);
SAME(um_cu_graph, CUgraph);
SAME(um_cu_graph_exec, CUgraphExec);
_Static_assert(sizeof(um_cu_result) == sizeof(CUresult) && CUDA_SUCCESS == 0, "CUresult");

#define ERROR(name, value) _Static_assert(CUDA_ERROR_##name == (value), #name);
#define VALUE(name, value) _Static_assert(CU_##name == (value), #name);
UM_CU_ERRORS(ERROR)
UM_CU_VALUES(VALUE)

/* cuda.h maps the plain names to the current ABI (cuMemAlloc to cuMemAlloc_v2), which has the
 * parameters that we ask for by version. */
#define ASSIGN(name, version, required, parameters)     \
    extern um_cu_result(*const same_##name) parameters; \
    um_cu_result(*const same_##name) parameters = name;
UM_CU_SYMBOLS(ASSIGN)

extern um_cu_result (*const same_get)(const char *, void **, int, uint64_t, unsigned *);
um_cu_result (*const same_get)(const char *, void **, int, uint64_t, unsigned *) = cuGetProcAddress;
extern um_cu_result (*const same_version)(int *);
um_cu_result (*const same_version)(int *) = cuDriverGetVersion;
