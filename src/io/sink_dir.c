/* SPDX-License-Identifier: Apache-2.0 */
/* "dir:PATH": two images per packet, <name>_mask.png (0 and 255; with several objects asked for,
 * the object's index + 1; none of a detector alone) and <name>_overlay.png. */
#include "io/path.h"
#include "io/sink.h"

#include "base/mem.h"
#include "base/sha256.h"
#include "base/text.h"
#include "ultramotion/io.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct dir {
    const char *path;
    const um_source *source; /* what is read meanwhile, or NULL */
    bool labels;             /* masks are label maps */
    int lock;                /* the folder, held against others that would write there */
};

static um_status dir_open(void *priv, const char *arg, const um_sink_settings *settings,
                          int wake_fd)
{
    (void)wake_fd;
    struct dir *s = priv;
    *s = (struct dir){
        .path = arg, .source = settings->source, .labels = settings->objects > 1, .lock = -1};
    if (!arg[0])
        return um_fail(UM_EINVAL, "dir: needs a path");
    um_status st = um_path_hold_folder(arg, &s->lock);
    if (st == UM_OK && access(arg, W_OK | X_OK) != 0)
        st = um_fail(UM_EIO, "%s: cannot be written to: %s", arg, strerror(errno));
    return st;
}

/* "<name>_<kind>.png". Of a name that no file system takes as long, the end is replaced by a hash
 * of all of it. */
static char *file_of(const char *name, const char *kind)
{
    enum { LONGEST = 255, HASH = 16 };
    const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
    size_t n = strlen(name), ending = strlen(kind) + strlen("_.png");
    char *file = um_alloc(n + HASH + ending + 2), hash[65];
    if (!file)
        return NULL;
    if (strlen(last) + ending <= LONGEST) {
        snprintf(file, n + ending + 1, "%s_%s.png", name, kind);
        return file;
    }
    um_sha256_hex(hash, name, n);
    size_t keep = (size_t)(last - name) + um_text_cut(last, LONGEST - ending - HASH - 1);
    snprintf(file, n + HASH + ending + 2, "%.*s~%.*s_%s.png", (int)keep, name, HASH, hash, kind);
    return file;
}

static um_status write_one(const struct dir *s, const char *name, const char *kind,
                           const uint8_t *pixels, const um_packet *p, int channels)
{
    char *file = file_of(name, kind);
    char *path = file ? um_path_join(s->path, file) : NULL;
    um_status st = path ? UM_OK : um_fail(UM_ENOMEM, "%s", name);
    if (path && strchr(file, '/')) /* of a glob over several folders */
        st = um_path_make_parents(path);
    if (st == UM_OK && um_source_reads(s->source, path))
        st = um_fail(UM_EINVAL, "%s: is also the input %s", path, um_source_name(s->source));
    if (st == UM_OK)
        st = um_image_write_png(path, pixels, p->width, p->height, channels);
    um_free(file);
    um_free(path);
    return st;
}

static um_status write_mask(const struct dir *s, const char *name, const um_packet *packet)
{
    uint8_t *mask = um_alloc((size_t)packet->width * (size_t)packet->height);
    if (!mask)
        return um_fail(UM_ENOMEM, "mask of %dx%d", packet->width, packet->height);
    if (s->labels)
        um_packet_label_map(packet, mask);
    else
        um_packet_mask(packet, mask, 255);
    um_status st = write_one(s, name, "mask", mask, packet, 1);
    um_free(mask);
    return st;
}

static um_status dir_write(void *priv, const um_packet *packet, const um_frame *frame,
                           const char *name)
{
    struct dir *s = priv;
    uint8_t *rgb = NULL;
    if (name[0] == '/' || um_path_steps_up(name))
        return um_fail(UM_EINVAL, "%s: \"%s\" would be written elsewhere", s->path, name);
    um_status st =
        um_overlay(packet, frame, &rgb); /* also checks that packet and frame belong together */
    if (st == UM_OK && !um_packet_of_boxes(packet))
        st = write_mask(s, name, packet);
    if (st == UM_OK)
        st = write_one(s, name, "overlay", rgb, packet, 3);
    um_free(rgb);
    return st;
}

static um_status dir_close(void *priv)
{
    struct dir *s = priv;
    if (s->lock >= 0)
        close(s->lock);
    return UM_OK;
}

const um_sink_ops um_sink_dir = {
    .struct_size = sizeof um_sink_dir,
    .priv_size = sizeof(struct dir),
    .open = dir_open,
    .write = dir_write,
    .close = dir_close,
};
