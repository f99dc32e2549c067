/* SPDX-License-Identifier: Apache-2.0 */
#include "predict/mask.h"

#include "base/mem.h"
#include "base/record.h"
#include "engine/segmenter.h"

#include <string.h>

um_mask *um_mask_new(um_device *dev, int h, int w)
{
    um_mask *m = um_zalloc(sizeof *m);
    if (m)
        *m = (um_mask){.dev = dev, .h = h, .w = w};
    return m;
}

void um_mask_close(um_mask **mask)
{
    um_mask *m = *mask;
    if (!m)
        return;
    um_buf_close(&m->buf);
    um_free(m->data);
    um_free(m);
    *mask = NULL;
}

bool um_mask_on_host(const um_mask *mask)
{
    return mask->data != NULL;
}

int um_mask_rank(const um_mask *mask)
{
    return mask->data ? 2 : 4;
}

void um_mask_shape(const um_mask *mask, int64_t shape[4])
{
    int first = um_mask_rank(mask) - 2;
    for (int i = 0; i < first; i++)
        shape[i] = 1;
    shape[first] = mask->h;
    shape[first + 1] = mask->w;
}

const char *um_mask_device(const um_mask *mask)
{
    return mask->data ? "cpu" : um_device_name(mask->dev);
}

const uint8_t *um_mask_data(const um_mask *mask)
{
    return mask->data;
}

um_status um_mask_describe(const um_mask *mask, um_device_array *out)
{
    if (!mask || !out)
        return um_fail(UM_EINVAL, "um_mask_describe: %s is NULL", mask ? "out" : "mask");
    um_device_array a = {.struct_size = sizeof a,
                         .data = mask->data ? mask->data : (void *)um_buf_address(mask->buf),
                         .device = um_mask_device(mask),
                         .type = UM_ARRAY_BOOL,
                         .rank = um_mask_rank(mask),
                         .stream = mask->data ? NULL : um_queue_stream(mask->dev, UM_QUEUE_MAIN)};
    um_mask_shape(mask, a.shape);
    for (int i = a.rank; i-- > 0;)
        a.strides[i] = i + 1 == a.rank ? 1 : a.strides[i + 1] * a.shape[i + 1];
    return um_record_out(out, &a, sizeof a, "um_device_array");
}

um_status um_mask_read(const um_mask *mask, uint8_t *out)
{
    size_t n = (size_t)mask->h * (size_t)mask->w;
    if (!mask->data)
        return um_download_now(mask->dev, out, mask->buf, 0, n, UM_STAGE_PACKET,
                               "mask read by the caller");
    memcpy(out, mask->data, n);
    return UM_OK;
}

um_status um_mask_from_host(um_mask **out, um_segmenter *segmenter, const float *values, int height,
                            int width)
{
    if (out)
        *out = NULL;
    if (!out || !segmenter || !values || height < 1 || width < 1 || height > UM_FRAME_MAX_SIDE ||
        width > UM_FRAME_MAX_SIDE)
        return um_fail(UM_EINVAL, "um_mask_from_host: %dx%d", width, height);
    size_t n = (size_t)height * (size_t)width;
    um_mask *m = um_mask_new(segmenter->dev, height, width);
    uint8_t *bits = um_zalloc(n);
    um_status st =
        m && bits ? um_buf_open(&m->buf, segmenter->dev, n, "mask") : um_fail(UM_ENOMEM, "mask");
    for (size_t i = 0; st == UM_OK && i < n; i++)
        bits[i] = values[i] > 0.5f;
    if (st == UM_OK)
        st = um_upload_now(segmenter->dev, m->buf, 0, bits, n, UM_STAGE_SEGMENT,
                           "host mask to the model's device");
    um_free(bits);
    if (st != UM_OK)
        um_mask_close(&m);
    *out = m;
    return st;
}
