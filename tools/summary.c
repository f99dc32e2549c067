/* SPDX-License-Identifier: Apache-2.0 */
#include "summary.h"

#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int best_first(const void *a, const void *b)
{
    const struct scored_box *x = a, *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

void summary_percentiles(const double *values, size_t n, double *min, double *p50, double *p99,
                         double *max)
{
    double *v = n ? malloc(n * sizeof *v) : NULL;
    *min = *p50 = *p99 = *max = 0;
    if (!v)
        return;
    memcpy(v, values, n * sizeof *v);
    qsort(v, n, sizeof *v, ascending);
    *min = v[0];
    *p50 = v[n / 2];
    *p99 = v[(n * 99 + 99) / 100 - 1];
    *max = v[n - 1];
    free(v);
}

static int reserve(struct summary *s)
{
    if (s->frames < s->capacity)
        return 1;
    size_t n = s->capacity * 2 + 1024;
    for (int i = 0; i < STAGES; i++) {
        double *grown = realloc(s->ms[i], n * sizeof *grown);
        if (!grown)
            return 0;
        s->ms[i] = grown;
    }
    struct scored_box *boxes = realloc(s->boxes, n * sizeof *boxes);
    if (!boxes)
        return 0;
    s->boxes = boxes;
    s->capacity = n;
    return 1;
}

static double box_iou(const float *a, const float *b)
{
    double w = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]),
           h = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    double inter = w > 0 && h > 0 ? w * h : 0;
    double both =
        (double)(a[2] - a[0]) * (a[3] - a[1]) + (double)(b[2] - b[0]) * (b[3] - b[1]) - inter;
    return both > 0 ? inter / both : 0;
}

static void score_mask(struct summary *s, const um_packet *p, const um_truth *truth)
{
    uint64_t inter = 0, mine = 0, theirs = 0;
    size_t n = (size_t)p->width * (size_t)p->height;
    uint8_t *mask = malloc(n);
    if (!mask)
        return;
    um_packet_mask(p, mask, 1);
    for (size_t i = 0; i < n; i++) {
        int t = truth->mask && truth->mask[i];
        inter += mask[i] && t;
        mine += mask[i];
        theirs += (uint64_t)t;
    }
    free(mask);
    if (mine + theirs) {
        s->dice_sum += 2.0 * (double)inter / (double)(mine + theirs);
        s->iou_sum += (double)inter / (double)(mine + theirs - inter);
    }
}

static void score(struct summary *s, const um_packet *p, const um_truth *truth)
{
    s->with_truth++;
    s->with_bone += truth->has_bone != 0;
    if (p->has_box) {
        double iou = truth->has_bone ? box_iou(p->box, truth->box) : 0;
        s->boxes[s->n_boxes++] = (struct scored_box){p->score, iou >= 0.5};
        s->found += iou >= 0.5;
        s->false_found += !truth->has_bone;
        if (iou >= 0.5)
            s->box_iou_sum += iou;
    }
    if (truth->has_bone && p->segmenter_sha256[0])
        score_mask(s, p, truth);
}

static uint32_t max32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

int summary_add(struct summary *s, const um_packet *p, const um_truth *truth)
{
    if (!reserve(s))
        return 0;
    double ms[STAGES] = {p->ms.upload, p->ms.detect, p->ms.segment, p->ms.packet, p->ms.total};
    for (int i = 0; i < STAGES; i++)
        s->ms[i][s->frames] = ms[i];
    if (!s->frames)
        s->least = p->transfers;
    s->last = p->transfers;
    s->most.up = max32(s->most.up, p->transfers.up);
    s->most.down = max32(s->most.down, p->transfers.down);
    s->most.setup += p->transfers.setup;
    s->least.up = p->transfers.up < s->least.up ? p->transfers.up : s->least.up;
    s->least.down = p->transfers.down < s->least.down ? p->transfers.down : s->least.down;
    s->up_bytes += p->transfers.up_bytes;
    s->down_bytes += p->transfers.down_bytes;
    s->waits += p->transfers.waits;
    s->frames++;
    if (truth)
        score(s, p, truth);
    return 1;
}

