/* SPDX-License-Identifier: Apache-2.0 */
#include "predict/image.h"

#include "base/record.h"

#include <string.h>

bool um_image_on_device(const um_image *image)
{
    return image->device && strcmp(image->device, "cpu") != 0;
}

um_status um_image_check(const um_image *image)
{
    int c = image->channels;
    if (!image->data)
        return um_fail(UM_EINVAL, "image without data");
    if (image->type != UM_IMAGE_U8 && image->type != UM_IMAGE_F32)
        return um_fail(UM_EINVAL, "image type %d: want UM_IMAGE_U8 or UM_IMAGE_F32",
                       (int)image->type);
    if (image->layout != UM_IMAGE_HW && image->layout != UM_IMAGE_HWC &&
        image->layout != UM_IMAGE_CHW)
        return um_fail(UM_EINVAL, "image layout %d: want UM_IMAGE_HW, UM_IMAGE_HWC or UM_IMAGE_CHW",
                       (int)image->layout);
    if (image->layout == UM_IMAGE_HW && c != 1)
        return um_fail(UM_EINVAL, "image layout HW has 1 channel, not %d", c);
    um_frame *probe = NULL; /* the limits of a frame are written in one place */
    um_status st = um_frame_wrap(&probe, image->width, image->height, c, (uint8_t *)"",
                                 (ptrdiff_t)image->width * c, NULL, NULL);
    um_frame_unref(&probe);
    if (st != UM_OK)
        return st;
    ptrdiff_t sample = image->type == UM_IMAGE_U8 ? 1 : (ptrdiff_t)sizeof(float);
    ptrdiff_t row = sample * image->width * (image->layout == UM_IMAGE_CHW ? 1 : c);
    ptrdiff_t step = image->row_bytes, most = PTRDIFF_MAX / (3 * UM_FRAME_MAX_SIDE);
    bool rows = image->height * (image->layout == UM_IMAGE_CHW ? c : 1) > 1;
    if (step < 0 && step >= -most && !um_image_on_device(image)) /* from the last row up */
        step = -step;
    if (rows && step && (step < row || step > most || step % sample))
        return um_fail(UM_EINVAL,
                       "image with %td bytes from row to row: want 0 or at least %td, a multiple "
                       "of %td",
                       image->row_bytes, row, sample);
    return UM_OK;
}

/* n numbers of a line, `gap` bytes apart in the frame. */
static void copy_bytes(uint8_t *to, int gap, const uint8_t *from, int n)
{
    if (gap == 1)
        memcpy(to, from, (size_t)n);
    else
        for (int i = 0; i < n; i++)
            to[i * gap] = from[i];
}

/* range: the least and the greatest so far. */
static void copy_floats(uint8_t *to, int gap, const float *from, int n, float range[2])
{
    for (int i = 0; i < n; i++) {
        float v = from[i];
        range[0] = v < range[0] ? v : range[0];
        range[1] = v > range[1] ? v : range[1];
        /* clip, times 255, truncate; NaN is black */
        to[i * gap] = (uint8_t)((v > 0 ? (v < 1 ? v : 1) : 0) * 255.0f);
    }
}

um_status um_frame_from_image(um_frame **out, const um_image *image)
{
    /* of whoever resized it; what is beyond has other units */
    static const float overshoot[2] = {-0.75f, 2};
    float range[2] = {0, 0};
    um_image own = {0};
    if (out)
        *out = NULL;
    if (!out || !image)
        return um_fail(UM_EINVAL, "um_frame_from_image: %s is NULL", out ? "image" : "out");
    um_status st = um_record_in(&own, sizeof own, image, "um_image");
    if (st == UM_OK)
        st = um_image_check(&own);
    if (st == UM_OK && um_image_on_device(&own))
        st = um_fail(UM_EINVAL, "a frame is in host memory, the image on device %s", own.device);
    if (st == UM_OK)
        st = um_frame_create(out, own.width, own.height, own.channels);
    if (st != UM_OK)
        return st;
    bool u8 = own.type == UM_IMAGE_U8, planar = own.layout == UM_IMAGE_CHW;
    int c = own.channels, gap = planar ? c : 1, n = planar ? own.width : own.width * c;
    ptrdiff_t row = own.row_bytes ? own.row_bytes : n * (u8 ? 1 : (ptrdiff_t)sizeof(float));
    for (int k = 0; k < gap; k++)
        for (int y = 0; y < own.height; y++) {
            const void *line = (const char *)own.data + row * (k * own.height + y);
            uint8_t *to = (*out)->pixels + (ptrdiff_t)y * (*out)->stride + k;
            if (u8)
                copy_bytes(to, gap, line, n);
            else
                copy_floats(to, gap, line, n, range);
        }
    if (range[0] >= overshoot[0] && range[1] <= overshoot[1])
        return UM_OK;
    um_frame_unref(out);
    return um_fail(UM_EINVAL, "image of f32 from %g to %g: want 0 to 1, or u8 (0 to 255)",
                   (double)range[0], (double)range[1]);
}
