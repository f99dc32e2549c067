/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the NVIDIA driver API that the GPU backend uses, declared here because the library is
 * built without NVIDIA's headers and finds the driver at run time. tests/cuda/driver_header.c holds
 * it against cuda.h; tests/cuda/standin.c is a second driver, for machines without a GPU. */
#ifndef UM_DEVICE_CUDA_DRIVER_H
#define UM_DEVICE_CUDA_DRIVER_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef unsigned um_cu_result;
typedef int um_cu_device;
typedef unsigned long long um_cu_ptr;
typedef struct CUctx_st *um_cu_context;
typedef struct CUmod_st *um_cu_module;
typedef struct CUfunc_st *um_cu_function;
typedef struct CUstream_st *um_cu_stream;
typedef struct CUevent_st *um_cu_event;
typedef struct CUgraph_st *um_cu_graph;
typedef struct CUgraphExec_st *um_cu_graph_exec;

/* X(name, value): CUDA_ERROR_name of cuda.h. */
#define UM_CU_ERRORS(X)                 \
    X(INVALID_VALUE, 1)                 \
    X(OUT_OF_MEMORY, 2)                 \
    X(NOT_INITIALIZED, 3)               \
    X(DEVICE_UNAVAILABLE, 46)           \
    X(NO_DEVICE, 100)                   \
    X(INVALID_DEVICE, 101)              \
    X(INVALID_CONTEXT, 201)             \
    X(NO_BINARY_FOR_GPU, 209)           \
    X(ECC_UNCORRECTABLE, 214)           \
    X(INVALID_PTX, 218)                 \
    X(NVLINK_UNCORRECTABLE, 220)        \
    X(JIT_COMPILER_NOT_FOUND, 221)      \
    X(UNSUPPORTED_PTX_VERSION, 222)     \
    X(JIT_COMPILATION_DISABLED, 223)    \
    X(CONTAINED, 226)                   \
    X(INVALID_HANDLE, 400)              \
    X(ILLEGAL_STATE, 401)               \
    X(NOT_FOUND, 500)                   \
    X(NOT_READY, 600)                   \
    X(ILLEGAL_ADDRESS, 700)             \
    X(LAUNCH_OUT_OF_RESOURCES, 701)     \
    X(LAUNCH_TIMEOUT, 702)              \
    X(ASSERT, 710)                      \
    X(LAUNCH_FAILED, 719)               \
    X(STREAM_CAPTURE_UNSUPPORTED, 900)  \
    X(STREAM_CAPTURE_INVALIDATED, 901)  \
    X(STREAM_CAPTURE_MERGE, 902)        \
    X(STREAM_CAPTURE_UNMATCHED, 903)    \
    X(STREAM_CAPTURE_UNJOINED, 904)     \
    X(STREAM_CAPTURE_ISOLATION, 905)    \
    X(STREAM_CAPTURE_IMPLICIT, 906)     \
    X(CAPTURED_EVENT, 907)              \
    X(STREAM_CAPTURE_WRONG_THREAD, 908) \
    X(UNKNOWN, 999)

/* X(name, value): CU_name of cuda.h. */
#define UM_CU_VALUES(X)                                       \
    X(DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)              \
    X(DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)          \
    X(DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)          \
    X(DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97) \
    X(FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, 1)                    \
    X(FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8)        \
    X(STREAM_NON_BLOCKING, 1)                                 \
    X(STREAM_CAPTURE_MODE_GLOBAL, 0)                          \
    X(STREAM_CAPTURE_MODE_THREAD_LOCAL, 1)                    \
    X(STREAM_CAPTURE_MODE_RELAXED, 2)                         \
    X(EVENT_BLOCKING_SYNC, 1)                                 \
    X(EVENT_DISABLE_TIMING, 2)                                \
    X(EVENT_RECORD_EXTERNAL, 1)                               \
    X(EVENT_WAIT_EXTERNAL, 1)                                 \
    X(STREAM_CAPTURE_STATUS_ACTIVE, 1)

#define UM_CU_ERROR(name, value) UM_CU_ERROR_##name = (value),
#define UM_CU_VALUE(name, value) UM_CU_##name = (value),
enum { UM_CU_ERRORS(UM_CU_ERROR) };
enum { UM_CU_VALUES(UM_CU_VALUE) };
#undef UM_CU_ERROR
#undef UM_CU_VALUE

/* X(symbol, version, required, parameters): the ABI of `version` is asked for. Without an optional
 * one its use is left out. */
