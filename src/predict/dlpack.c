/* SPDX-License-Identifier: Apache-2.0 */
/* Reference: include/dlpack/dlpack.h of DLPack 1.1. */
#include "ultramotion/dlpack.h"

#include "base/mem.h"
#include "base/record.h"
#include "predict/values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DL_CPU = 1, DL_CUDA = 2, DL_CUDA_HOST = 3, DL_CUDA_MANAGED = 13 };
enum { DL_INT, DL_UINT, DL_FLOAT, DL_BFLOAT = 4, DL_BOOL = 6 };
enum { DL_MAJOR = 1, DL_MINOR = 1, DL_READ_ONLY = 1 };

struct DLTensor {
    void *data;
    struct {
        int32_t type, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides; /* strides in elements; NULL: contiguous */
    uint64_t byte_offset;
};

struct DLManagedTensor {
    struct DLTensor tensor;
    void *context;
    void (*deleter)(struct DLManagedTensor *self);
};

struct DLManagedTensorVersioned {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct DLManagedTensorVersioned *self);
    uint64_t flags;
    struct DLTensor tensor;
};

/* ---- out ---- */

static um_status describe(um_values *v, struct DLTensor *out)
{
    static const struct {
        uint8_t code, bits;
    } types[] = {[UM_ARRAY_BOOL] = {DL_BOOL, 8},
                 [UM_ARRAY_F32] = {DL_FLOAT, 32},
                 [UM_ARRAY_F16] = {DL_FLOAT, 16},
                 [UM_ARRAY_BF16] = {DL_BFLOAT, 16}};
    um_device_array a = {.struct_size = sizeof a};
    um_status st = um_values_describe(v, &a);
    if (st != UM_OK)
        return st;
    bool cuda = strncmp(a.device, "cuda:", 5) == 0;
    if (!cuda && strcmp(a.device, "cpu") != 0)
        return um_fail(UM_EUNSUPPORTED,
                       "DLPack: memory of device %s is not to be touched by others", a.device);
    out->data = a.data;
    out->device.type = cuda ? DL_CUDA : DL_CPU;
    out->device.id = cuda ? atoi(a.device + 5) : 0;
    out->ndim = a.rank;
    out->dtype.code = types[a.type].code;
    out->dtype.bits = types[a.type].bits;
    out->dtype.lanes = 1;
    out->shape = v->shape; /* as long as the reference */
    out->strides = v->strides;
    return UM_OK;
}

static void drop(struct DLManagedTensor *self)
{
    um_values *v = self->context;
    um_values_unref(&v);
    um_free(self);
}

static void drop_versioned(struct DLManagedTensorVersioned *self)
{
    um_values *v = self->context;
    um_values_unref(&v);
    um_free(self);
}

um_status um_dlpack_export(um_values *values, struct DLManagedTensor **out)
{
    if (out)
        *out = NULL;
    if (!values || !out)
        return um_fail(UM_EINVAL, "um_dlpack_export: %s is NULL", values ? "out" : "values");
    if (values->read_only)
        return um_fail(UM_EUNSUPPORTED, "DLPack: read-only values, which only DLPack 1.0 can say");
    struct DLManagedTensor *m = um_zalloc(sizeof *m);
    um_status st = m ? describe(values, &m->tensor) : um_fail(UM_ENOMEM, "DLPack tensor");
    if (st != UM_OK) {
        um_free(m);
        return st;
    }
    m->context = um_values_ref(values);
    m->deleter = drop;
    *out = m;
    return UM_OK;
}

um_status um_dlpack_export_versioned(um_values *values, struct DLManagedTensorVersioned **out)
{
    if (out)
        *out = NULL;
    if (!values || !out)
        return um_fail(UM_EINVAL, "um_dlpack_export_versioned: %s is NULL",
                       values ? "out" : "values");
    struct DLManagedTensorVersioned *m = um_zalloc(sizeof *m);
    um_status st = m ? describe(values, &m->tensor) : um_fail(UM_ENOMEM, "DLPack tensor");
    if (st != UM_OK) {
        um_free(m);
        return st;
    }
    m->major = DL_MAJOR;
    m->minor = DL_MINOR;
    m->context = um_values_ref(values);
    m->deleter = drop_versioned;
    m->flags = values->read_only ? DL_READ_ONLY : 0;
    *out = m;
    return UM_OK;
}

/* ---- in ---- */

