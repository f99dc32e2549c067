/* SPDX-License-Identifier: Apache-2.0 */
/* "dir:PATH": two pictures per packet, <name>_mask.png (0/255) and <name>_overlay.png. */
#include "io/path.h"
#include "io/sink.h"

#include "base/mem.h"

#include <stdio.h>

struct dir {
    const char *path;
};

static um_status dir_open(void *priv, const char *arg)
{
    struct dir *s = priv;
    s->path = arg;
    if (!arg[0])
        return um_fail(UM_EINVAL, "dir: needs a path");
    return um_path_make_folder(arg);
}

static um_status write_one(const struct dir *s, const char *name, const char *kind,
                           const uint8_t *pixels, const um_packet *p, int channels)
{
    char file[300];
    snprintf(file, sizeof file, "%.255s_%s.png", name, kind);
    char *path = um_path_join(s->path, file);
    if (!path)
        return um_fail(UM_ENOMEM, "%s", file);
    um_status st = um_image_write_png(path, pixels, p->width, p->height, channels);
    um_free(path);
    return st;
}

static um_status dir_write(void *priv, const um_packet *packet, const um_frame *frame,
                           const char *name)
{
    struct dir *s = priv;
    uint8_t *rgb = NULL;
    um_status st =
        um_overlay(packet, frame, &rgb); /* also checks that packet and frame belong together */
    uint8_t *mask = st == UM_OK ? um_alloc((size_t)packet->width * (size_t)packet->height) : NULL;
    if (st == UM_OK && !mask)
        st = um_fail(UM_ENOMEM, "mask of %dx%d", packet->width, packet->height);
    if (st == UM_OK) {
        um_packet_mask(packet, mask, 255);
        st = write_one(s, name, "mask", mask, packet, 1);
    }
    if (st == UM_OK)
        st = write_one(s, name, "overlay", rgb, packet, 3);
    um_free(mask);
    um_free(rgb);
    return st;
}

static um_status dir_close(void *priv)
{
    (void)priv;
    return UM_OK;
}

const um_sink_type um_sink_dir = {
    .scheme = "dir",
    .usage = "dir:PATH",
    .priv_size = sizeof(struct dir),
    .open = dir_open,
    .write = dir_write,
    .close = dir_close,
};
