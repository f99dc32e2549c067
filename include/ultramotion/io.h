/* SPDX-License-Identifier: Apache-2.0 */
/* Images in files. */
#ifndef ULTRAMOTION_IO_H
#define ULTRAMOTION_IO_H

#include "ultramotion/frame.h"
#include "ultramotion/packet.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Read a PNG, JPEG, BMP, the first page of a TIFF or the first frame of a video, by content. Gray
 * stays gray; everything else becomes RGB; alpha is dropped; 16 bits become 8. An image is rotated
 * as its file says (EXIF). */
UM_API um_status um_image_read(const char *path, um_frame **out);
/** Read a label image: bytes 0/1 [height*width] in *mask, owned by the caller (um_free()), 1
 * where any colour's sample, of 8 bits or 16, is not 0. UM_EFORMAT also for a PNG in which only
 * alpha tells pixels apart, and for a JPEG. On error *mask is NULL. */
UM_API um_status um_label_read(const char *path, uint8_t **mask, int *width, int *height);
/** The image and video formats that this build reads, as text for people. */
UM_API const char *um_image_kinds(void);
/** Do both paths lead to the same file, also through links? 1 or 0. */
UM_API int um_same_file(const char *a, const char *b);
/** Write 8-bit PNG, channels 1 or 3, rows contiguous. */
UM_API um_status um_image_write_png(const char *path, const uint8_t *pixels, int width, int height,
                                    int channels);
/** The image with every object's mask tint, mask outline, box and a caption of class name and
 * score: RGB [height*width*3] owned by the caller (um_free()). */
UM_API um_status um_overlay(const um_packet *packet, const um_frame *frame, uint8_t **rgb);

/**
 * Generate phantom frames with truth: frames/00000.png, masks/00000_mask.png, truth.json (COCO).
 * The same seed gives the same bytes. UM_EINVAL if images of an older set would remain among them.
 * @param look NULL or "default"; "hard": truth.json also says which other structures an image has,
 * and structures/00000.png where (0, or the index of a structure + 1); masks/ has all bones of an
 * image together, truth.json each one. "sweep": sweeps of 105 frames of a probe that approaches,
 * dwells, is frozen, lifted, …, of 422x558 pixels, as frames/sweep000/00000.png, …; truth.json also
 * says the event and the probe's pose of each.
 * @param progress called after each frame, or NULL; what is not 0 ends it there, with the truth of
 * the frames that were written.
 */
UM_API um_status um_phantom_write(const char *dir, const char *look, uint64_t seed, long frames,
                                  int width, int height, int (*progress)(void *ctx, long done),
                                  void *ctx);

/** COCO compressed RLE of a row-major mask (nonzero = set). *counts owned by the caller
 * (um_free()). */
UM_API um_status um_rle_encode(const uint8_t *mask, int width, int height, char **counts);

#ifdef __cplusplus
}
#endif
#endif
