/* SPDX-License-Identifier: Apache-2.0 */
/* "replay:FOLDER", the frames of a recording as fast as they are taken, and "replay-live:FOLDER",
 * at the times they had. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/wake.h"
#include "io/clip.h"
#include "io/origin.h"
#include "io/path.h"
#include "io/recording.h"
#include "io/sequence_head.h"
#include "io/source.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct replay {
    const char *folder;
    um_source_settings set;
    bool paced, begun;
    int wake, part;
    char *path; /* of the part that is read */
    struct um_clip clip;
    bool open;
    double zero;      /* the time of a frame … */
    uint64_t zero_ns; /* … and when it was given */
    double last;
};

static um_status find_part(struct replay *r)
{
    char name[UM_RECORDING_NAME];
    um_recording_part(name, r->part, "mhd");
    um_free(r->path);
    r->path = um_path_join(r->folder, name);
    if (!r->path)
        return um_fail(UM_ENOMEM, "%s", name);
    return access(r->path, F_OK) == 0 ? UM_OK : UM_EOF;
}

/* The first part behind this one that the folder holds; -1: none. */
static int part_behind(const struct replay *r)
{
    DIR *folder = opendir(r->folder);
    struct dirent *e;
    int first = -1;
    while (folder && (e = readdir(folder))) {
        char name[UM_RECORDING_NAME];
        int part = -1;
        if (sscanf(e->d_name, "frames_%6d", &part) != 1 || part <= r->part)
            continue;
        um_recording_part(name, part, "mhd");
        if (strcmp(name, e->d_name) == 0 && (first < 0 || part < first))
            first = part;
    }
    if (folder)
        closedir(folder);
    return first;
}

/* The part that is next; if it is not there, but others are behind it, an error, and then those. */
static um_status next_part(struct replay *r)
{
    um_status st = find_part(r);
    int behind = st == UM_EOF ? part_behind(r) : -1;
    if (behind < 0)
        return st;
    r->part = behind;
    return um_fail(UM_EIO, "%s: not there, and parts behind it are: its frames are missing",
                   r->path);
}

static um_status open_replay(struct replay *r, const char *arg, const um_source_settings *settings,
                             int wake_fd, bool paced)
{
    *r = (struct replay){.folder = arg, .set = *settings, .paced = paced, .wake = wake_fd};
    if (!arg[0])
        return um_fail(UM_EINVAL, "replay: needs a folder");
    struct stat s;
    if (stat(arg, &s) == 0 && !S_ISDIR(s.st_mode))
        return um_fail(UM_EIO, "%s: not a folder: want the one that holds the recording", arg);
    um_status st = find_part(r);
    return st == UM_EOF ? um_fail(UM_EIO, "%s: not there: no recording with frames", r->path) : st;
}

static um_status replay_open(void *priv, const char *arg, const um_source_settings *settings,
                             int wake_fd)
{
    return open_replay(priv, arg, settings, wake_fd, false);
}

static um_status replay_open_live(void *priv, const char *arg, const um_source_settings *settings,
                                  int wake_fd)
{
    return open_replay(priv, arg, settings, wake_fd, true);
}

static void close_part(struct replay *r)
{
    if (r->open)
        um_clip_close(&r->clip);
    r->open = false;
}

static void replay_close(void *priv)
{
    struct replay *r = priv;
    close_part(r);
    um_free(r->path);
}

/* What it was called when it came, and whether its pixels are still what they were. */
static um_status restore(const struct replay *r, um_frame *f)
{
    const char *notes = um_frame_notes(f);
    char want[9], sum[9];
    if (notes && um_sequence_note(notes, "UltramotionCrc32", want, sizeof want)) {
        um_recording_sum(sum, f);
        if (strcmp(sum, want) != 0)
            return um_fail(UM_EFORMAT, "%s: pixels of a frame have changed: CRC-32 %s, want %s",
                           r->path, sum, want);
    }
    size_t n = notes ? strlen(notes) + 1 : 1;
    char *source = um_alloc(n);
    if (!source)
        return um_fail(UM_ENOMEM, "name of a frame");
    um_status st = UM_OK;
    if (notes && um_sequence_note(notes, "UltramotionSource", source, n)) {
        um_recording_unescape(source);
        st = um_frame_set_source(f, source);
    }
    um_free(source);
    return st == UM_OK ? um_recording_restore(f) : st;
}

/* Wait until it is the frame's time; false: the source was cancelled. Times that go back begin
 * anew. */
static bool pace(struct replay *r, double ts)
{
    const double day = 86400;
    uint64_t now = um_clock_ns();
    if (!r->begun || ts < r->last || ts - r->last > day) {
        r->begun = true;
        r->zero = ts;
        r->zero_ns = now;
    }
    r->last = ts;
    double left = ts - r->zero - 1e-9 * (double)(now - r->zero_ns);
    return left <= 0 || !um_wake_wait(r->wake, left * 1e3 < INT_MAX ? (int)(left * 1e3) : INT_MAX);
}

static um_status replay_read(void *priv, uint64_t index, um_frame **frame)
{
    struct replay *r = priv;
    if (index == 0 && (r->part || r->open)) { /* another round */
        close_part(r);
        r->part = 0;
        r->begun = false;
    }
    for (;;) {
        um_status st = r->open ? UM_OK : next_part(r);
        if (st == UM_OK && !r->open) {
            st = um_clip_open(&r->clip, r->path, &r->set);
            r->open = st == UM_OK;
            r->part++;
        }
        if (st == UM_OK)
            st = um_clip_read(&r->clip, frame);
        if (st == UM_EOF && r->open) {
            close_part(r);
            continue;
        }
        if (st == UM_OK)
            st = restore(r, *frame);
        if (st == UM_OK && r->paced && !pace(r, (*frame)->ts))
            st = UM_EOF;
        if (st != UM_OK)
            um_frame_unref(frame);
        return st;
    }
}

bool um_replay_reads(const void *priv, const char *path)
{
    return um_path_in(((const struct replay *)priv)->folder, path);
}

const um_source_ops um_source_replay = {
    .struct_size = sizeof um_source_replay,
    .priv_size = sizeof(struct replay),
    .open = replay_open,
    .read = replay_read,
    .close = replay_close,
};

const um_source_ops um_source_replay_live = {
    .struct_size = sizeof um_source_replay_live,
    .priv_size = sizeof(struct replay),
    .open = replay_open_live,
    .read = replay_read,
    .close = replay_close,
    .live = 1,
};
