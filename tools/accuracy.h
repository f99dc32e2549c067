/* SPDX-License-Identifier: Apache-2.0 */
/* The measures of `val`: COCO's average precision, overlap and distance of masks, and how sure a
 * mean over frames is. No files, no networks. */
#ifndef UM_ACCURACY_H
#define UM_ACCURACY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AP_THRESHOLDS = 10, AP_DETECTIONS = 100 };

/* COCO's average precision of boxes, as pycocotools computes it (all sizes, 100 detections an
 * image): IoU from 0.5 to 0.95 in ten steps, precision at 101 recalls, mean over categories. */
typedef struct ap ap;

struct ap_box {
    double box[4]; /* x, y, width, height */
    double score;
    int category;
    bool crowd; /* of truth: neither found nor missed */
};

ap *ap_open(int categories); /* NULL: no memory */
void ap_close(ap *a);
/* One frame, numbered from 0 in the order of the calls. False: no memory. */
bool ap_add(ap *a, const struct ap_box *found, int n_found, const struct ap_box *truth,
            int n_truth);
/* weight: how often each frame counts, or NULL: once. category: -1 = the mean of all that truth
 * has. *all: mean over the thresholds, *half: at an IoU of 0.5; NaN without truth. False: no
 * memory. */
bool ap_value(ap *a, const unsigned *weight, int category, double *all, double *half);

double box_iou(const double a[4], const double b[4]);

/* Pixels of a, of b and of both; bytes 0/1. */
void mask_overlap(const uint8_t *a, const uint8_t *b, size_t n, size_t *only_a, size_t *only_b,
                  size_t *both);

/* Distances between the borders of two masks that are not empty, as medpy's hd95 and assd: a border
 * pixel has a neighbour outside, or lies at the image's edge. False: no memory. */
bool surface_distance(const uint8_t *a, const uint8_t *b, int width, int height, double sx,
                      double sy, double *hd95, double *mean);

/* A mask against a line, both not empty: the share of the line's pixels within `reach` pixels of
 * the mask, of the mask's within `exact` of the line, and the median distance of the mask's pixels
 * to the line. False: no memory. */
bool line_distance(const uint8_t *mask, const uint8_t *line, int width, int height, double reach,
                   double exact, double *covered, double *precision, double *median);

/* Ascending, NaN left out; returns how many are left. */
int sort_numbers(double *value, int n);
/* Where the middle 95 % of `value` lie; sorts it likewise. */
void interval(double *value, int n, double *lo, double *hi);

#endif
