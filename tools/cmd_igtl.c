/* SPDX-License-Identifier: Apache-2.0 */
/* igtl sniff|send|fake-plus|fake-slicer: the other ends of a stream, for people who connect things
 * and for tests. */
#include "cli.h"
#include "clock.h"
#include "stop.h"
#include "tell.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BEAT_MS = 200 };

static void say_of(const struct options *o, const char *what, const char *more)
{
    fputs("ultramotion: ", stderr);
    cli_put(stderr, o->positional[1]);
    fprintf(stderr, ": %s%s\n", what, more);
}

/* Wait until somebody is there; false: stopped. */
static bool meet(um_igtl *link, const struct options *o)
{
    bool told = o->quiet;
    while (!stop_requested()) {
        um_status st = um_igtl_wait(link, BEAT_MS);
        if (st == UM_OK)
            return true;
        if (st != UM_AGAIN && !told)
            say_of(o, um_last_error(), "; trying on");
        told = told || st != UM_AGAIN;
    }
    return false;
}

static um_status open_link(um_igtl **link, const struct options *o)
{
    um_status st = um_igtl_open(link, o->positional[1]);
    um_igtl_set_wake(*link, stop_fd());
    if (st == UM_OK && um_igtl_port(*link) && !o->quiet) {
        fprintf(stderr, "ultramotion: listening on port %d\n", um_igtl_port(*link));
        fflush(stderr);
    }
    return st;
}

/* Every message as a line of JSON; a Slicer greets first, so that the peer speaks version 2. */
static int listen_in(const struct options *o, bool greets)
{
    um_igtl *link = NULL;
    um_lines *lines = NULL;
    long messages = 0;
    if (o->positionals > 2)
        return cli_usage("igtl %s: \"%s\" is one argument too many", o->positional[0],
                         o->positional[2]);
    um_status st = open_link(&link, o);
    if (st == UM_OK)
        st = um_lines_open(&lines, "-");
    while (st == UM_OK && meet(link, o)) {
        if (greets)
            um_igtl_send_text(link, "STATUS", "Slicer", "");
        um_status got = UM_OK;
        while (st == UM_OK && !stop_requested() && (got == UM_OK || got == UM_AGAIN) &&
               (!o->frames || messages < o->frames)) {
            char *json = NULL;
            got = um_igtl_receive(link, BEAT_MS, &json);
            if (got == UM_OK)
                st = um_lines_write(lines, json, stop_fd());
            messages += got == UM_OK;
            um_free(json);
        }
        if (o->frames && messages >= o->frames)
            break;
        if (!o->quiet && !stop_requested() && st == UM_OK)
            say_of(o, got == UM_EOF ? "the other side left" : um_last_error(), "");
    }
    int code = st == UM_OK || st == UM_EOF ? EXIT_DONE : cli_fail(st);
    um_lines_close(&lines);
    um_igtl_close(&link);
    return code;
}

/* Until the next frame is due. Frames for which nobody was there, or took them, are not made up
 * for.
 */
static void pace(const struct options *o, double *next)
{
    if (!(o->fps > 0))
        return;
    double now = seconds_now(), period = 1 / (double)o->fps;
    *next = *next + 2 * period < now ? now : *next + period;
    for (; now < *next && !stop_requested(); now = seconds_now()) {
        double until = fmin(*next, now + BEAT_MS / 1e3);
        struct timespec t = {.tv_sec = (time_t)until};
        t.tv_nsec = (long)(1e9 * (until - (double)t.tv_sec));
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    }
}

/* Plus stamps, and tells where the probe is: here it moves along x, a tenth of a mm a frame. */
static void as_plus(um_frame *frame)
{
    frame->ts = unix_now();
    frame->has_pose = frame->has_spacing = 1;
    for (int i = 0; i < 16; i++)
        frame->pose[i] = i % 5 == 0;
    frame->pose[3] = 0.1 * (double)frame->id;
    frame->spacing_mm[0] = frame->spacing_mm[1] = 0.1;
}

static int send_frames(const struct options *o, bool plus)
{
    um_igtl *link = NULL;
    um_source *source = NULL;
    um_source_settings set;
    um_frame *frame = NULL;
    struct told told = {.n = 0};
    long sent = 0, unreadable = 0;
    um_source_settings_default(&set);
    set.frames = o->frames;
    set.loop = o->loop;
    if (o->positionals < 3)
        return cli_usage("igtl %s: want ADDRESS SOURCE", o->positional[0]);
    um_status st = um_source_open(&source, o->positional[2], &set);
    if (st == UM_OK)
        st = open_link(&link, o);
    if (st == UM_OK)
        stop_ends_source(source);
    double next = 0;
    bool there = st == UM_OK && meet(link, o), left = false;
    while (there && st == UM_OK && (st = um_source_read(source, &frame)) != UM_EOF) {
        if (st != UM_OK) {
            if (!told_before(&told, um_last_error())) /* with --loop, in each round */
                cli_fail(st);
            unreadable++;
            st = UM_OK;
            continue;
        }
        if (plus)
            as_plus(frame);
        um_status said = um_igtl_send_frame(link, frame, "Image_Reference");
        sent += said == UM_OK;
        um_frame_unref(&frame);
        char *json = NULL; /* what it has to say is read, or it would be stuck */
        while (said == UM_OK && um_igtl_receive(link, 0, &json) == UM_OK)
            um_free(json);
        bool stuck = said == UM_EIO && plus && !stop_requested();
        if (stuck && !o->quiet)
            say_of(o, um_last_error(), "; on to the next");
        if (stuck || (said == UM_EOF && plus))
            there = meet(link, o); /* the next client */
        else
            st = stop_requested() ? UM_EOF : said;
        left = said == UM_EOF && !plus && !stop_requested(); /* before it had all */
        pace(o, &next);
    }
    stop_ends_source(NULL);
    int code = st != UM_OK && st != UM_EOF     ? cli_fail(st)
               : left || (unreadable && !sent) ? EXIT_FAILED
                                               : EXIT_DONE;
    if (left)
        say_of(o, "the other side left", "");
    if (!o->quiet)
        fprintf(stderr, "ultramotion: %ld frame%s sent", sent, plural((uint64_t)sent));
    if (!o->quiet && unreadable)
        fprintf(stderr, ", %ld unreadable", unreadable);
    if (!o->quiet)
        fprintf(stderr, "\n");
    um_igtl_close(&link);
    um_source_close(&source);
    return code;
}

int command_igtl(const struct options *o)
{
    const char *what = o->positional[0];
    stop_catch();
    if (strcmp(what, "sniff") == 0)
        return listen_in(o, false);
    if (strcmp(what, "fake-slicer") == 0)
        return listen_in(o, true);
    if (strcmp(what, "send") == 0)
        return send_frames(o, false);
    if (strcmp(what, "fake-plus") == 0)
        return send_frames(o, true);
    return cli_usage("igtl: \"%s\" is not sniff, send, fake-plus or fake-slicer", what);
}
