/* SPDX-License-Identifier: Apache-2.0 */
/* What a pipeline is opened with, and what may change while it runs. */
#include "base/record.h"
#include "pipeline/pipeline.h"

#include <string.h>

static const double BUDGET_MOST_MS = 3.6e6;

static const um_pipeline_settings defaults = {.conf = 0.5f,
                                              .label = -1,
                                              .assert_up = -1,
                                              .assert_down = -1,
                                              .inflight = 1,
                                              .objects = 1,
                                              .theta_on = 0.6f,
                                              .theta_off = 0.4f,
                                              .theta_cont = 0.5f,
                                              .detect_every = 1};

void um_pipeline_settings_init(um_pipeline_settings *s, size_t struct_size)
{
    um_record_init(s, struct_size, &defaults, sizeof defaults);
}

static um_status check_conf(float conf)
{
    return conf >= 0 && conf <= 1 ? UM_OK
                                  : um_fail(UM_EINVAL, "conf %g: want 0 to 1", (double)conf);
}

static um_status check_label(const um_detector *d, int label)
{
    return label >= -1 && label < um_detector_classes(d)
               ? UM_OK
               : um_fail(UM_EINVAL, "class %d: the detector has classes 0 to %d", label,
                         um_detector_classes(d) - 1);
}

static um_status check_objects(int n, int max)
{
    return n >= 1 && n <= max ? UM_OK : um_fail(UM_EINVAL, "%d objects: want 1 to %d", n, max);
}

static um_status check_track(const um_pipeline_settings *s)
{
    const float theta[] = {s->theta_on, s->theta_off, s->theta_cont};
    for (int i = 0; i < 3; i++)
        if (!(theta[i] >= 0 && theta[i] <= 1) || s->theta_off > s->theta_on)
            return um_fail(UM_EINVAL,
                           "theta_on %g, theta_off %g, theta_cont %g: want 0 to 1, and theta_off "
                           "not above theta_on",
                           (double)theta[0], (double)theta[1], (double)theta[2]);
    if (s->detect_every < 1 || s->detect_every > UM_DETECT_EVERY_MAX)
        return um_fail(UM_EINVAL, "detect_every %d: want 1 to %d", s->detect_every,
                       UM_DETECT_EVERY_MAX);
    if (s->detect_every > 1 && !s->track)
        return um_fail(UM_EINVAL, "detect_every %d needs track", s->detect_every);
    if (s->track && !s->segmenter)
        return um_fail(UM_EINVAL, "track needs a segmenter: it is masks that are scored");
    if (s->track && s->objects > 1)
        return um_fail(UM_EINVAL, "track follows one structure, not %d", s->objects);
    if (s->reuse && s->track && um_dfine_info(s->detector->net)->gain.mode == UM_GAIN_AUTO)
        return um_fail(UM_EINVAL, "reuse: with track a gain of auto follows the frames before, so "
                                  "that equal ones look different to the networks");
    return UM_OK;
}

