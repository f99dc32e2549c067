/* SPDX-License-Identifier: Apache-2.0 */
/* One-shot calls on a segmenter, from any thread: they take turns on a predictor that is kept in
 * it. */
#include "predict/predictor.h"

#include "base/mem.h"
#include "base/record.h"
#include "base/thread.h"

/* The segmenter's own predictor, with its lock held; NULL and a status if there is none. */
static um_status take_own(um_segmenter *s, const char *call, um_predictor **out)
{
    um_status st = um_turn_take(&s->own_lock, call, "this segmenter");
    if (st != UM_OK)
        return st;
    if (!s->own) {
        st = um_predictor_open_own(&s->own, s);
        s->close_own = um_predictor_close;
    }
    *out = s->own;
    if (st != UM_OK)
        pthread_mutex_unlock(&s->own_lock);
    return st;
}

um_status um_segmenter_encode(um_segmenter *segmenter, const um_image *image, um_embedding **out)
{
    um_predictor *p = NULL;
    if (out)
        *out = NULL;
    if (!segmenter || !image || !out)
        return um_fail(UM_EINVAL, "um_segmenter_encode: segmenter, image and out must be given");
    um_status st = take_own(segmenter, "um_segmenter_encode", &p);
    if (st != UM_OK)
        return st;
    st = um_predictor_set_image(p, image);
    if (st == UM_OK)
        st = um_predictor_embedding(p, out);
    pthread_mutex_unlock(&segmenter->own_lock);
    return st;
}

um_status um_segmenter_predict(um_segmenter *segmenter, const um_embedding *embedding,
                               const um_prompts *prompts, um_prediction *out)
{
    um_predictor *p = NULL;
    um_status st = um_prediction_empty(out);
    if (!segmenter || !embedding || !prompts || !out)
        return um_fail(UM_EINVAL, "um_segmenter_predict: segmenter, embedding, prompts and out "
                                  "must be given");
    if (st == UM_OK)
        st = take_own(segmenter, "um_segmenter_predict", &p);
    if (st != UM_OK)
        return st;
    st = um_predictor_set_embedding(p, embedding);
    if (st == UM_OK)
        st = um_predictor_predict(p, prompts, out);
    pthread_mutex_unlock(&segmenter->own_lock);
    return st;
}

um_status um_run_segmentation(um_segmenter *segmenter, const um_image *image,
                              const float *bbox_xyxy, um_mask_mode as_numpy, um_values **out)
{
    um_prediction prediction = {.struct_size = sizeof prediction};
    um_image size = {0};
    um_predictor *p = NULL;
    if (!out)
        return um_fail(UM_EINVAL, "um_run_segmentation: out is NULL");
    *out = NULL;
    if (!segmenter || !image)
        return UM_OK;
    um_status st = um_record_in(&size, sizeof size, image, "um_image");
    float whole[4] = {0, 0, (float)size.width, (float)size.height};
    um_prompts prompts = {
        .struct_size = sizeof prompts, .box = bbox_xyxy ? bbox_xyxy : whole, .as_numpy = as_numpy};
    if (st == UM_OK && bbox_xyxy)
        st = um_box_check(bbox_xyxy, size.width, size.height);
    if (st == UM_OK)
        st = take_own(segmenter, "um_run_segmentation", &p);
    if (st != UM_OK)
        return st;
    st = um_predictor_set_image(p, image);
    if (st == UM_OK)
        st = um_predictor_predict(p, &prompts, &prediction);
    pthread_mutex_unlock(&segmenter->own_lock);
    if (st != UM_OK)
        return st;
    *out = prediction.mask[0];
    prediction.mask[0] = NULL;
    um_prediction_close(&prediction);
    return UM_OK;
}

um_status um_run_segmentation_legacy(um_segmenter *segmenter, const um_image *roi,
                                     um_mask_mode as_numpy, um_values **out)
{
    return um_run_segmentation(segmenter, roi, NULL, as_numpy, out);
}

um_status um_mask_from_host(um_values **out, um_segmenter *segmenter, const float *values,
                            int height, int width)
{
    if (out)
        *out = NULL;
    if (!out || !segmenter || !values || height < 1 || width < 1 || height > UM_FRAME_MAX_SIDE ||
        width > UM_FRAME_MAX_SIDE)
        return um_fail(UM_EINVAL,
                       "um_mask_from_host: %dx%d: want sides of 1 to %d, a segmenter and values",
                       width, height, UM_FRAME_MAX_SIDE);
    size_t n = (size_t)height * (size_t)width;
    um_values *m = NULL;
    uint8_t *bits = um_zalloc(n);
    um_status st =
        bits ? um_mask_open(&m, segmenter->dev, false, height, width) : um_fail(UM_ENOMEM, "mask");
    for (size_t i = 0; st == UM_OK && i < n; i++)
        bits[i] = values[i] > 0.5f;
    if (st == UM_OK)
        st = um_upload_now(segmenter->dev, m->buf, 0, bits, n, UM_STAGE_SEGMENT,
                           "host mask to the model's device");
    um_free(bits);
    if (st != UM_OK)
        um_values_unref(&m);
    *out = m;
    return st;
}
