/* SPDX-License-Identifier: Apache-2.0 */
/* val: the networks, or results that were written before, against truth. Boxes are judged as COCO
 * does, over all of the detector's; masks, lines and states as the pipeline publishes them: one
 * structure a frame, from --conf on. */
#include "accuracy.h"
#include "cli.h"
#include "clock.h"
#include "json.h"
#include "list.h"
#include "sheet.h"
#include "stop.h"
#include "tell.h"
#include "text.h"
#include "truth.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RESAMPLES = 500 };

/* A measure is a number for each frame it applies to (else NaN), and the mean of them, or the
 * median of medians; AP is of all frames together. */
enum measure {
    AP,
    AP50,
    BOX_IOU,
    DICE,
    IOU,
    HD95_MM,
    HD95_PX,
    SURFACE_MM,
    SURFACE_PX,
    COVERED,
    PRECISION,
    MEDIAN_PX,
    FOUND,
    FALSE_VISIBLE,
    DELAY,
    MEASURES
};

static const struct {
    const char *group, *key, *title;
} measures[MEASURES] = {
    {"boxes", "ap", "AP"},
    {"boxes", "ap50", "AP50"},
    {"boxes", "iou", "box IoU"},
    {"masks", "dice", "Dice"},
    {"masks", "iou", "IoU"},
    {"masks", "hd95_mm", "HD95 mm"},
    {"masks", "hd95_px", "HD95 px"},
    {"masks", "surface_mm", "surface mm"},
    {"masks", "surface_px", "surface px"},
    {"lines", "covered", "covered"},
    {"lines", "precision", "precision"},
    {"lines", "median_px", "median px"},
    {"sequence", "found", "found"},
    {"sequence", "false_visible", "false VISIBLE"},
    {"sequence", "delay_frames", "delay, frames"},
};

struct score {
    int sweep;
    int category;          /* of the structure that the frame is judged by; -1: it has none */
    bool present, visible; /* is something there, was something found? */
    double value[MEASURES];
};

/* What was found in one frame. */
struct finding {
    struct ap_box *box; /* best first */
    int boxes, shown;   /* shown: the one that a frame is judged by, as it has one structure */
    bool visible;
    uint8_t *mask; /* of that one, bytes 0/1, or NULL */
};

/* Results of COCO's form, of --results: by image, the best first. */
struct result {
    int64_t image;
    double score;
    long order;
    const cJSON *json;
};
struct results {
    cJSON *list;
    struct result *result;
    long n, used;
    bool no_masks; /* there are boxes to be seen, and not one mask */
};

/* A folder's frames. */
struct sweep {
    char *name;
    ap *ap;      /* of its frames alone */
    long begins; /* the frame where what is there came, or went */
    bool found;  /* since then */
};

struct val {
    const struct options *o;
    truth *truth;
    struct engine engine;
    int *category; /* of each of the detector's classes; -1: the data set does not know it */
    struct results results;
    ap *ap;
    sheet *sheet;
    FILE *written; /* results.json */
    bool first;
    double next_summary; /* --summary-every */
    struct score *score;
    long frames;
    struct sweep *sweep;
    int sweeps;
};

/* ---- what is found ---- */

static int by_image(const void *a, const void *b)
{
    const struct result *x = a, *y = b;
    if (x->image != y->image)
        return x->image < y->image ? -1 : 1;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static bool good_result(const cJSON *r)
{
    const cJSON *box = cJSON_GetObjectItemCaseSensitive(r, "bbox");
    int64_t id;
    bool good = truth_whole(cJSON_GetObjectItemCaseSensitive(r, "image_id"), &id) &&
                truth_whole(cJSON_GetObjectItemCaseSensitive(r, "category_id"), &id) &&
                cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(r, "score")) &&
                cJSON_GetArraySize(box) == 4;
    good = good && isfinite(cJSON_GetObjectItemCaseSensitive(r, "score")->valuedouble);
    for (int k = 0; k < 4 && good; k++) { /* the last two are width and height */
        const cJSON *v = cJSON_GetArrayItem(box, k);
        good = cJSON_IsNumber(v) && isfinite(v->valuedouble) && (k < 2 || v->valuedouble >= 0);
    }
    return good;
}

/* Is a frame with this best score VISIBLE? --conf is a float, as the scores of packets are: what
 * was written as 0.6 is not below 0.6. */
static bool shows(const struct val *v, double score)
{
    return (float)score >= v->o->conf;
}

