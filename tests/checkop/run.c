/* SPDX-License-Identifier: Apache-2.0 */
/* Where kernels run: the levels of this machine, and a GPU. */
#include "checkop.h"

#include "cuda/host_launch.h"
#include "nn/cuda/op_cuda.h"
#include "nn/op_level.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef UM_EMU512 /* the 16-lane kernels on pairs of 8-lane registers: on machines without AVX-512 \
                  */
UM_LEVEL(emu512, "emu512")
size_t um_pack_int8_twin_emu512(void *dst, const struct um_int8_layer *l);
size_t um_pack_bf16_twin_emu512(void *dst, const float *w, int o, int kh, int kw, int i);
static struct um_ops emu512_twin;
#endif

#ifdef UM_EMU128 /* the 4-lane kernels, NEON's, on an x86 */
UM_LEVEL(emu128, "emu128")
#endif

const struct um_ops *levels[16];

/* With --device the levels are the GPU's, of one precision or of all. */
const char *wanted_precision;

const char *wanted_level;

um_device *gpu; /* --device: GPU kernels run there */

static bool wanted(enum um_dtype act)
{
    return !wanted_precision || strcmp(wanted_precision, um_precision_name(act)) == 0;
}

static void keep_wanted(void)
{
    int n = 0;
    for (int l = 0; levels[l]; l++)
        if (strcmp(levels[l]->name, wanted_level) == 0)
            levels[n++] = levels[l];
    levels[n] = NULL;
}

const struct um_ops *find_levels(void) /* returns the reference */
{
    static const enum um_dtype precisions[] = {UM_F32, UM_F16, UM_BF16};
    int n = 0;
    const struct um_ops *last = NULL;
    for (const struct um_ops *const *l = um_ops_host(); *l; l++) {
        levels[n++] = *l;
        last = *l;
    }
    n = gpu ? 0 : n - 1;
#ifdef UM_EMU128
    if (n > 0) /* it needs AVX2, as every level above plain C */
        levels[n++] = &um_ops_emu128;
#endif
#ifdef UM_EMU512
    if (n > 0)
        levels[n++] = &um_ops_emu512;
    emu512_twin = um_ops_emu512;
    emu512_twin.name = "emu512 amx-twin";
    emu512_twin.narrow = UM_NARROW_TWIN;
    emu512_twin.pack_bf16 = um_pack_bf16_twin_emu512;
    emu512_twin.pack_int8 = um_pack_int8_twin_emu512;
    if (n > 0)
        levels[n++] = &emu512_twin;
#endif
    for (int p = 0; p < 3; p++)
        for (int plain = 1; plain >= 0; plain--)
            if ((p > 0 || plain) && wanted(precisions[p]))
                levels[n++] = um_cuda_ops(precisions[p], plain);
    levels[n] = NULL;
    if (wanted_level)
        keep_wanted();
    return last;
}

bool takes_part(const struct um_ops *level, const struct um_ops *base, enum um_op op)
{
    return level->kernel[op] && level->kernel[op] != base->kernel[op];
}

int open_gpu(const char *name)
{
    um_device_settings s;
    int n = 0;
    const char *const *kernels = um_cuda_kernels(&n);
    um_device_settings_default(&s);
    s.name = name;
    if (um_device_open(&gpu, &s) != UM_OK || um_load_kernels(gpu, kernels, n) != UM_OK) {
        fprintf(stderr, "checkop: %s\n", um_last_error());
        return 2;
    }
    return 0;
}

/* A GPU's stream, and the kernel runs at once. */
static void launch_here(struct um_stream *stream, const struct um_launch *l)
{
    const char *problem =
        um_host_launch(l->kernel, l->grid, l->threads, l->shared, l->args, l->size);
    if (problem && stream->status == UM_OK)
        stream->status = um_fail(UM_EDEVICE, "%s", problem);
}

/* The same call on the device: each operand's whole memory goes up with its canaries, and comes
 * down again. Outputs start as NaN; what is no output must come back as it was. */
