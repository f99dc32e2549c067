/* SPDX-License-Identifier: Apache-2.0 */
#define _XOPEN_SOURCE 700 /* realpath() */
#include "recording.h"

#include "json.h"
#include "tell.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *recording_folder(const char *sink)
{
    static const char scheme[] = "record:";
    return strncmp(sink, scheme, sizeof scheme - 1) == 0 ? sink + sizeof scheme - 1 : NULL;
}

static void failed_in(const char *folder, const char *name)
{
    char text[1024];
    snprintf(text, sizeof text, "%s/%s: %s", folder, name, strerror(errno));
    um_set_error(UM_EIO, text);
}

static FILE *open_in(const char *folder, const char *name, const char *mode)
{
    char *path = text_join(folder, "/", name);
    FILE *f = path ? fopen(path, mode) : NULL;
    if (!f)
        failed_in(folder, name);
    free(path);
    return f;
}

static um_status keep_in(const char *folder, const struct options *o, const struct engine *e)
{
    struct options kept = *o;
    const char *env = getenv("ULTRAMOTION_SAM_AS_NUMPY");
    const char **path[] = {&kept.detector, &kept.segmenter, &kept.names};
    char *whole[3] = {NULL};
    FILE *f = open_in(folder, "settings.yaml", "w");
    if (!f)
        return UM_EIO;
    for (int i = 0; i < 3; i++)
        if (*path[i] && (whole[i] = realpath(*path[i], NULL)))
            *path[i] = whole[i];
    if (kept.sam_as_numpy < 0) /* a replay's environment may be another */
        kept.sam_as_numpy = env && strcmp(env, "1") == 0;
    if (kept.track < 0 && kept.budget_ms > 0) /* the budget is not kept, what it means is */
        kept.track = kept.objects == 1 && !kept.boxes_only;
    kept.device = um_device_name(e->dev);
    kept.precision = um_device_precision(e->dev);
    fprintf(f, "# ultramotion %s, kernels %s\n# source: ", um_version(), um_device_isa(e->dev));
    json_string(f, o->positional[0]);
    putc('\n', f);
    if (e->detector)
        fprintf(f, "# detector sha256:%s\n", um_detector_sha256(e->detector));
    if (e->segmenter)
        fprintf(f, "# segmenter sha256:%s\n", um_segmenter_sha256(e->segmenter));
    options_keep(&kept, f);
    bool bad = ferror(f);
    bad = fclose(f) != 0 || bad;
    if (bad)
        failed_in(folder, "settings.yaml");
    for (int i = 0; i < 3; i++)
        free(whole[i]);
    return bad ? UM_EIO : UM_OK;
}

um_status recording_keep(const struct options *o, const struct engine *e)
{
    um_status st = UM_OK;
    for (int i = 0; i < o->sinks && st == UM_OK; i++)
        if (recording_folder(o->sink[i]))
            st = keep_in(recording_folder(o->sink[i]), o, e);
    return st;
}

/* ---- a packet against its line ---- */

/* Both texts are walked at once. What was made again is JSON; what was recorded may be damaged. */
struct walk {
    const char *want, *have;
    char path[128]; /* of the value that is looked at */
    const struct verify *v;
};

/* The end of a value's text: of a string with its quotes, or as far as a comma or bracket. */
static const char *value_end(const char *s)
{
    if (*s != '"')
        return s + strcspn(s, ",]}");
    for (s++; *s && *s != '"'; s++)
        s += *s == '\\' && s[1];
    return s + (*s == '"');
}

/* Past a whole value, nested ones included. */
static const char *skip(const char *s)
{
    int depth = 0;
    do {
        depth += (*s == '{' || *s == '[') - (*s == '}' || *s == ']');
        s = *s == '"' ? value_end(s) : *s ? s + 1 : s;
    } while (*s && (depth > 0 || !strchr(",]}", *s)));
    return s;
}

/* Its own times, its place in the run, and why its precision, which a replay asks for; and on
 * another device how much was copied. */
static bool aside(const struct walk *w)
{
    static const char *const own[] = {"stages_ms",        "deadline", "frame_id",
                                      "precision_reason", "device",   "transfers"};
    for (int i = 0; i < (w->v->other_device ? 6 : 4); i++)
        if (strcmp(w->path, own[i]) == 0)
            return true;
    return false;
}

static bool take(struct walk *w, char c)
{
    bool both = *w->want == c && *w->have == c;
    w->want += both;
    w->have += both;
    return both;
}

static bool same(struct walk *w);

static bool same_list(struct walk *w, char end)
{
    size_t used = strlen(w->path);
    for (int i = 0; *w->have != end; i++) {
        if (i && !take(w, ','))
            return false;
        if (end == '}') {
            const char *key = w->have + 1;
            size_t n = (size_t)(value_end(w->have) - w->have);
            snprintf(w->path + used, sizeof w->path - used, "%s%.*s", used ? "." : "", (int)n - 2,
                     key);
            if (strncmp(w->want, w->have, n) != 0)
                return false;
            w->want += n;
            w->have += n;
            if (!take(w, ':'))
                return false;
        } else {
            snprintf(w->path + used, sizeof w->path - used, "[%d]", i);
        }
        if (!same(w))
            return false;
        w->path[used] = 0;
    }
    return take(w, end);
}

