/* SPDX-License-Identifier: Apache-2.0 */
#include "io/notice.h"

#include "base/file.h"
#include "base/text.h"
#include "io/clip.h"
#include "io/tiff.h"
#include "io/video.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void tell(const struct um_notices *n, const char *fmt, ...) UM_PRINTF(2, 3);

static void tell(const struct um_notices *n, const char *fmt, ...)
{
    char text[UM_NOTICE_BYTES], shown[UM_NOTICE_BYTES];
    va_list args;
    if (!n->tell)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    um_text_show(shown, sizeof shown, text);
    n->tell(n->ctx, shown);
}

void um_notices_init(struct um_notices *n, const um_source_settings *settings)
{
    n->tell = settings->on_notice;
    n->ctx = settings->ctx;
}

/* Is this the first file of which it is true? */
static bool first(struct um_notices *n, enum um_notice what, bool is)
{
    if (!is || n->in_file[what])
        return false;
    n->in_file[what] = true;
    return n->files[what]++ == 0;
}

void um_notices_see(struct um_notices *n, const char *file, bool begins,
                    const struct um_image_facts *f)
{
    n->any = true;
    if (begins)
        memset(n->in_file, 0, sizeof n->in_file);
    if (first(n, UM_NOTICE_TURNED, f->orientation > 1))
        tell(n, "%s: turned by its orientation (%d); boxes and masks are those of the turned image",
             file, f->orientation);
    if (first(n, UM_NOTICE_BITS, f->bits))
        tell(n, "%s: samples of %d bits in 16 (sBIT): %d is white", file, f->bits,
             (1 << f->bits) - 1);
    if (first(n, UM_NOTICE_DARK, f->greatest))
        tell(n,
             "%s: warning: 16-bit samples, and none is over %d of 65535, so the image is %s: "
             "--window auto stretches it, or --window 0,%d",
             file, f->greatest, f->white ? "nearly white" : "dark", f->greatest);
    if (first(n, UM_NOTICE_ANIMATED, f->animation))
        tell(n,
             "%s: an animated PNG of %u frame%s, of which only the still image is read%s: save "
             "it as a video or as single images to have all",
             file, (unsigned)f->animation, f->animation == 1 ? "" : "s",
             f->still_apart ? ", and it is none of them" : "");
    if (first(n, UM_NOTICE_COPIES, f->copies))
        tell(n, "%s: %d smaller cop%s passed over", file, f->copies,
             f->copies == 1 ? "y or mask in it was" : "ies or masks in it were");
    if (first(n, UM_NOTICE_BEHIND, f->behind))
        tell(n,
             "%s: warning: only its first image is read, another one is behind it: save them as "
             "single files, or as a video",
             file);
    if (first(n, UM_NOTICE_UNTOLD, f->untold))
        tell(n,
             "%s: warning: its header tells of fewer frames than it holds, and the last %llu "
             "%s not read: was it still being recorded?",
             file, (unsigned long long)f->untold, f->untold == 1 ? "is" : "are");
}

static const char linked[] = "linked folder";

void um_notices_pass(struct um_notices *n, const char *path)
{
    uint8_t head[UM_KIND_HEAD];
    struct um_kind kind = {UM_KIND_UNKNOWN, "", ""};
    char name[sizeof n->passed[0].name];
    int fd = -1;
    if (um_file_open(path, &fd, NULL) == UM_OK) {
        ssize_t got = read(fd, head, sizeof head);
        close(fd);
        if (got >= 0)
            kind = um_kind_of(head, (size_t)got);
    }
    struct stat s;
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash + 1 : path, '.');
    if (stat(path, &s) == 0 && S_ISDIR(s.st_mode))
        snprintf(name, sizeof name, "%s", linked);
    else if (kind.name[0])
        snprintf(name, sizeof name, "%s", kind.name);
    else if (dot)
        snprintf(name, sizeof name, "%.*s file", (int)sizeof name - 6, dot);
    else
        snprintf(name, sizeof name, "file without ending");
    int i = 0;
    while (i < n->kinds && strcmp(n->passed[i].name, name) != 0)
        i++;
    if (i == UM_NOTICE_KINDS) {
        i--;
        snprintf(n->passed[i].name, sizeof n->passed[i].name, "other");
        n->passed[i].sort = UM_KIND_UNKNOWN;
    } else if (i == n->kinds) {
        snprintf(n->passed[i].name, sizeof n->passed[i].name, "%s", name);
        n->passed[i].sort = kind.sort;
        n->kinds++;
    }
    n->passed[i].count++;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct um_passed *)a)->name, ((const struct um_passed *)b)->name);
}

void um_notices_pass_folder(struct um_notices *n)
{
    n->folders++;
}

void um_notices_result(struct um_notices *n, const char *file)
{
    if (n->results++ == 0)
        snprintf(n->result, sizeof n->result, "%s", file);
}

/* What to do about files of a kind in a folder; NULL: nothing. */
static const char *advice(const struct um_passed *p)
{
    bool left_out =
        p->sort == UM_KIND_VIDEO ? !um_video_built : strcmp(p->name, "TIFF") == 0 && !um_tiff_built;
    if (strcmp(p->name, linked) == 0)
        return "not followed, give it by name";
    switch (p->sort) {
    case UM_KIND_DICOM:
    case UM_KIND_OTHER_IMAGE:
    case UM_KIND_VOLUME:
    case UM_KIND_ENCRYPTED:
    case UM_KIND_POINTER: return um_clip_advice(p->sort);
    case UM_KIND_IMAGE:
    case UM_KIND_VIDEO:
        return left_out ? "this build was made without: see ultramotion doctor"
                        : "under another ending, give it by name";
    default: return NULL;
    }
}

void um_notices_passed(struct um_notices *n, char text[UM_NOTICE_BYTES])
{
    size_t at = 0;
    text[0] = 0;
    qsort(n->passed, (size_t)n->kinds, sizeof *n->passed, by_name);
    for (int i = 0; i < n->kinds && at < UM_NOTICE_BYTES; i++) {
        const char *todo = advice(&n->passed[i]);
        at += (size_t)snprintf(text + at, UM_NOTICE_BYTES - at, "%s%lu %s%s%s%s", at ? ", " : "",
                               n->passed[i].count, n->passed[i].name, todo ? " (" : "",
                               todo ? todo : "", todo ? ")" : "");
    }
    if (n->folders && at < UM_NOTICE_BYTES)
        snprintf(text + at, UM_NOTICE_BYTES - at, "%s%lu folder%s (--recursive looks into them)",
                 at ? ", " : "", n->folders, n->folders == 1 ? "" : "s");
}

void um_notices_end(struct um_notices *n, const char *source)
{
    static const char *const what[UM_NOTICES] = {
        "were turned by their orientation",
        "have fewer than 16 bits in 16 (sBIT)",
        "have samples of 16 bits that are all small: --window stretches them",
        "are animated PNGs",
        "have smaller copies or masks inside",
        "have further images behind the first",
        "hold more frames than their headers tell of"};
    char passed[UM_NOTICE_BYTES];
    if (n->ended || !n->any)
        return;
    n->ended = true;
    for (int i = 0; i < UM_NOTICES; i++)
        if (n->files[i] > 1)
            tell(n, "%s: %lu files %s", source, n->files[i], what[i]);
    if (n->results)
        tell(n,
             "%s: warning: read as images, too: %lu called like the mask or outline of another "
             "(%s): keep those in a folder of their own",
             source, n->results, n->result);
    um_notices_passed(n, passed);
    if (passed[0])
        tell(n, "%s: passed over: %s", source, passed);
}