static um_status run_on_device(const struct job *job, const struct um_ops *ops,
                               const struct um_view *t)
{
    static um_hostbuf *staging;
    struct um_step step = {.name = um_op_name(job->op),
                           .kernel = ops->kernel[job->op],
                           .args = &job->args,
                           .n = job->n};
    um_buf *buf[UM_OPERANDS] = {NULL};
    size_t size[UM_OPERANDS] = {0}, place[UM_OPERANDS] = {0}, room = 0;
    um_event *done = NULL;
    um_status st = um_event_open(&done, gpu);
    for (int i = 0; i < job->n; i++) {
        size_t guard = job->pack[i].plain ? 0 : GUARD;
        size_t bytes =
            (size_t)t[i].h * (size_t)t[i].w * (size_t)t[i].ld * um_dtype_size(t[i].dtype);
        if (!t[i].data)
            continue;
        size[i] = guard ? (bytes + 2 * guard + 63) / 64 * 64 : bytes;
        place[i] = room;
        room += (size[i] + 255) / 256 * 256;
        if (st == UM_OK)
            st = um_buf_open(&buf[i], gpu, size[i], "operand");
        step.operand[i] = (struct um_operand){
            .buf = buf[i], .offset = guard, .size = bytes, .write = i < job->n_out, .view = t[i]};
    }
    if (st == UM_OK && (!staging || staging->size < room)) {
        um_hostbuf_close(&staging);
        st = um_hostbuf_open(&staging, gpu, 2 * room);
    }
    unsigned char *host = st == UM_OK ? staging->data : NULL;
    for (int i = 0; i < job->n && st == UM_OK; i++) {
        size_t guard = step.operand[i].offset, e = um_dtype_size(t[i].dtype);
        bool poison = i < job->n_out && !(job->preset >> i & 1);
        if (size[i])
            memcpy(host + place[i], (unsigned char *)t[i].data - guard, size[i]);
        for (int r = 0; size[i] && poison && r < t[i].h * t[i].w; r++)
            memset(host + place[i] + guard + (size_t)r * (size_t)t[i].ld * e, 0xff,
                   (size_t)t[i].c * e);
    }
    for (int i = 0; i < job->n && st == UM_OK; i++)
        if (size[i])
            st = um_upload(gpu, UM_QUEUE_MAIN, buf[i], 0, staging, place[i], size[i],
                           UM_STAGE_DEBUG, "operand");
    if (st == UM_OK)
        st = um_step_run(gpu, UM_QUEUE_MAIN, &step);
    for (int i = 0; i < job->n && st == UM_OK; i++)
        if (size[i])
            st = um_download(gpu, UM_QUEUE_MAIN, staging, place[i], buf[i], 0, size[i],
                             UM_STAGE_DEBUG, "operand");
    if (st == UM_OK)
        st = um_event_record(gpu, UM_QUEUE_MAIN, done);
    if (st == UM_OK)
        st = um_event_sync(gpu, done, UM_STAGE_DEBUG, "checkop");
    for (int i = 0; i < job->n && st == UM_OK; i++) {
        unsigned char *memory = (unsigned char *)t[i].data - step.operand[i].offset;
        if (i < job->n_out && size[i])
            memcpy(memory, host + place[i], size[i]);
        else if (size[i] && memcmp(memory, host + place[i], size[i]) != 0)
            st = um_fail(UM_EDEVICE, "operand %d changed, which is no output", i);
    }
    for (int i = 0; i < job->n; i++)
        um_buf_close(&buf[i]);
    um_event_close(&done, gpu);
    return st;
}

um_status run(const struct job *job, const struct um_ops *ops, um_pool *pool,
              const struct um_view *t)
{
    if (gpu && ops->launches)
        return run_on_device(job, ops, t);
    struct um_stream stream = {.launch = launch_here};
    union args args = job->args;
    if (job->op == UM_OP_ATTENTION)
        args.attention.how = ops->narrow;
    if (job->op == UM_OP_RELATIVE_ATTENTION)
        args.relative.how = ops->narrow;
    if (job->op == UM_OP_WINDOW_BLOCK)
        args.block.how = ops->narrow;
    if (job->op == UM_OP_TOKEN_TO_IMAGE || job->op == UM_OP_IMAGE_TO_TOKEN)
        args.cross.how = ops->narrow;
    struct um_call call = {.args = &args, .t = t, .n = job->n, .pool = pool, .stream = &stream};
    ops->kernel[job->op](&call);
    return stream.status;
}