static um_status device_of(const struct DLTensor *t, const char **out)
{
    static const char gpu[][8] = {"cuda:0",  "cuda:1",  "cuda:2",  "cuda:3", "cuda:4",  "cuda:5",
                                  "cuda:6",  "cuda:7",  "cuda:8",  "cuda:9", "cuda:10", "cuda:11",
                                  "cuda:12", "cuda:13", "cuda:14", "cuda:15"};
    int type = t->device.type, id = t->device.id;
    *out = "cpu";
    if (type == DL_CPU || type == DL_CUDA_HOST)
        return UM_OK;
    if ((type != DL_CUDA && type != DL_CUDA_MANAGED) || id < 0 ||
        id >= (int)(sizeof gpu / sizeof *gpu))
        return um_fail(UM_EINVAL, "tensor on DLPack device %d:%d, want the processor or a GPU",
                       type, id);
    *out = gpu[id];
    return UM_OK;
}

static const char *shape_text(const struct DLTensor *t, char *text, size_t size)
{
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < t->ndim && i < 8 && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    return text;
}

static int64_t stride_of(const struct DLTensor *t, int axis)
{
    if (t->strides)
        return t->strides[axis];
    int64_t step = 1;
    for (int i = t->ndim - 1; i > axis; i--)
        step *= t->shape[i];
    return step;
}

static bool is_channels(int64_t n)
{
    return n == 1 || n == 3;
}

/* E.g. int32. */
static const char *type_text(const struct DLTensor *t, char *text, size_t size)
{
    static const char *const kinds[] = {"int", "uint", "float", NULL, "bfloat", "complex", "bool"};
    unsigned code = t->dtype.code;
    if (t->dtype.lanes == 1 && code < sizeof kinds / sizeof *kinds && kinds[code])
        snprintf(text, size, "%s%d", kinds[code], t->dtype.bits);
    else
        snprintf(text, size, "%u of DLPack, %d bits, %d lanes", code, t->dtype.bits,
                 t->dtype.lanes);
    return text;
}

um_status um_dlpack_image(const struct DLTensor *tensor, um_image *out)
{
    const struct DLTensor *t = tensor;
    um_image image = {.struct_size = sizeof image};
    char text[200];
    if (!t || !out)
        return um_fail(UM_EINVAL, "um_dlpack_image: %s is NULL", t ? "out" : "tensor");
    bool u8 = t->dtype.code == DL_UINT && t->dtype.bits == 8,
         f32 = t->dtype.code == DL_FLOAT && t->dtype.bits == 32;
    if ((!u8 && !f32) || t->dtype.lanes != 1)
        return um_fail(UM_EINVAL, "image of type %s: want u8 (0 to 255) or f32 (0 to 1)",
                       type_text(t, text, sizeof text));
    um_status st = device_of(t, &image.device);
    if (st != UM_OK)
        return st;
    int first = t->ndim == 4 && t->shape[0] == 1, rank = t->ndim - first;
    const int64_t *shape = t->shape + first;
    bool last = rank == 3 && is_channels(shape[2]);
    if (rank != 2 && (rank != 3 || (!last && !is_channels(shape[0]))))
        return um_fail(UM_EINVAL,
                       "image of shape [%s]: want [H,W], [H,W,C], [C,H,W] or [1,C,H,W] with C = 1 "
                       "or 3",
                       shape_text(t, text, sizeof text));
    int h = rank == 2 || last ? 0 : 1, c = rank == 2 ? -1 : last ? 2 : 0; /* their axes */
    image.layout = rank == 2 ? UM_IMAGE_HW : last ? UM_IMAGE_HWC : UM_IMAGE_CHW;
    if (shape[h] < 1 || shape[h + 1] < 1 || shape[h] > UM_FRAME_MAX_SIDE ||
        shape[h + 1] > UM_FRAME_MAX_SIDE || !t->data)
        return um_fail(UM_EINVAL, "image of shape [%s]: sides must be 1 to %d",
                       shape_text(t, text, sizeof text), (int)UM_FRAME_MAX_SIDE);
    image.type = u8 ? UM_IMAGE_U8 : UM_IMAGE_F32;
    image.height = (int)shape[h];
    image.width = (int)shape[h + 1];
    image.channels = c < 0 ? 1 : (int)shape[c];
    int64_t row = stride_of(t, first + h), pixel = stride_of(t, first + h + 1),
            channel = c < 0 ? 1 : stride_of(t, first + c);
    bool planar = image.layout == UM_IMAGE_CHW, planes = planar && image.channels > 1;
    if (image.height == 1) /* its own step means nothing */
        row = planes ? channel : 0;
    const int64_t most = INT64_MAX / (4 * UM_FRAME_MAX_SIDE); /* what follows multiplies */
    bool packed = row <= most && row >= -most &&
                  (pixel == (planar ? 1 : image.channels) || image.width == 1) &&
                  (image.channels == 1 || channel == (planar ? row * image.height : 1)) &&
                  (image.channels > 1 || pixel == 1 || image.width == 1);
    int64_t length = (int64_t)image.width * (planar ? 1 : image.channels);
    bool overlap = (image.height > 1 || planes) && row < length && row > -length;
    if (!packed || overlap)
        return um_fail(UM_EINVAL,
                       "image of shape [%s] is not contiguous: rows are %lld, pixels %lld, "
                       "channels %lld elements apart",
                       shape_text(t, text, sizeof text), (long long)row, (long long)pixel,
                       (long long)channel);
    image.row_bytes = (ptrdiff_t)row * (u8 ? 1 : 4);
    image.data = (const char *)t->data + t->byte_offset;
    return um_record_out(out, &image, sizeof image, "um_image");
}

