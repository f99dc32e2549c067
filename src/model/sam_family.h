/* SPDX-License-Identifier: Apache-2.0 */
/* The families of networks that have SAM's prompt encoder and mask decoder, and all that they
 * differ in. */
#ifndef UM_MODEL_SAM_FAMILY_H
#define UM_MODEL_SAM_FAMILY_H

#include "nn/record.h"
#include "ultramotion/model.h"
#include "weights/weights.h"

#include <stdbool.h>

struct um_sam_family {
    const char *name; /* what metadata "architecture" starts with */
    um_model_kind kind;
    bool vit;   /* image encoder: SAM's ViT, else TinyViT */
    int patch;  /* pixels of the canvas per cell of the embedding, along a side */
    int canvas; /* upstream's */
    /* How image and prompts come to the canvas, and the mask back.
     *   LONGEST  Pillow's bilinear, mean and deviation of ImageNet, zeros right and below; the
     *            logits to the canvas, cropped, to the image
     *   RATIO    OpenCV's area, levels over 0..1, zeros right and below; the logits, which have the
     *            canvas' size, cropped, to the image
     *   STRETCH  scikit-image's cubic splines, aspect not kept, levels over 0..1; the
     *            probabilities to the image */
    enum um_fit fit;
    bool best_of_three; /* one mask is the best of masks 1 to 3, else mask 0 */
    bool bf16; /* its encoder was shown to serve as floats do (tests/parity/half_parity.py) */
};

/* The family of a checkpoint: what its tensors say, and where they leave a choice `wanted`, else
 * metadata "architecture". UM_EFORMAT if it is no SAM checkpoint or its metadata cannot be right;
 * UM_EINVAL if `wanted` (may be NULL) cannot. Reads names, shapes and metadata only. */
um_status um_sam_family_find(const um_weights *file, const char *wanted,
                             const struct um_sam_family **out);
/* Is it one at all? */
bool um_sam_recognise(const um_weights *file);
/* Side of the canvas that the file was made for, and whether its tensors say so. */
int um_sam_native_canvas(const struct um_sam_family *family, const um_weights *file);
/* "mobile-sam", "sam-vit-b", … */
void um_sam_architecture(const struct um_sam_family *family, const um_weights *file, char *name,
                         size_t size);

#endif
