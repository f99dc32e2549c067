/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ULTRAMOTION_PREDICTOR_H
#define ULTRAMOTION_PREDICTOR_H

#include "ultramotion/segmenter.h"
#include "ultramotion/values.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A session on a segmenter, SAM's SamPredictor: the current image, and what is recorded for it.
 * Threads: one call at a time on one predictor; different predictors at the same time. */
typedef struct um_predictor um_predictor;

/** The image encoder's result for one image: f32, fp16 or bf16 [1,256,n,n] on the device, n =
 * canvas/16 (LiteMedSAM: canvas/4). Immutable and reference counted: keep several, use each from
 * any thread. */
typedef struct um_embedding um_embedding;

/** Prompts in pixels of the image. */
typedef struct um_prompts {
    size_t struct_size;
    const float *box;        /**< x0,y0,x1,y1 or NULL */
    const float *points;     /**< n_points x,y pairs */
    const int *labels;       /**< n_points: 1 object, 0 background, -1 padding */
    int n_points;            /**< at most 16 */
    const float *mask_input; /**< low-res logits [side,side] of an earlier prediction, or NULL; side
                                as in low_res_side */
    bool multimask;          /**< three masks instead of one */
    bool want_logits;        /**< with want_values: full-size logits f32 instead of booleans */
    um_mask_mode as_numpy;
    bool want_values; /**< fill in um_prediction.masks, scores, low instead of mask, iou, low_res */
} um_prompts;

/** What predict() returns. The caller sets struct_size; everything else in it is owned by the
 * caller and freed with um_prediction_close(). */
typedef struct um_prediction {
    size_t struct_size;
    int count; /**< 1 or 3 */
    um_values *mask[3];
    float iou[3];   /**< host mode only; NaN in device mode (they stay on the device) */
    float *low_res; /**< host mode: [count,4n,4n] logits; NULL in device mode */
    int low_res_side;
    um_values *masks;  /**< with want_values: [count,H,W] booleans or logits, */
    um_values *scores; /**< [count] predicted IoU, */
    um_values *low;    /**< [count,4n,4n] logits; all where as_numpy says */
} um_prediction;

/** Open a session, with a reference to the segmenter. @return UM_OK; UM_EINVAL; UM_ENOMEM;
 * UM_EDEVICE. */
UM_API um_status um_predictor_open(um_predictor **out, um_segmenter *segmenter);
/** Close and set to NULL. Accepts NULL. Masks and embeddings that it made stay. */
UM_API void um_predictor_close(um_predictor **predictor);
/** Encode an image; it is the current one for any number of predictions. */
UM_API um_status um_predictor_set_image(um_predictor *predictor, const um_image *image);
/** Make the image of an embedding the current one. UM_EINVAL for one of another model, canvas or
 * device. */
UM_API um_status um_predictor_set_embedding(um_predictor *predictor, const um_embedding *embedding);
/** The current image's embedding as a value, one reference for the caller. UM_EINVAL without an
 * image. */
UM_API um_status um_predictor_embedding(um_predictor *predictor, um_embedding **out);
/**
 * Predict on the current image.
 *
 * @param out receives masks and scores; its struct_size is set by the caller. On error it is empty.
 * @return UM_OK; UM_EINVAL without an image or prompt, or for a bad box; UM_ENUMERIC in host mode
 * if the network's results are not finite; UM_EDEVICE; UM_ENOMEM.
 */
UM_API um_status um_predictor_predict(um_predictor *predictor, const um_prompts *prompts,
                                      um_prediction *out);
/**
 * The scores (predicted IoU) of the last prediction, wherever its masks are: one small download,
 * booked.
 *
 * @param iou receives as many as the prediction has masks, 1 or 3.
 * @return UM_OK; UM_EINVAL without a prediction; UM_ENUMERIC if one is not a finite number, and
 * then the masks mean nothing; UM_EDEVICE.
 */
UM_API um_status um_predictor_scores(um_predictor *predictor, float *iou);
/** Free what a prediction holds and empty it. Accepts an empty one and NULL. */
UM_API void um_prediction_close(um_prediction *prediction);

/** Keep the named intermediates of every prediction for um_predictor_dump(); before the first
 * image. Costs memory. */
UM_API um_status um_predictor_keep_taps(um_predictor *predictor);
/** Write the taps of the last prediction as .safetensors: image_embedding, low_res_logits, iou,
 * mask and the named intermediates; those of the encoder only where the predictor's own has run. */
UM_API um_status um_predictor_dump(um_predictor *predictor, const char *path);

/** Encode an image without a session. *out has one reference for the caller. Threads: any; such
 * calls on one segmenter take turns. */
UM_API um_status um_segmenter_encode(um_segmenter *segmenter, const um_image *image,
                                     um_embedding **out);
/** Predict on an embedding without a session, as um_predictor_predict(). Threads: any; such calls
 * on one segmenter take turns. */
UM_API um_status um_segmenter_predict(um_segmenter *segmenter, const um_embedding *embedding,
                                      const um_prompts *prompts, um_prediction *out);

/** Add a reference and return the embedding. Threads: any. */
UM_API um_embedding *um_embedding_ref(um_embedding *embedding);
/** Drop a reference and set *embedding to NULL; the last one frees it. Accepts NULL. Threads: any.
 */
UM_API void um_embedding_unref(um_embedding **embedding);
/** Size of the image it was made from. */
UM_API void um_embedding_image_size(const um_embedding *embedding, int *width, int *height);
/** Its numbers [1,256,n,n], read-only, one reference for the caller. */
UM_API um_values *um_embedding_values(const um_embedding *embedding);
/** The same embedding as that of an image of another size: for callers that resized the image
 * before encoding it and prompt in the original image. Shares its memory. @return UM_OK;
 * UM_EINVAL; UM_ENOMEM. */
UM_API um_status um_embedding_resized(um_embedding **out, const um_embedding *embedding, int width,
                                      int height);
/** Write it as .safetensors, with the model's sha256 and the image's size as metadata. */
UM_API um_status um_embedding_save(const um_embedding *embedding, const char *path);
/** Read a file of um_embedding_save(). @return UM_OK; UM_EIO; UM_EFORMAT, also for an embedding of
 * another model or canvas; UM_ENOMEM. */
UM_API um_status um_embedding_load(um_embedding **out, const um_segmenter *segmenter,
                                   const char *path);

#ifdef __cplusplus
}
#endif
#endif
