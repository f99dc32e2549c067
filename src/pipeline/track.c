/* SPDX-License-Identifier: Apache-2.0 */
/* A pipeline that keeps track: what a frame is told of those before, and what is published of it.
 */
#include "pipeline/pipeline.h"

#include <math.h>
#include <string.h>

void um_track_enter(struct track *t, const struct geometry *g)
{
    if (t->g == g)
        return;
    um_packet_unref(&t->shown);
    *t = (struct track){.g = g, .detect = true};
}

/* What is remembered is in gray levels, so an image in colour remembers the same. */
static um_status move_memory(um_pipeline *p, const struct geometry *from, const struct geometry *to)
{
    size_t n = um_track_bytes(to->h, to->w);
    if (!p->host_mode)
        return um_copy(p->dev, UM_QUEUE_MAIN, um_params_buf(to->tables), to->memory.off,
                       um_params_buf(from->tables), from->memory.off, n);
    memcpy(to->host_memory, from->host_memory, n);
    return UM_OK;
}

um_status um_track_go_on(um_pipeline *p, const struct geometry *g)
{
    struct track *t = &p->track;
    um_status st = UM_OK;
    if (!t->g || t->g->w != g->w || t->g->h != g->h)
        um_track_enter(t, g);
    else if (t->g != g && (st = move_memory(p, t->g, g)) == UM_OK)
        t->g = g;
    return st;
}

void um_track_tell(const struct track *t, struct um_frame_header *header)
{
    header->track = (t->previous ? UM_TRACK_PREVIOUS : 0u) | (t->good ? UM_TRACK_GOOD : 0u) |
                    (t->keep ? UM_TRACK_KEEP : 0u);
    if (header->label < 0 && t->seen.state != UM_STATE_LOST) /* the best of another is another's */
        header->label = t->follow.label;
    header->follow_label = t->follow.label;
    header->follow_score = t->follow.score;
    memcpy(header->follow_box, t->follow.box, sizeof header->follow_box);
}

static struct um_place place_of(const um_packet *k, const um_object *o)
{
    struct um_place at = {.known = k->has_pose && k->has_spacing && o->mask_area_px,
                          .centroid = {(double)o->centroid[0], (double)o->centroid[1]}};
    memcpy(at.pose, k->pose, sizeof at.pose);
    memcpy(at.spacing_mm, k->spacing_mm, sizeof at.spacing_mm);
    return at;
}

/* What the next frame has to know of this one. */
static void remember(struct track *t, const um_packet *k, const struct um_gate *gate,
                     const um_object *o, bool good)
{
    t->previous = o != NULL;
    if (!o) /* its memory is as it was, and what was to be kept still is */
        return;
    t->good = t->good || t->keep;
    t->keep = good;
    t->place = place_of(k, o);
    t->follow.label = gate->label;
    t->follow.score = gate->score;
    for (int i = 0; i < 4; i++)
        t->follow.box[i] = (float)(o->mask_box[i] - k->crop[i % 2]);
}

const um_object *um_track_judge(um_pipeline *p, struct flight *flight, const struct um_gate *gate,
                                bool found, um_object *object)
{
    struct track *t = &p->track;
    um_object *seen = found ? object : NULL;
    um_packet *k = &flight->packet;
    struct um_visibility_rules rules = {.tau_conf = p->conf,
                                        .theta_on = p->set.theta_on,
                                        .theta_off = p->set.theta_off,
                                        .theta_cont = p->set.theta_cont,
                                        .detect_every = p->set.detect_every};
    if (p->budget.effort != UM_EFFORT_FULL && rules.detect_every < UM_BUDGET_HEARTBEAT)
        rules.detect_every = UM_BUDGET_HEARTBEAT;
    struct um_sight sight = {.detected = flight->detected,
                             .outlined = seen && seen->mask_area_px,
                             .same = flight->same,
                             .conf = gate->score};
    for (int i = 0; i < UM_SCORES; i++)
        sight.score[i] = seen ? seen->scores[i] : NAN;
    sight.score[UM_SCORE_CONTACT] = gate->contact;
    if (seen) {
        struct um_place here = place_of(k, seen);
        if (t->previous)
            sight.score[UM_SCORE_DEPTH] = um_visibility_depth(&here, &t->place);
        memcpy(seen->scores, sight.score, sizeof seen->scores);
    }
    struct um_verdict v = um_visibility_step(&t->seen, &rules, &sight);
    bool own = sight.outlined && v.state == UM_STATE_VISIBLE && v.tag != UM_TAG_WITHHELD;
    remember(t, k, gate, seen, own);
    t->detect = v.detect;
    k->state = v.state;
    k->tag = v.tag;
    k->reason = v.reason;
    memcpy(k->scores, sight.score, sizeof k->scores);
    if (v.state == UM_STATE_LOST)
        return NULL;
    if (sight.outlined && !flight->detected) /* the gate's is the prompt */
        for (int i = 0; i < 4; i++)
            seen->box[i] = (float)seen->mask_box[i];
    if (seen && !own) { /* its box alone */
        *seen = (um_object){.struct_size = sizeof *seen,
                            .label = seen->label,
                            .name = seen->name,
                            .score = seen->score,
                            .has_box = seen->has_box,
                            .box = {seen->box[0], seen->box[1], seen->box[2], seen->box[3]},
                            .centroid = {NAN, NAN}};
        memcpy(seen->scores, sight.score, sizeof seen->scores);
    }
    if (v.tag == UM_TAG_STALE && !own) {
        const um_object *shown = um_packet_object(t->shown, 0);
        if (!shown) {
            k->tag = UM_TAG_WITHHELD;
            return seen;
        }
        *object = *shown;
        object->score = gate->score;
        memcpy(object->scores, sight.score, sizeof object->scores);
        return object;
    }
    return seen;
}

const um_object *um_track_repeat(struct flight *flight, um_object *object)
{
    um_packet *k = &flight->packet;
    *object = *um_packet_object(flight->repeated, 0);
    k->state = UM_STATE_VISIBLE;
    k->tag = UM_TAG_STALE;
    k->reason = UM_REASON_NO_TIME;
    k->label = object->label;
    k->score = object->score;
    for (int i = 0; i < UM_SCORES; i++)
        k->scores[i] = object->scores[i] = NAN;
    return object;
}