/* Average precision at IoU 0.5 with COCO's 101 recall points; one box a frame, frames below --conf
 * have none. */
static double average_precision(const struct summary *s)
{
    double sum = 0, *precision = malloc((s->n_boxes + 1) * sizeof *precision),
           *recall = malloc((s->n_boxes + 1) * sizeof *recall);
    struct scored_box *boxes = malloc((s->n_boxes + 1) * sizeof *boxes);
    size_t hits = 0, at = 0;
    if (precision && recall && boxes && s->with_bone) {
        memcpy(boxes, s->boxes, s->n_boxes * sizeof *boxes);
        qsort(boxes, s->n_boxes, sizeof *boxes, best_first);
        for (size_t i = 0; i < s->n_boxes; i++) {
            hits += (size_t)boxes[i].hit;
            precision[i] = (double)hits / (double)(i + 1);
            recall[i] = (double)hits / (double)s->with_bone;
        }
        for (size_t i = s->n_boxes; i-- > 1;)
            if (precision[i - 1] < precision[i])
                precision[i - 1] = precision[i];
        for (int r = 0; r <= 100; r++) {
            while (at < s->n_boxes && recall[at] < r / 100.0)
                at++;
            sum += at < s->n_boxes ? precision[at] : 0;
        }
    }
    free(precision);
    free(recall);
    free(boxes);
    return sum / 101;
}

void summary_print(const struct summary *s, FILE *f, const um_run_stats *stats, double seconds)
{
    static const char *const names[STAGES] = {"upload", "detect", "segment", "packet", "total"};
    fprintf(f, "\nframes     %llu: %llu VISIBLE, %llu LOST, %llu unreadable",
            (unsigned long long)stats->frames, (unsigned long long)stats->visible,
            (unsigned long long)stats->lost, (unsigned long long)stats->unreadable);
    if (stats->replaced)
        fprintf(f, ", %llu replaced by a newer one", (unsigned long long)stats->replaced);
    if (stats->device_lost)
        fprintf(f, ", device lost");
    fprintf(f, "; %.1f s, %.1f fps\n", seconds, seconds > 0 ? (double)stats->frames / seconds : 0);
    fprintf(f, "stage ms   %8s %8s %8s %8s\n", "min", "p50", "p99", "max");
    for (int i = 0; i < STAGES; i++) {
        double min, p50, p99, max;
        summary_percentiles(s->ms[i], s->frames, &min, &p50, &p99, &max);
        fprintf(f, "  %-8s %8.2f %8.2f %8.2f %8.2f\n", names[i], min, p50, p99, max);
    }
    if (s->last.shared && !s->up_bytes && !s->down_bytes) /* both, after the loss of a device */
        fprintf(f, "ledger     host and device share memory: no copies\n");
    else if (s->frames)
        fprintf(f,
                "ledger     per frame %u..%u up, %u..%u down, %.1f waits; %.1f KB up, %.1f KB "
                "down; %u setup copies\n",
                s->least.up, s->most.up, s->least.down, s->most.down,
                (double)s->waits / (double)s->frames,
                (double)s->up_bytes / 1024 / (double)s->frames,
                (double)s->down_bytes / 1024 / (double)s->frames, s->most.setup);
    if (!s->with_truth)
        return;
    fprintf(f,
            "truth      %zu frames, %zu with bone: AP50 %.3f, %zu found at IoU 0.5 (mean box IoU "
            "%.3f), %zu false on %zu empty frames\n",
            s->with_truth, s->with_bone, average_precision(s), s->found,
            s->found ? s->box_iou_sum / (double)s->found : 0, s->false_found,
            s->with_truth - s->with_bone);
    if (s->dice_sum > 0)
        fprintf(f,
                "           masks of the whole pipeline: Dice %.3f, IoU %.3f (a missed bone counts "
                "0)\n",
                s->dice_sum / (double)s->with_bone, s->iou_sum / (double)s->with_bone);
}

void summary_free(struct summary *s)
{
    for (int i = 0; i < STAGES; i++)
        free(s->ms[i]);
    free(s->boxes);
}
