/* SPDX-License-Identifier: Apache-2.0 */
#include "summary.h"

#include "text.h"

#include <math.h>
#include <stdlib.h>

/* ---- accuracy ---- */

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
        double at = (double)p->score * (SCORE_BUCKETS - 1);
        struct scored *b = &s->boxes[at > 0 && at < SCORE_BUCKETS ? (int)at : 0];
        *(iou >= 0.5 ? &b->hits : &b->misses) += 1;
        s->found += iou >= 0.5;
        s->false_found += !truth->has_bone;
        if (iou >= 0.5)
            s->box_iou_sum += iou;
    }
    if (truth->has_bone && p->segmenter_sha256[0])
        score_mask(s, p, truth);
}

void summary_add(struct summary *s, const um_packet *p, const um_truth *truth)
{
    s->frames++;
    if (p->has_scores) {
        s->tracked++;
        s->detected += p->detected != 0;
        s->tag[p->tag & 3]++;
    }
    if (truth)
        score(s, p, truth);
}

double summary_precision(const struct summary *s)
{
    uint64_t hits = 0, all = 0;
    double best = 0, sum = 0;
    int r = 100;
    /* From the lowest score up: the precision of a recall point is the best that any threshold
     * reaches at it or beyond. */
    for (int i = 0; i < SCORE_BUCKETS; i++) {
        hits += s->boxes[i].hits;
        all += s->boxes[i].hits + s->boxes[i].misses;
    }
    for (int i = 0; i < SCORE_BUCKETS && all > 0 && s->with_bone; i++) {
        const struct scored *b = &s->boxes[i];
        if (!b->hits && !b->misses)
            continue;
        double recall = (double)hits / (double)s->with_bone, p = (double)hits / (double)all;
        for (; r >= 0 && recall < r / 100.0; r--)
            sum += best;
        best = p > best ? p : best;
        hits -= b->hits;
        all -= b->hits + b->misses;
    }
    for (; r >= 0; r--)
        sum += best;
    return sum / 101;
}

/* Lines of the table: the pipeline's stages and their sum, then the frame's way from its receipt.
 */
static void print_times(FILE *f, const um_monitor_view *view)
{
    static const struct {
        const char *name;
        int time;
    } rows[] = {{"upload", UM_TIME_UPLOAD},   {"detect", UM_TIME_DETECT},
                {"segment", UM_TIME_SEGMENT}, {"packet", UM_TIME_PACKET},
                {"total", UM_TIME_TOTAL},     {"wait", UM_TIME_WAIT},
                {"latency", UM_TIME_LATENCY}};
    fprintf(f, "stage ms   %8s %8s %8s %8s %8s\n", "min", "p50", "p95", "p99", "max");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const um_times *t = &view->time[rows[i].time];
        fprintf(f, "  %-8s %8.2f %8.2f %8.2f %8.2f %8.2f\n", rows[i].name, t->least, t->p50, t->p95,
                t->p99, t->most);
    }
}

static void print_ledger(FILE *f, const um_monitor_view *v)
{
    if (v->last.shared && !v->copies) /* both, after the loss of a device */
        fprintf(f, "ledger     host and device share memory: no copies\n");
    else if (v->packets)
        fprintf(
            f,
            "ledger     per frame %u..%u up, %u..%u down, %.1f waits; %.1f KB up, %.1f KB "
            "down; %llu setup copies\n",
            v->least.up, v->most.up, v->least.down, v->most.down,
            (double)v->waits / (double)v->packets, (double)v->up_bytes / 1024 / (double)v->packets,
            (double)v->down_bytes / 1024 / (double)v->packets, (unsigned long long)v->setup_copies);
}

static void print_deadline(FILE *f, const um_monitor_view *v)
{
    if (!v->with_deadline)
        return;
    fprintf(f, "deadline   missed by %llu of %llu packets (%.1f %%); effort",
            (unsigned long long)v->missed, (unsigned long long)v->with_deadline,
            100 * (double)v->missed / (double)v->with_deadline);
    for (int i = 0; i < UM_EFFORTS; i++)
        fprintf(f, "%s %llu %s", i ? "," : "", (unsigned long long)v->effort[i],
                um_effort_name((um_effort)i));
    fprintf(f, "\n");
}

void summary_print(const struct summary *s, FILE *f, const um_run_counts *counts,
                   const um_monitor_view *view, double seconds)
{
    fprintf(f, "\nframes     %llu: %llu VISIBLE, %llu LOST", (unsigned long long)counts->frames,
            (unsigned long long)counts->visible, (unsigned long long)counts->lost);
    if (s->tracked)
        fprintf(f, ", %llu RELOCALIZING", (unsigned long long)counts->relocalizing);
    fprintf(f, ", %llu unreadable", (unsigned long long)counts->unreadable);
    if (counts->not_finite)
        fprintf(f, ", %llu without a finite result", (unsigned long long)counts->not_finite);
    if (counts->replaced)
        fprintf(f, ", %llu replaced by a newer one", (unsigned long long)counts->replaced);
    if (counts->too_old)
        fprintf(f, ", %llu too old", (unsigned long long)counts->too_old);
    if (counts->left)
        fprintf(f, ", %llu left at the end", (unsigned long long)counts->left);
    if (counts->dropped)
        fprintf(f, ", %llu packet%s dropped by sinks", (unsigned long long)counts->dropped,
                plural(counts->dropped));
    if (counts->device_lost)
        fprintf(f, ", device lost");
    fprintf(f, "; %.1f s, %.1f fps\n", seconds, seconds > 0 ? (double)counts->frames / seconds : 0);
    if (view->packets)
        print_times(f, view);
    print_ledger(f, view);
    print_deadline(f, view);
    if (s->tracked)
        fprintf(
            f,
            "track      masks %llu fresh, %llu predicted, %llu stale, %llu withheld; the detector "
            "ran on %llu of %llu frames\n",
            (unsigned long long)s->tag[UM_TAG_FRESH], (unsigned long long)s->tag[UM_TAG_PREDICTED],
            (unsigned long long)s->tag[UM_TAG_STALE], (unsigned long long)s->tag[UM_TAG_WITHHELD],
            (unsigned long long)s->detected, (unsigned long long)s->tracked);
    if (!s->with_truth)
        return;
    fprintf(
        f,
        "truth      %llu frame%s, %llu with bone: AP50 %.3f, %llu found at IoU 0.5 (mean box IoU "
        "%.3f), %llu false on %llu empty frames\n",
        (unsigned long long)s->with_truth, plural(s->with_truth), (unsigned long long)s->with_bone,
        summary_precision(s), (unsigned long long)s->found,
        s->found ? s->box_iou_sum / (double)s->found : 0, (unsigned long long)s->false_found,
        (unsigned long long)(s->with_truth - s->with_bone));
    if (s->dice_sum > 0)
        fprintf(f,
                "           masks of the whole pipeline: Dice %.3f, IoU %.3f (a missed bone counts "
                "0)\n",
                s->dice_sum / (double)s->with_bone, s->iou_sum / (double)s->with_bone);
}