static um_status read_results(struct val *v, const char *path)
{
    struct results *r = &v->results;
    um_status st = truth_json(&r->list, path);
    if (st == UM_OK && !cJSON_IsArray(r->list))
        st = truth_fail(UM_EFORMAT, "val: %s: not COCO's results, a JSON list of boxes with scores",
                        path);
    if (st != UM_OK)
        return st;
    r->result = malloc((size_t)(cJSON_GetArraySize(r->list) + 1) * sizeof *r->result);
    if (!r->result)
        return truth_no_memory();
    const cJSON *e;
    bool masks = false, seen = false;
    cJSON_ArrayForEach(e, r->list)
    {
        if (!good_result(e))
            return truth_fail(UM_EFORMAT,
                              "val: %s: result %ld has no image_id, category_id (whole numbers), "
                              "bbox (x, y, width and height from 0 on) or score (a number)",
                              path, r->n);
        masks = masks || truth_has_mask(e);
        seen = seen || shows(v, cJSON_GetObjectItemCaseSensitive(e, "score")->valuedouble);
        r->result[r->n] = (struct result){
            .image = (int64_t)cJSON_GetObjectItemCaseSensitive(e, "image_id")->valuedouble,
            .score = cJSON_GetObjectItemCaseSensitive(e, "score")->valuedouble,
            .order = r->n,
            .json = e};
        r->n++;
    }
    r->no_masks = seen && !masks;
    qsort(r->result, (size_t)r->n, sizeof *r->result, by_image);
    return UM_OK;
}