um_status um_dlpack_frame(um_frame **out, const struct DLTensor *tensor, void (*release)(void *ctx),
                          void *ctx)
{
    um_image image = {.struct_size = sizeof image};
    if (!out)
        return um_fail(UM_EINVAL, "um_dlpack_frame: out is NULL");
    *out = NULL;
    um_status st = um_dlpack_image(tensor, &image);
    if (st != UM_OK)
        return st;
    if (strcmp(image.device, "cpu") != 0)
        return um_fail(UM_EINVAL, "a frame is in host memory, the tensor on device %s",
                       image.device);
    if (image.type != UM_IMAGE_U8 || (image.layout == UM_IMAGE_CHW && image.channels != 1))
        return um_fail(UM_EINVAL, "a frame is u8 with channels last, the tensor is %s",
                       image.type == UM_IMAGE_U8 ? "[C,H,W]" : "f32");
    ptrdiff_t row = image.row_bytes ? image.row_bytes : (ptrdiff_t)image.width * image.channels;
    return um_frame_wrap(out, image.width, image.height, image.channels,
                         (uint8_t *)(uintptr_t)image.data, row, release, ctx);
}

/* ---- capsules of Python ---- */

static _Atomic(int (*)(void *, const char *)) capsule_is_valid, capsule_set_name;
static _Atomic(void *(*)(void *, const char *)) capsule_pointer;
static const char plain[] = "dltensor", versioned[] = "dltensor_versioned";

void um_capsule_bind(int (*is_valid)(void *capsule, const char *name),
                     void *(*pointer)(void *capsule, const char *name),
                     int (*set_name)(void *capsule, const char *name))
{
    atomic_store(&capsule_set_name, set_name);
    atomic_store(&capsule_pointer, pointer);
    atomic_store(&capsule_is_valid, is_valid);
}

/* The struct in a capsule of a name, NULL in others. */
static void *content(void *capsule, const char *name)
{
    int (*is_valid)(void *, const char *) = atomic_load(&capsule_is_valid);
    return is_valid && is_valid(capsule, name) ? atomic_load(&capsule_pointer)(capsule, name)
                                               : NULL;
}

void um_capsule_drop(void *capsule)
{
    struct DLManagedTensor *m = content(capsule, plain);
    if (m)
        m->deleter(m);
    struct DLManagedTensorVersioned *v = m ? NULL : content(capsule, versioned);
    if (v)
        v->deleter(v);
    /* else it was taken, and renamed */
}

/* What somebody else put into a capsule. */
struct given {
    const struct DLTensor *tensor;
    void (*release)(void *managed);
    void *managed;
    const char *taken; /* the capsule's name from then on */
};

/* A deleter may be NULL: the memory is the producer's for ever. */
static void release_plain(void *managed)
{
    struct DLManagedTensor *m = managed;
    if (m->deleter)
        m->deleter(m);
}

static void release_versioned(void *managed)
{
    struct DLManagedTensorVersioned *m = managed;
    if (m->deleter)
        m->deleter(m);
}

static um_status capsule_open(void *capsule, struct given *out)
{
    struct DLManagedTensor *m = content(capsule, plain);
    struct DLManagedTensorVersioned *v = m ? NULL : content(capsule, versioned);
    if (!m && !v)
        return um_fail(UM_EINVAL, "__dlpack__() gave no capsule with a DLPack tensor");
    if (v && v->major != DL_MAJOR)
        return um_fail(UM_EUNSUPPORTED, "DLPack version %u, want %d", v->major, DL_MAJOR);
    *out = m ? (struct given){&m->tensor, release_plain, m, "used_dltensor"}
             : (struct given){&v->tensor, release_versioned, v, "used_dltensor_versioned"};
    return UM_OK;
}

um_status um_capsule_image(void *capsule, um_image *out)
{
    struct given g = {0};
    um_status st = capsule_open(capsule, &g);
    return st == UM_OK ? um_dlpack_image(g.tensor, out) : st;
}

um_status um_capsule_frame(um_frame **out, void *capsule)
{
    struct given g = {0};
    if (!out)
        return um_fail(UM_EINVAL, "um_capsule_frame: out is NULL");
    *out = NULL;
    um_status st = capsule_open(capsule, &g);
    if (st == UM_OK)
        st = um_dlpack_frame(out, g.tensor, g.release, g.managed);
    if (st == UM_OK)
        atomic_load (&capsule_set_name)(capsule, g.taken);
    return st;
}