/* False: w stands at the first that differs. */
static bool same(struct walk *w)
{
    if (aside(w)) {
        w->want = skip(w->want);
        w->have = skip(w->have);
        return true;
    }
    if (*w->have == '{' || *w->have == '[')
        return take(w, *w->have) && same_list(w, w->have[-1] == '{' ? '}' : ']');
    size_t n = (size_t)(value_end(w->have) - w->have);
    if (strncmp(w->want, w->have, n) != 0 || (w->want[n] && !strchr(",]}", w->want[n])))
        return false;
    w->want += n;
    w->have += n;
    return true;
}

/* A value for people, or the key or value behind a comma: as text, and not without end. */
static void tell_value(const char *what, const char *s)
{
    enum { MOST = 60 };
    char text[MOST + 4];
    s += *s == ',';
    size_t n = (size_t)(value_end(s) - s);
    snprintf(text, sizeof text, "%.*s%s", (int)(n < MOST ? n : MOST), s, n > MOST ? "..." : "");
    fprintf(stderr, "%s ", what);
    cli_put(stderr, n ? text : "nothing more");
}

/* ---- the recording ---- */

um_status verify_open(struct verify *v, const char *folder)
{
    *v = (struct verify){.file = open_in(folder, "packets.jsonl", "rb")};
    return v->file ? UM_OK : UM_EIO;
}

static bool differs(struct verify *v, uint64_t frame, const char *why)
{
    v->differs = true;
    tell_progress_end();
    fprintf(stderr, "ultramotion: frame %llu differs from the recording: %s\n",
            (unsigned long long)frame, why);
    return false;
}

/* The next whole line, without its end. */
static bool next_line(struct verify *v)
{
    ssize_t n = getline(&v->line, &v->room, v->file);
    if (n <= 0 && !feof(v->file) && !v->differs) {
        char text[128];
        snprintf(text, sizeof text, "packets.jsonl cannot be read: %s", strerror(errno));
        differs(v, v->lines, text);
    }
    if (n <= 0)
        return false;
    if (v->line[n - 1] != '\n') {
        v->torn = true;
        return false;
    }
    v->line[n - 1] = 0;
    v->lines++;
    return true;
}

bool verify_packet(struct verify *v, const um_packet *packet)
{
    char *again = NULL;
    if (v->differs)
        return false;
    if (v->lines < packet->frame_id && next_line(v))
        return differs(v, v->lines - 1, "expected a packet, found none");
    if (!next_line(v)) { /* killed between a frame and its packet: the last one */
        if (v->differs)
            return false;
        if (v->unrecorded)
            return differs(v, packet->frame_id - 1,
                           v->lines ? "its packet is missing, and others after it"
                                    : "no packet was recorded");
        v->unrecorded = true;
        return true;
    }
    if (strstr(v->line, "\"detector\":null"))
        return differs(v, packet->frame_id,
                       "it was made without a detector, as by segment: only what run recorded can "
                       "be verified");
    if (um_packet_json(packet, &again) != UM_OK)
        return differs(v, packet->frame_id, um_last_error());
    struct walk w = {.want = v->line, .have = again, .v = v};
    bool equal = same(&w) && !*w.want;
    if (!equal) {
        v->differs = true;
        tell_progress_end();
        fprintf(stderr, "ultramotion: frame %llu differs from the recording: %s: ",
                (unsigned long long)packet->frame_id, w.path[0] ? w.path : "its line");
        tell_value("expected", w.want);
        tell_value(", found", w.have);
        fprintf(stderr, "\n");
    }
    v->equal += equal;
    um_free(again);
    return equal;
}

bool verify_end(struct verify *v, long limit, bool stopped, bool quiet)
{
    bool more = !v->differs && !(limit && v->lines >= (uint64_t)limit) && next_line(v);
    v->rest = more && stopped;
    if (more && !stopped)
        differs(v, v->lines - 1, "expected a packet, found none");
    if (!v->differs && !v->equal && !v->rest)
        differs(v, 0, "no packet was recorded");
    if (v->torn)
        fprintf(stderr,
                "ultramotion: the recording's last packet is not whole, and was left out\n");
    if (!v->differs && !quiet)
        fprintf(stderr, "verified   %llu packet%s equal%s\n", (unsigned long long)v->equal,
                plural(v->equal), v->other_device ? ", device and transfers aside" : "");
    return !v->differs;
}

void verify_close(struct verify *v)
{
    if (v->file)
        fclose(v->file);
    free(v->line);
    *v = (struct verify){.lines = 0};
}
