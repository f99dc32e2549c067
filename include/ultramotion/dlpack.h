/* SPDX-License-Identifier: Apache-2.0 */
/* DLPack, the exchange of tensors between libraries without a copy: https://dmlc.github.io/dlpack.
 * Its structs are not repeated here; a program that looks into them includes dlpack.h as well.
 */
#ifndef ULTRAMOTION_DLPACK_H
#define ULTRAMOTION_DLPACK_H

#include "ultramotion/segmenter.h"
#include "ultramotion/values.h"

#ifdef __cplusplus
extern "C" {
#endif

struct DLTensor;
struct DLManagedTensor;
struct DLManagedTensorVersioned;

/**
 * Values in the form that other libraries take. The struct holds a reference, which its deleter
 * drops: on any thread, after everything else of this library was closed too.
 *
 * @param out receives a struct that whoever takes it frees by calling its deleter once.
 * @return UM_OK; UM_EUNSUPPORTED for memory that nobody else may touch (`guard`), and for a
 * read-only array, which only the versioned struct can express; UM_ENOMEM. Threads: any.
 */
UM_API um_status um_dlpack_export(um_values *values, struct DLManagedTensor **out);
/** The same in DLPack 1.0's struct, with its flag for read-only arrays. */
UM_API um_status um_dlpack_export_versioned(um_values *values,
                                            struct DLManagedTensorVersioned **out);

/**
 * Another library's tensor as an image, without a copy: u8 or f32, [H,W], [H,W,C] or [C,H,W] with
 * C = 1 or 3, with or without a leading 1; if ambiguous, channels are last. It is available in the
 * order of the library's own stream (um_device_stream()), as DLPack specifies.
 *
 * @param out its struct_size is set by the caller; valid as long as the tensor.
 * @return UM_OK; UM_EINVAL for another type, shape or device, named, and for rows that are not
 * contiguous. Threads: any.
 */
UM_API um_status um_dlpack_image(const struct DLTensor *tensor, um_image *out);
/**
 * A frame over a tensor of u8 in host memory, [H,W] or [H,W,C], without a copy.
 *
 * @param release called once with ctx when the last reference to the frame is dropped, on that
 *                thread: a deleter and its struct. On error it is not called.
 * @return as um_dlpack_image(), um_frame_wrap().
 */
UM_API um_status um_dlpack_frame(um_frame **out, const struct DLTensor *tensor,
                                 void (*release)(void *ctx), void *ctx);

/**
 * For a binding to Python that links no Python: tell once where PyCapsule_IsValid,
 * PyCapsule_GetPointer and PyCapsule_SetName are. The functions below call them, so they are called
 * as these are: by a thread that holds the interpreter's lock, where there is one.
 */
UM_API void um_capsule_bind(int (*is_valid)(void *capsule, const char *name),
                            void *(*pointer)(void *capsule, const char *name),
                            int (*set_name)(void *capsule, const char *name));
/**
 * The destructor to give to PyCapsule_New for capsules "dltensor" and "dltensor_versioned": it
 * deletes a tensor that nobody took.
 */
UM_API void um_capsule_drop(void *capsule);
/**
 * um_dlpack_image() and um_dlpack_frame() of the tensor in what __dlpack__() gave: any object. The
 * frame takes the tensor, and the capsule is renamed as DLPack has it; the image leaves it there.
 *
 * @return as those; UM_EINVAL for what is no capsule with a tensor in it; UM_EUNSUPPORTED for one
 * of another version than 1.
 */
UM_API um_status um_capsule_image(void *capsule, um_image *out);
UM_API um_status um_capsule_frame(um_frame **out, void *capsule);

#ifdef __cplusplus
}
#endif
#endif