static um_status check(const um_pipeline_settings *s)
{
    if (!s->detector)
        return um_fail(UM_EINVAL, "um_pipeline_open: no detector");
    um_device *dev = um_detector_device(s->detector);
    if (s->segmenter && um_segmenter_device(s->segmenter) != dev) {
        const char *here = um_device_name(dev),
                   *there = um_device_name(um_segmenter_device(s->segmenter));
        return um_fail(UM_EINVAL,
                       "detector on device %s, segmenter on %sdevice %s: both must be opened on "
                       "the same device",
                       here, strcmp(here, there) == 0 ? "another " : "", there);
    }
    um_status st = check_conf(s->conf);
    if (st == UM_OK)
        st = check_label(s->detector, s->label);
    if (st == UM_OK)
        st = check_objects(s->objects, UM_OBJECTS_MAX);
    if (st == UM_OK)
        st = check_track(s);
    if (st != UM_OK)
        return st;
    if (s->gate != UM_GATE_AUTO && s->gate != UM_GATE_SPECULATIVE && s->gate != UM_GATE_SYNC)
        return um_fail(UM_EINVAL, "gate %d: want UM_GATE_AUTO, UM_GATE_SPECULATIVE or UM_GATE_SYNC",
                       (int)s->gate);
    if (s->dump && s->objects > 1)
        return um_fail(UM_EINVAL, "a dump is of one object, not %d", s->objects);
    if (s->shadow_every < 0 || (s->shadow_every && !s->segmenter))
        return um_fail(UM_EINVAL,
                       "shadow_every %d: want frames, and a segmenter whose masks are "
                       "compared",
                       s->shadow_every);
    if (!(s->budget_ms >= 0 && s->budget_ms <= BUDGET_MOST_MS))
        return um_fail(UM_EINVAL, "a budget of %g ms: want 0 to %g", s->budget_ms, BUDGET_MOST_MS);
    if (s->crop[2] < 0 || s->crop[3] < 0 || s->crop[0] < 0 || s->crop[1] < 0 ||
        (s->crop[2] == 0) != (s->crop[3] == 0))
        return um_fail(UM_EINVAL, "crop %d,%d,%d,%d: want x,y >= 0 and w,h > 0", s->crop[0],
                       s->crop[1], s->crop[2], s->crop[3]);
    if (s->crop_auto && s->crop[2])
        return um_fail(UM_EINVAL, "crop %d,%d,%d,%d and crop_auto: want one of them", s->crop[0],
                       s->crop[1], s->crop[2], s->crop[3]);
    if (s->inflight < 1 || s->inflight > UM_INFLIGHT_MAX)
        return um_fail(UM_EINVAL, "%d frames in flight, want 1 to %d", s->inflight,
                       UM_INFLIGHT_MAX);
    if (dev->caps.shared && (s->assert_up >= 0 || s->assert_down >= 0))
        return um_fail(UM_EINVAL,
                       "device %s shares the host's memory: there are no transfers to assert (use "
                       "guard or cuda)",
                       um_device_name(dev));
    return UM_OK;
}

um_status um_pipeline_settings_read(um_pipeline_settings *own, const um_pipeline_settings *theirs)
{
    *own = defaults;
    um_status st = um_record_in(own, sizeof *own, theirs, "um_pipeline_settings");
    return st == UM_OK ? check(own) : st;
}

/* ---- changes ---- */

um_status um_pipeline_change(um_pipeline *p, const float *conf, const int *label,
                             const int *objects)
{
    um_status st = p ? UM_OK : um_fail(UM_EINVAL, "um_pipeline_change: no pipeline");
    if (st == UM_OK && conf)
        st = check_conf(*conf);
    if (st == UM_OK && label)
        st = check_label(p->detector, *label);
    if (st == UM_OK && objects)
        st = check_objects(*objects, p->set.objects);
    if (st != UM_OK)
        return st;
    pthread_mutex_lock(&p->wishing);
    p->wish.any = true;
    p->wish.conf = conf ? *conf : p->wish.conf;
    p->wish.objects = objects ? *objects : p->wish.objects;
    if (label) {
        p->wish.label = *label;
        p->wish.relabel = true;
    }
    pthread_mutex_unlock(&p->wishing);
    return UM_OK;
}

struct um_crew_wish um_wish_take(um_pipeline *p)
{
    pthread_mutex_lock(&p->wishing);
    struct wish w = p->wish;
    p->wish.any = p->wish.relabel = false;
    pthread_mutex_unlock(&p->wishing);
    if (w.any) {
        p->conf = w.conf;
        p->label = w.label;
        p->objects = w.objects;
    }
    if (w.relabel) { /* what is followed may be of another class */
        p->track.detect = true;
        p->track.seen.steady = 0;
        if (w.label >= 0 && w.label != p->track.follow.label)
            um_track_enter(&p->track, NULL);
    }
    struct um_crew_wish now = {.conf = p->conf, .label = p->label, .objects = p->objects};
    memcpy(now.crop, p->set.crop, sizeof now.crop);
    return now;
}