/* The results of a frame. It is judged by the best; of equal ones by the first that has a mask. */
static um_status find_stored(struct val *v, const struct truth_frame *t, struct finding *f)
{
    struct results *r = &v->results;
    struct result key = {.image = t->id, .score = INFINITY};
    const struct category *known;
    int n_known = truth_categories(v->truth, &known);
    long lo = 0, hi = r->n;
    while (lo < hi) { /* the first of this image */
        long mid = lo + (hi - lo) / 2;
        if (by_image(&r->result[mid], &key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    hi = lo;
    while (hi < r->n && r->result[hi].image == t->id)
        hi++;
    r->used += hi - lo;
    if (hi > lo && !(f->box = malloc((size_t)(hi - lo) * sizeof *f->box)))
        return truth_no_memory();
    for (long i = lo; i < hi; i++) {
        const cJSON *e = r->result[i].json;
        double id = cJSON_GetObjectItemCaseSensitive(e, "category_id")->valuedouble;
        int c = 0;
        while (c < n_known && (double)known[c].id != id)
            c++;
        if (c == n_known)
            return truth_fail(UM_EFORMAT,
                              "val: %s: a result of %s has the unknown category %.0f; the data set "
                              "has %d, the first is %lld",
                              v->o->results, t->name, id, n_known, (long long)known[0].id);
        if (!f->mask && r->result[i].score == r->result[lo].score && truth_has_mask(e)) {
            um_status st = truth_mask(v->o->results, t, e, &f->mask);
            if (st != UM_OK)
                return st;
            f->shown = f->boxes;
        }
        struct ap_box *b = &f->box[f->boxes++];
        *b = (struct ap_box){.score = r->result[i].score, .category = c};
        for (int k = 0; k < 4; k++)
            b->box[k] =
                cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(e, "bbox"), k)->valuedouble;
    }
    f->visible = f->boxes && shows(v, f->box[0].score);
    return UM_OK;
}

static um_status find_now(struct val *v, const struct truth_frame *t, struct finding *f)
{
    int most = um_detector_queries(v->engine.detector), n = 0;
    um_box *found = malloc((size_t)most * sizeof *found);
    f->box = malloc((size_t)most * sizeof *f->box);
    if (!found || !f->box) {
        free(found);
        return truth_no_memory();
    }
    const um_packet *packet = NULL;
    um_frame *image = um_frame_ref(t->image);
    um_status st = UM_OK;
    if (v->frames && strcmp(v->sweep[v->score[v->frames - 1].sweep].name, t->sweep) != 0)
        st = um_pipeline_forget(v->engine.pipeline); /* what it knows is of another sweep */
    if (st == UM_OK)
        st = um_pipeline_send(v->engine.pipeline, &image);
    um_frame_unref(&image);
    if (st == UM_OK)
        st = um_pipeline_receive(v->engine.pipeline, &packet);
    if (st == UM_OK) {
        image = um_frame_ref(t->image);
        st = cli_crop_frame(&image, packet->crop);
    }
    if (st == UM_OK)
        st = um_detector_run(v->engine.detector, image, 0, found, most, &n);
    um_frame_unref(&image);
    for (int i = 0; i < n && st == UM_OK; i++) {
        const um_box *b = &found[i];
        int c = v->category[b->label];
        if (c < 0)
            continue;
        f->box[f->boxes++] = (struct ap_box){
            .box = {(double)b->x0 + packet->crop[0], (double)b->y0 + packet->crop[1],
                    (double)b->x1 - (double)b->x0, (double)b->y1 - (double)b->y0},
            .score = (double)b->score,
            .category = c,
        };
    }
    free(found);
    if (st != UM_OK)
        return truth_fail(st, "val: %s: %s", t->name, um_last_error());
    /* of a class that the data set does not know, nothing was found */
    f->visible = packet->state == UM_STATE_VISIBLE && v->category[packet->label] >= 0;
    if (!f->visible || !packet->has_mask)
        return UM_OK;
    if (!(f->mask = malloc((size_t)packet->width * (size_t)packet->height)))
        return truth_no_memory();
    um_packet_mask(packet, f->mask, 1);
    return UM_OK;
}

static um_status write_found(struct val *v, const struct truth_frame *t, const struct finding *f)
{
    const struct category *known;
    truth_categories(v->truth, &known);
    char *counts = NULL;
    um_status st =
        f->mask ? um_rle_encode(f->mask, t->image->width, t->image->height, &counts) : UM_OK;
    for (int i = 0; i < f->boxes && st == UM_OK; i++) {
        const struct ap_box *b = &f->box[i];
        fprintf(v->written,
                "%s\n{\"image_id\":%lld,\"category_id\":%lld,\"bbox\":[%.17g,%.17g,%.17g,%.17g],"
                "\"score\":%.17g",
                v->first ? "" : ",", (long long)t->id, (long long)known[b->category].id, b->box[0],
                b->box[1], b->box[2], b->box[3], b->score);
        if (i == f->shown && counts) {
            fprintf(v->written, ",\"segmentation\":{\"size\":[%d,%d],\"counts\":", t->image->height,
                    t->image->width);
            json_string(v->written, counts);
            fputc('}', v->written);
        }
        fputc('}', v->written);
        v->first = false;
    }
    um_free(counts);
    return st;
}

/* ---- scoring ---- */

/* The true structure that the box means: the one it overlaps most, of those that count. */
static const struct truth_object *meant(const struct truth_frame *t, const struct finding *f)
{
    const struct truth_object *best = NULL;
    double most = -1;
    for (int i = 0; i < t->objects; i++) {
        double iou = f->boxes ? box_iou(f->box[f->shown].box, t->object[i].box) : 0;
        if (!t->object[i].crowd && iou > most) {
            most = iou;
            best = &t->object[i];
        }
    }
    return best;
}

static bool score_mask(struct score *s, const struct truth_frame *t, const struct finding *f,
                       const struct truth_object *o, const double *spacing)
{
    size_t a = 0, b = 0, both = 0;
    int w = t->image->width, h = t->image->height;
    bool ok = true;
    s->value[DICE] = s->value[IOU] = 0; /* what was missed counts, as no overlap */
    if (!f->visible || !f->mask)
        return true;
    mask_overlap(f->mask, o->mask, (size_t)w * (size_t)h, &a, &b, &both);
    if (a + b + both) {
        s->value[DICE] = 2. * (double)both / (double)(a + b + 2 * both);
        s->value[IOU] = (double)both / (double)(a + b + both);
    }
    if (!(a + both) || !(b + both))
        return true;
    ok = surface_distance(f->mask, o->mask, w, h, 1, 1, &s->value[HD95_PX], &s->value[SURFACE_PX]);
    if (ok && spacing)
        ok = surface_distance(f->mask, o->mask, w, h, spacing[0], spacing[1], &s->value[HD95_MM],
                              &s->value[SURFACE_MM]);
    return ok;
}

static bool any(const uint8_t *mask, size_t n)
{
    return mask && memchr(mask, 1, n);
}

/* The sweep of that name, made if it is new; -1: no memory. Folders may take turns. */
static int find_sweep(struct val *v, const char *name)
{
    int last = v->frames ? v->score[v->frames - 1].sweep : 0;
    if (v->sweeps && strcmp(v->sweep[last].name, name) == 0)
        return last;
    for (int i = 0; i < v->sweeps; i++)
        if (strcmp(v->sweep[i].name, name) == 0)
            return i;
    if (!list_room(&v->sweep, v->sweeps, sizeof *v->sweep))
        return -1;
    const struct category *known;
    struct sweep *s = &v->sweep[v->sweeps++];
    *s = (struct sweep){
        .name = strdup(name), .ap = ap_open(truth_categories(v->truth, &known)), .begins = -1};
    return s->name && s->ap ? v->sweeps - 1 : -1;
}

static um_status add_score(struct val *v, const struct truth_frame *t, const struct finding *f,
                           double *badness)
{
    if (!list_room(&v->score, v->frames, sizeof *v->score))
        return truth_no_memory();
    struct score *s = &v->score[v->frames];
    int sweep = find_sweep(v, t->sweep);
    if (sweep < 0)
        return truth_no_memory();
    *s = (struct score){.sweep = sweep, .category = -1, .visible = f->visible};
    for (int i = 0; i < MEASURES; i++)
        s->value[i] = NAN;
    const um_frame *p = t->image;
    const struct truth_object *o = meant(t, f);
    const double *spacing = v->o->has_spacing ? v->o->spacing
                            : p->has_spacing  ? p->spacing_mm
                                              : NULL;
    bool line = any(t->line, (size_t)p->width * (size_t)p->height), ok = true;
    s->present = o || line;
    if (o)
        s->category = o->category;
    if (s->present)
        s->value[FOUND] = s->visible;
    else if (!t->objects) /* a crowd alone: nobody knows */
        s->value[FALSE_VISIBLE] = s->visible;
    if (o)
        s->value[BOX_IOU] = s->visible && f->boxes ? box_iou(f->box[f->shown].box, o->box) : 0;
    if (o && o->mask && !v->results.no_masks)
        ok = score_mask(s, t, f, o, spacing);
    if (ok && line && s->visible && any(f->mask, (size_t)p->width * (size_t)p->height))
        ok = line_distance(f->mask, t->line, p->width, p->height, v->o->within[0], v->o->within[1],
                           &s->value[COVERED], &s->value[PRECISION], &s->value[MEDIAN_PX]);
    if (ok && t->boxes) {
        struct ap_box *true_box = calloc((size_t)t->objects + 1, sizeof *true_box);
        for (int i = 0; i < t->objects && true_box; i++) {
            true_box[i] =
                (struct ap_box){.category = t->object[i].category, .crowd = t->object[i].crowd};
            memcpy(true_box[i].box, t->object[i].box, sizeof true_box[i].box);
        }
        ok = true_box && ap_add(v->ap, f->box, f->boxes, true_box, t->objects) &&
             ap_add(v->sweep[sweep].ap, f->box, f->boxes, true_box, t->objects);
        free(true_box);
    } else if (ok)
        ok = ap_add(v->ap, NULL, 0, NULL, 0) && ap_add(v->sweep[sweep].ap, NULL, 0, NULL, 0);
    double good = !isnan(s->value[DICE])      ? s->value[DICE]
                  : !isnan(s->value[COVERED]) ? s->value[COVERED] * s->value[PRECISION]
                  : !isnan(s->value[BOX_IOU]) ? s->value[BOX_IOU]
                  : s->present || f->visible  ? 0
                                              : NAN;
    *badness = 1 - good;
    v->frames++;
    return ok ? UM_OK : truth_no_memory();
}

/* How long it took to find what came into a sweep: stands at the frame where it came; what was
 * never found took as long as it was there. */
static void time_delays(struct val *v)
{
    for (long i = 0; i < v->frames; i++) {
        const struct score *s = &v->score[i];
        struct sweep *of = &v->sweep[s->sweep];
        bool known = s->present || !isnan(s->value[FALSE_VISIBLE]); /* no crowd alone */
        if (!known && of->begins < 0)
            continue;
        if (known && (of->begins < 0 || v->score[of->begins].present != s->present)) {
            of->begins = i;
            of->found = false;
            if (s->present)
                v->score[i].value[DELAY] = 0;
        }
        of->found = of->found || (known && s->visible);
        if (!of->found)
            v->score[of->begins].value[DELAY]++; /* where nothing is it stays NaN */
    }
}

/* Frames that are summed up together: those of one sweep, or all. */
struct part {
    const struct score **score; /* [n] */
    ap *ap;                     /* of these frames, in this order */
    unsigned *weight;           /* how often each of them counts */
    long n;
};

static double mean(const struct part *p, int m, int category)
{
    double sum = 0, n = 0;
    for (long i = 0; i < p->n; i++) {
        const struct score *s = p->score[i];
        if (p->weight[i] && (category < 0 || s->category == category) && !isnan(s->value[m])) {
            sum += p->weight[i] * s->value[m];
            n += p->weight[i];
        }
    }
    return n > 0 ? sum / n : NAN;
}

/* The lower one of two in the middle. */
static bool median(const struct part *p, int m, int category, double *value)
{
    size_t sum = 1;
    int n = 0;
    for (long i = 0; i < p->n; i++)
        sum += p->weight[i];
    double *all = malloc(sum * sizeof *all);
    if (!all)
        return false;
    for (long i = 0; i < p->n; i++) {
        const struct score *s = p->score[i];
        for (unsigned k = 0; k < p->weight[i] && (category < 0 || s->category == category); k++)
            all[n++] = s->value[m];
    }
    n = sort_numbers(all, n);
    *value = n ? all[(n - 1) / 2] : NAN;
    free(all);
    return true;
}

struct summary {
    const char *name;
    char number[24]; /* the name of a category without one */
    long frames;
    double value[MEASURES], lo[MEASURES], hi[MEASURES];
};

static bool measure(const struct part *p, int category, double *value)
{
    bool ok = ap_value(p->ap, p->weight, category, &value[AP], &value[AP50]);
    for (int m = BOX_IOU; m < MEASURES; m++)
        value[m] = m == DELAY && category >= 0 ? NAN : mean(p, m, category);
    return ok && median(p, MEDIAN_PX, category, &value[MEDIAN_PX]);
}

static uint64_t random_below(uint64_t *state, uint64_t n) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % n;
}

/* The frames of one sweep (-1: of all), what concerns one category (-1: all), and the interval in
 * which the middle 95 % of resamples lie: of frames within a sweep, of whole sweeps where there are
 * several, as frames of one sweep are alike. False: no memory, or a signal asks for the end. */
static bool summarise(struct val *v, int sweep, int category, struct summary *s)
{
    struct part p = {.ap = sweep < 0 ? v->ap : v->sweep[sweep].ap};
    unsigned *often = calloc((size_t)v->sweeps + 1, sizeof *often);
    double *sample = malloc(sizeof *sample * RESAMPLES * MEASURES), one[MEASURES];
    p.score = malloc((size_t)(v->frames + 1) * sizeof *p.score);
    p.weight = malloc((size_t)(v->frames + 1) * sizeof *p.weight);
    bool ok = p.score && p.weight && often && sample;
    uint64_t state = 1;
    s->frames = 0;
    for (long i = 0; i < v->frames && ok; i++)
        if (sweep < 0 || v->score[i].sweep == sweep) {
            p.score[p.n] = &v->score[i];
            p.weight[p.n++] = 1;
            s->frames += category < 0 || v->score[i].category == category;
        }
    ok = ok && measure(&p, category, s->value);
    for (int k = 0; k < RESAMPLES && ok; k++) {
        if (sweep < 0 && v->sweeps > 1) {
            memset(often, 0, (size_t)v->sweeps * sizeof *often);
            for (int i = 0; i < v->sweeps; i++)
                often[random_below(&state, (uint64_t)v->sweeps)]++;
            for (long i = 0; i < p.n; i++)
                p.weight[i] = often[p.score[i]->sweep];
        } else {
            memset(p.weight, 0, (size_t)p.n * sizeof *p.weight);
            for (long i = 0; i < p.n; i++)
                p.weight[random_below(&state, (uint64_t)p.n)]++;
        }
        ok = !stop_requested() && measure(&p, category, one);
        for (int m = 0; m < MEASURES && ok; m++)
            sample[m * RESAMPLES + k] = one[m];
    }
    for (int m = 0; m < MEASURES && ok; m++)
        interval(sample + (ptrdiff_t)m * RESAMPLES, RESAMPLES, &s->lo[m], &s->hi[m]);
    free(p.weight);
    free(p.score);
    free(often);
    free(sample);
    return ok;
}

/* ---- saying it ---- */

static void put_number(FILE *f, double v)
{
    if (isfinite(v))
        fprintf(f, "%.9g", v);
    else
        fputs("null", f);
}

static void put_summary(FILE *f, const struct summary *s)
{
    fprintf(f, "\"frames\":%ld", s->frames);
    for (int m = 0; m < MEASURES; m++) {
        bool opens = m == 0 || strcmp(measures[m].group, measures[m - 1].group) != 0;
        bool closes = m == MEASURES - 1 || strcmp(measures[m].group, measures[m + 1].group) != 0;
        if (opens)
            fprintf(f, ",\"%s\":{", measures[m].group);
        fprintf(f, "%s\"%s\":", opens ? "" : ",", measures[m].key);
        put_number(f, s->value[m]);
        fprintf(f, ",\"%s_interval\":[", measures[m].key);
        put_number(f, s->lo[m]);
        fputc(',', f);
        put_number(f, s->hi[m]);
        fputs(closes ? "]}" : "]", f);
    }
}

/* What is reported: all frames, each sweep, and each class where there are several. */
struct report {
    struct summary all, *sweep, *class;
    int classes;
};

static void put_list(FILE *f, const char *key, const struct summary *list, int n)
{
    fprintf(f, ",\"%s\":[", key);
    for (int i = 0; i < n; i++) {
        fprintf(f, "%s\n{\"name\":", i ? "," : "");
        json_string(f, list[i].name);
        fputc(',', f);
        put_summary(f, &list[i]);
        fputc('}', f);
    }
    fputc(']', f);
}

static void put_report(FILE *f, const struct val *v, const struct report *r)
{
    fputs("{\"dataset\":", f);
    json_string(f, v->o->positional[0]);
    fputs(",\"detector\":", f);
    json_string(f, v->engine.detector ? um_detector_sha256(v->engine.detector) : NULL);
    fputs(",\"segmenter\":", f);
    json_string(f, v->engine.segmenter ? um_segmenter_sha256(v->engine.segmenter) : NULL);
    fprintf(f, ",\"conf\":%.9g,\"within_px\":[%.9g,%.9g],", (double)v->o->conf, v->o->within[0],
            v->o->within[1]);
    put_summary(f, &r->all);
    put_list(f, "sweeps", r->sweep, v->sweeps);
    put_list(f, "classes", r->class, r->classes);
    fputs("}\n", f);
}

static void print_list(const char *title, const struct summary *list, int n, const int *shown,
                       int columns)
{
    printf("\n%-20s %6s", title, "frames");
    for (int i = 0; i < columns; i++)
        printf(" %13s", measures[shown[i]].title);
    printf("\n");
    for (int k = 0; k < n; k++) {
        cli_put(stdout, list[k].name);
        printf("%*s %6ld", strlen(list[k].name) < 20 ? (int)(20 - strlen(list[k].name)) : 0, "",
               list[k].frames);
        for (int i = 0; i < columns; i++)
            if (isnan(list[k].value[shown[i]]))
                printf(" %13s", "-");
            else
                printf(" %13.4f", list[k].value[shown[i]]);
        printf("\n");
    }
}

static void print_table(const struct val *v, const struct report *r)
{
    const struct summary *all = &r->all;
    int shown[MEASURES], n = 0;
    for (int m = 0; m < MEASURES; m++)
        if (!isnan(all->value[m]))
            shown[n++] = m;
    printf("%ld frame%s", all->frames, plural((uint64_t)all->frames));
    if (v->sweeps > 1)
        printf(" of %d sweeps", v->sweeps);
    printf("; in brackets: 95 %% of %d resamples of %s\n", (int)RESAMPLES,
           v->sweeps > 1 ? "sweeps" : "frames");
    for (int i = 0; i < n; i++)
        printf("  %-14s %8.4f  [%.4f, %.4f]\n", measures[shown[i]].title, all->value[shown[i]],
               all->lo[shown[i]], all->hi[shown[i]]);
    if (r->classes)
        print_list("class", r->class, r->classes, shown, n);
    if (v->sweeps > 1)
        print_list("sweep", r->sweep, v->sweeps, shown, n);
}

static bool summarise_all(struct val *v, struct report *r)
{
    const struct category *known;
    int n = truth_categories(v->truth, &known), used = 0;
    r->sweep = calloc((size_t)v->sweeps + 1, sizeof *r->sweep);
    r->class = calloc((size_t)n + 1, sizeof *r->class);
    bool ok = r->sweep && r->class && summarise(v, -1, -1, &r->all);
    for (int i = 0; i < v->sweeps && ok; i++) {
        if (v->sweeps == 1)
            r->sweep[i] = r->all;
        else
            ok = summarise(v, i, -1, &r->sweep[i]);
        r->sweep[i].name = v->sweep[i].name;
    }
    for (int c = 0; c < n; c++)
        used += known[c].used;
    for (int c = 0; c < n && ok && used > 1; c++) {
        struct summary *s = &r->class[r->classes];
        if (!known[c].used)
            continue;
        snprintf(s->number, sizeof s->number, "%lld", (long long)known[c].id);
        s->name = known[c].name ? known[c].name : s->number;
        ok = summarise(v, -1, c, s);
        r->classes++;
    }
    return ok;
}

static um_status stopped(const struct val *v)
{
    return truth_fail(UM_EIO, "val: stopped after %ld frame%s, nothing is reported", v->frames,
                      plural((uint64_t)v->frames));
}

static um_status report(struct val *v, const char *folder)
{
    struct report r = {0};
    if (truth_in_time(v->truth))
        time_delays(v);
    bool ok = summarise_all(v, &r);
    um_status st = ok ? UM_OK : stop_requested() ? stopped(v) : truth_no_memory();
    if (ok && v->o->json)
        put_report(stdout, v, &r);
    else if (ok)
        print_table(v, &r);
    if (ok && folder) {
        char path[4096];
        snprintf(path, sizeof path, "%s/report.json", folder);
        FILE *f = fopen(path, "w");
        if (f)
            put_report(f, v, &r);
        bool good = f && !ferror(f);
        good = f && fclose(f) == 0 && good;
        if (!good)
            st = truth_fail(UM_EIO, "val: %s: %s", path, strerror(errno));
        if (st == UM_OK)
            st = sheet_write(v->sheet, folder);
    }
    free(r.sweep);
    free(r.class);
    return st;
}

/* ---- the command ---- */

/* The class that a category is, or how many classes there are. */
static int class_of(const um_detector *detector, const struct category *c)
{
    int classes = um_detector_classes(detector);
    for (int k = 0; k < classes && c->name; k++) {
        const char *name = um_detector_class_name(detector, k);
        if (name && strcmp(name, c->name) == 0)
            return k;
    }
    bool numbered =
        c->id >= 0 && c->id < classes && !(c->name && um_detector_class_name(detector, (int)c->id));
    return numbered ? (int)c->id : classes;
}

/* Which of the data set's categories each class of the detector is: by name; by number, where one
 * side has no name. Categories that nothing is of may be others, but not all. */
static um_status pair_classes(struct val *v)
{
    const struct category *known;
    int n = truth_categories(v->truth, &known), classes = um_detector_classes(v->engine.detector);
    if (!(v->category = malloc((size_t)classes * sizeof *v->category)))
        return truth_no_memory();
    for (int k = 0; k < classes; k++)
        v->category[k] = -1;
    int unknown = -1, paired = 0;
    for (int c = 0; c < n; c++) {
        int k = class_of(v->engine.detector, &known[c]);
        if (k < classes) { /* of two of one name, that which something is of */
            v->category[k] = v->category[k] < 0 || known[c].used ? c : v->category[k];
            paired++;
        } else if (unknown < 0 || (known[c].used && !known[unknown].used))
            unknown = c;
    }
    if (unknown < 0 || (paired && !known[unknown].used))
        return UM_OK;
    char first[256];
    const char *name = known[unknown].name, *of = um_detector_class_name(v->engine.detector, 0);
    snprintf(first, sizeof first, "%s%s",
             of ? "its first: " : "they have no names, only numbers from 0", of ? of : "");
    return truth_fail(UM_EFORMAT,
                      "val: %s: unknown category %lld (%s): no class of the detector is called so "
                      "(%s); --names FILE says what they are called",
                      v->o->positional[0], (long long)known[unknown].id, name ? name : "no name",
                      first);
}

static um_status open_networks(struct val *v)
{
    um_pipeline_settings s;
    um_status st = cli_open_engine(&v->engine, v->o);
    if (st != UM_OK)
        return st;
    cli_pipeline_settings(v->o, &v->engine, &s);
    s.track = v->o->track > 0;
    s.mask_clean = v->o->mask_clean;
    if (!cli_crop(v->o, s.crop, &s.crop_auto))
        return UM_EINVAL;
    if ((st = um_pipeline_open(&v->engine.pipeline, &s)) == UM_OK)
        st = pair_classes(v);
    if (st != UM_OK)
        cli_fail(st);
    return st;
}

static um_status one_frame(struct val *v, const struct truth_frame *t)
{
    struct finding *f = calloc(1, sizeof *f);
    double badness = NAN;
    um_status st = !f              ? truth_no_memory()
                   : v->o->results ? find_stored(v, t, f)
                                   : find_now(v, t, f);
    if (st == UM_OK)
        st = add_score(v, t, f, &badness);
    if (st == UM_OK && v->written)
        st = write_found(v, t, f);
    if (st == UM_OK && v->sheet &&
        !sheet_add(v->sheet, t, f->visible ? f->mask : NULL,
                   f->visible && f->boxes ? f->box[f->shown].box : NULL, badness))
        st = truth_no_memory();
    if (f) {
        free(f->mask);
        free(f->box);
    }
    free(f);
    return st;
}

/* On a terminal, and a line every --summary-every seconds. */
static void tell_frames(struct val *v)
{
    long all = truth_length(v->truth);
    if (v->o->summary_every > 0 && seconds_now() >= v->next_summary) {
        char text[64];
        snprintf(text, sizeof text, "%ld of %ld frames", v->frames, all);
        tell(text);
        v->next_summary = seconds_now() + v->o->summary_every;
    }
    if (!v->o->quiet)
        tell_progress((uint64_t)v->frames, all, "");
}

static um_status all_frames(struct val *v)
{
    struct truth_frame t = {0};
    um_status st = UM_OK;
    v->next_summary = seconds_now() + v->o->summary_every;
    while (!stop_requested() && (st = truth_next(v->truth, &t)) == UM_OK &&
           (st = one_frame(v, &t)) == UM_OK)
        tell_frames(v);
    tell_progress_end();
    if (st != UM_OK && st != UM_EOF)
        return st;
    if (stop_requested())
        return stopped(v);
    if (!v->frames)
        return truth_fail(UM_EIO, "val: %s: no frames", v->o->positional[0]);
    const struct results *r = &v->results;
    if (!v->o->frames && r->used < r->n)
        return truth_fail(
            UM_EFORMAT, "val: %s: of %ld result%s %ld are of images that %s does not have",
            v->o->results, r->n, plural((uint64_t)r->n), r->n - r->used, v->o->positional[0]);
    if (r->no_masks && !v->o->quiet)
        tell("no mask in the results: masks and lines are not scored");
    return UM_OK;
}

static void remove_results(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/results.json", folder);
    unlink(path);
}

static um_status open_outputs(struct val *v, const char *folder)
{
    char path[4096];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return truth_fail(UM_EIO, "val: %s: %s", folder, strerror(errno));
    if (truth_reads(v->truth, folder))
        return truth_fail(UM_EINVAL, "val: -o %s lies in the data set, whose files it would become",
                          folder);
    snprintf(path, sizeof path, "%s/results.json", folder);
    if (v->o->results && um_same_file(path, v->o->results))
        return truth_fail(UM_EINVAL, "val: -o %s: %s is also the input --results", folder, path);
    if (!(v->written = fopen(path, "w")))
        return truth_fail(UM_EIO, "val: %s: %s", path, strerror(errno));
    fputc('[', v->written);
    return (v->sheet = sheet_open(truth_length(v->truth))) ? UM_OK : truth_no_memory();
}

static void close_val(struct val *v)
{
    cli_close_engine(&v->engine);
    truth_close(&v->truth);
    cJSON_Delete(v->results.list);
    free(v->results.result);
    ap_close(v->ap);
    sheet_close(v->sheet);
    for (int i = 0; i < v->sweeps; i++) {
        free(v->sweep[i].name);
        ap_close(v->sweep[i].ap);
    }
    free(v->sweep);
    free(v->score);
    free(v->category);
}

int command_val(const struct options *o)
{
    struct val v = {.o = o, .first = true};
    struct truth_settings s = {
        .masks = o->masks, .lines = o->lines, .images = o->pictures, .frames = o->frames};
    const char *folder = o->sinks ? cli_folder(o, "val") : NULL;
    const struct category *known;
    if ((o->sinks && !folder) || !cli_source_settings(o, &s.source))
        return EXIT_USAGE;
    um_status st = truth_open(&v.truth, o->positional[0], &s);
    if (st == UM_OK && o->results)
        st = read_results(&v, o->results);
    stop_catch(); /* not before: a pipe may be waited for, and there is nothing to end yet */
    int code = st == UM_OK ? EXIT_DONE : cli_fail(st);
    if (st == UM_OK && !o->results && (st = open_networks(&v)) != UM_OK)
        code = cli_exit(st); /* said already */
    if (st == UM_OK) {
        if (folder)
            st = open_outputs(&v, folder);
        if (st == UM_OK && !(v.ap = ap_open(truth_categories(v.truth, &known))))
            st = truth_no_memory();
        if (st == UM_OK)
            st = all_frames(&v);
        if (v.written) {
            fputs("\n]\n", v.written);
            bool bad = ferror(v.written);
            if ((fclose(v.written) != 0 || bad) && st == UM_OK)
                st = truth_fail(UM_EIO, "val: %s/results.json: cannot be written: %s", folder,
                                strerror(errno));
            if (st != UM_OK) /* what is missing in it would count as not found */
                remove_results(folder);
        }
        if (st == UM_OK)
            st = report(&v, folder);
        if (st != UM_OK)
            code = cli_fail(st);
    }
    close_val(&v);
    return code;
}