// clang-format off
#define UM_CU_SYMBOLS(X)                                                                              \
    X(cuInit, 2000, true, (unsigned flags))                                                           \
    X(cuGetErrorName, 6000, true, (um_cu_result error, const char **text))                            \
    X(cuGetErrorString, 6000, true, (um_cu_result error, const char **text))                          \
    X(cuDeviceGetCount, 2000, true, (int *count))                                                     \
    X(cuDeviceGet, 2000, true, (um_cu_device *device, int ordinal))                                   \
    X(cuDeviceGetName, 2000, true, (char *name, int size, um_cu_device device))                       \
    X(cuDeviceGetAttribute, 2000, true, (int *value, unsigned attribute, um_cu_device device))        \
    X(cuDeviceTotalMem, 3020, true, (size_t *bytes, um_cu_device device))                             \
    X(cuDevicePrimaryCtxRetain, 7000, true, (um_cu_context *context, um_cu_device device))            \
    X(cuDevicePrimaryCtxRelease, 11000, true, (um_cu_device device))                                  \
    X(cuCtxGetCurrent, 4000, true, (um_cu_context *context))                                          \
    X(cuCtxSetCurrent, 4000, true, (um_cu_context context))                                           \
    X(cuCtxGetStreamPriorityRange, 5050, true, (int *least, int *greatest))                           \
    X(cuModuleLoadData, 2000, true, (um_cu_module *module, const void *image))                        \
    X(cuModuleUnload, 2000, true, (um_cu_module module))                                              \
    X(cuModuleGetFunction, 2000, true,                                                                \
      (um_cu_function *function, um_cu_module module, const char *name))                              \
    X(cuFuncGetAttribute, 2020, true, (int *value, unsigned attribute, um_cu_function function))      \
    X(cuFuncSetAttribute, 9000, true, (um_cu_function function, unsigned attribute, int value))       \
    X(cuFuncLoad, 12040, false, (um_cu_function function))                                            \
    X(cuFuncGetParamInfo, 12040, false,                                                               \
      (um_cu_function function, size_t index, size_t *offset, size_t *size))                          \
    X(cuMemAlloc, 3020, true, (um_cu_ptr *memory, size_t bytes))                                      \
    X(cuMemFree, 3020, true, (um_cu_ptr memory))                                                      \
    X(cuMemHostAlloc, 2020, true, (void **memory, size_t bytes, unsigned flags))                      \
    X(cuMemFreeHost, 2000, true, (void *memory))                                                      \
    X(cuStreamCreateWithPriority, 5050, true, (um_cu_stream *stream, unsigned flags, int priority))   \
    X(cuStreamDestroy, 4000, true, (um_cu_stream stream))                                             \
    X(cuStreamSynchronize, 2000, true, (um_cu_stream stream))                                         \
    X(cuStreamWaitEvent, 3020, true, (um_cu_stream stream, um_cu_event event, unsigned flags))        \
    X(cuStreamBeginCapture, 10010, true, (um_cu_stream stream, unsigned mode))                        \
    X(cuStreamIsCapturing, 10000, true, (um_cu_stream stream, unsigned *status))                      \
    X(cuStreamEndCapture, 10000, true, (um_cu_stream stream, um_cu_graph *graph))                     \
    X(cuThreadExchangeStreamCaptureMode, 10010, true, (unsigned *mode))                               \
    X(cuEventCreate, 2000, true, (um_cu_event *event, unsigned flags))                                \
    X(cuEventDestroy, 4000, true, (um_cu_event event))                                                \
    X(cuEventRecord, 2000, true, (um_cu_event event, um_cu_stream stream))                            \
    X(cuEventRecordWithFlags, 11010, true, (um_cu_event event, um_cu_stream stream, unsigned flags))  \
    X(cuEventQuery, 2000, true, (um_cu_event event))                                                  \
    X(cuEventSynchronize, 2000, true, (um_cu_event event))                                            \
    X(cuEventElapsedTime, 2000, true, (float *ms, um_cu_event from, um_cu_event to))                  \
    X(cuMemcpyHtoDAsync, 3020, true,                                                                  \
      (um_cu_ptr dst, const void *src, size_t bytes, um_cu_stream stream))                            \
    X(cuMemcpyDtoHAsync, 3020, true, (void *dst, um_cu_ptr src, size_t bytes, um_cu_stream stream))   \
    X(cuMemcpyDtoDAsync, 3020, true,                                                                  \
      (um_cu_ptr dst, um_cu_ptr src, size_t bytes, um_cu_stream stream))                              \
    X(cuMemsetD8Async, 3020, true,                                                                    \
      (um_cu_ptr dst, unsigned char value, size_t bytes, um_cu_stream stream))                        \
    X(cuLaunchKernel, 4000, true,                                                                     \
      (um_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,  \
       unsigned block_y, unsigned block_z, unsigned shared, um_cu_stream stream, void **parameters,   \
       void **extra))                                                                                 \
    X(cuGraphInstantiateWithFlags, 11040, true,                                                       \
      (um_cu_graph_exec *exec, um_cu_graph graph, unsigned long long flags))                          \
    X(cuGraphUpload, 11010, true, (um_cu_graph_exec exec, um_cu_stream stream))                       \
    X(cuGraphLaunch, 10000, true, (um_cu_graph_exec exec, um_cu_stream stream))                       \
    X(cuGraphExecDestroy, 10000, true, (um_cu_graph_exec exec))                                       \
    X(cuGraphDestroy, 10000, true, (um_cu_graph graph))
// clang-format on

/* Memory that the next kernels touch. */
struct um_cuda_touch {
    um_cu_ptr at;
    size_t bytes;
    int write;
};

#define UM_CU_FIELD(name, version, required, parameters) um_cu_result(*name) parameters;
struct um_cuda_driver {
    UM_CU_SYMBOLS(UM_CU_FIELD)
    int version; /* 12040 = 12.4 */

    /* What only the stand-in has; NULL in a driver. */
    const struct um_cuda_image *standin; /* its kernels, ended by a NULL name */
    um_cu_result (*touch)(const char *step, const struct um_cuda_touch *list, int n);
    um_cu_result (*discard)(um_cu_ptr memory, size_t bytes, um_cu_stream stream);
    const char *(*error)(void); /* more about the last error, or "" */
};
#undef UM_CU_FIELD

/* Find the driver (libcuda.so.1, or the library that the environment variable
 * ULTRAMOTION_CUDA_DRIVER names) and its symbols. The library stays loaded. `device` is for
 * messages. */
um_status um_cuda_driver_open(struct um_cuda_driver *cu, const char *device);

/* The kernels of this build: fatbins, one per source. */
struct um_cuda_image {
    const char *name;
    const void *data;
    const char *const *kernels; /* NULL-ended: what lies in it */
};
extern const struct um_cuda_image um_cuda_images[]; /* ended by a NULL name */

#endif
