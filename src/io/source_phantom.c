/* SPDX-License-Identifier: Apache-2.0 */
/* "phantom:seed=1,frames=100,…": the generator as a source, and as files with truth. */
#include "io/path.h"
#include "io/phantom_screen.h"
#include "io/phantom_sweep.h"
#include "io/scheme.h"
#include "io/source.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/number.h"
#include "ultramotion/io.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const double EMPTY_SHARE = 0.1;

enum { SWEEP_NAME_BYTES = 64 };

/* Draws single images, or sweeps. */
struct generator {
    um_phantom *phantom; /* NULL: sweeps */
    struct um_sweep sweep;
};

static um_status generator_open(struct generator *g, bool sweeps, int width, int height,
                                double empty, um_look look)
{
    if (!sweeps)
        return um_phantom_open(&g->phantom, width, height, empty, look);
    if (width != UM_PHANTOM_WIDTH || height != UM_PHANTOM_HEIGHT)
        return um_fail(UM_EINVAL, "phantom: width=%d, height=%d: sweep=1 has only %dx%d pixels",
                       width, height, (int)UM_PHANTOM_WIDTH, (int)UM_PHANTOM_HEIGHT);
    return um_sweep_open(&g->sweep);
}

static void generator_close(struct generator *g)
{
    um_phantom_close(&g->phantom);
    um_sweep_close(&g->sweep);
}

/* As um_phantom_draw(). */
static void generator_draw(struct generator *g, uint64_t seed, uint64_t index, uint8_t *pixels,
                           uint8_t *mask, um_truth *truth)
{
    enum { SIZE = UM_PHANTOM_WIDTH * UM_PHANTOM_HEIGHT };
    if (g->phantom) {
        um_phantom_draw(g->phantom, seed, index, pixels, mask, truth);
        return;
    }
    um_sweep_draw(&g->sweep, seed, index);
    memcpy(pixels, g->sweep.pixels, SIZE);
    memcpy(mask, g->sweep.mask, SIZE);
    *truth = g->sweep.truth;
    truth->mask = truth->has_bone ? mask : NULL;
}

/* A sweep is a folder. */
static void name_in_sweep(char name[SWEEP_NAME_BYTES], uint64_t index)
{
    snprintf(name, SWEEP_NAME_BYTES, "sweep%03llu/%05llu",
             (unsigned long long)(index / UM_SWEEP_FRAMES),
             (unsigned long long)(index % UM_SWEEP_FRAMES));
}

struct source_phantom {
    struct generator generator;
    uint64_t seed;
    int frames; /* 0 = endless; -1 = not said */
    int width, height;
    double empty; /* -1 = not said */
    bool sweeps, on_screen;
    um_look look;
    um_surface surface;
    struct um_screen screen;
    uint8_t *mask;
    um_truth truth;
    int drawn;
    char name[SWEEP_NAME_BYTES];
};

/* known: what may be asked for here, for people. */
static um_status read_look(const char *value, const char *known, um_look *look)
{
    if (strcmp(value, "default") != 0 && strcmp(value, "hard") != 0)
        return um_fail(UM_EINVAL, "look=%s must be %s", value, known);
    *look = *value == 'h' ? UM_LOOK_HARD : UM_LOOK_DEFAULT;
    return UM_OK;
}

static um_status read_surface(const char *value, um_surface *surface)
{
    static const char *const names[UM_SURFACES] = {"any", "arc", "plate", "rib", "flank", "humps"};
    for (int i = 0; i < UM_SURFACES; i++)
        if (strcmp(value, names[i]) == 0) {
            *surface = (um_surface)i;
            return UM_OK;
        }
    return um_fail(UM_EINVAL, "surface=%s must be any, arc, plate, rib, flank or humps", value);
}

static um_status read_flag(const char *key, const char *value, bool *flag)
{
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        return um_fail(UM_EINVAL, "%s=%s must be 0 or 1", key, value);
    *flag = *value == '1';
    return UM_OK;
}

static um_status set(void *priv, const char *key, const char *value)
{
    struct source_phantom *s = priv;
    if (strcmp(key, "seed") == 0)
        return um_number_whole(value, UINT64_MAX, &s->seed)
                   ? UM_OK
                   : um_fail(UM_EINVAL, "seed: \"%s\" is not a whole number from 0 to %llu", value,
                             (unsigned long long)UINT64_MAX);
    if (strcmp(key, "frames") == 0)
        return um_scheme_whole(key, value, 0, INT_MAX, &s->frames);
    if (strcmp(key, "width") == 0)
        return um_scheme_whole(key, value, 0, INT_MAX, &s->width);
    if (strcmp(key, "height") == 0)
        return um_scheme_whole(key, value, 0, INT_MAX, &s->height);
    if (strcmp(key, "empty") == 0)
        return um_scheme_number(key, value, 0, 1, &s->empty);
    if (strcmp(key, "look") == 0)
        return read_look(value, "default or hard", &s->look);
    if (strcmp(key, "surface") == 0)
        return read_surface(value, &s->surface);
    if (strcmp(key, "sweep") == 0)
        return read_flag(key, value, &s->sweeps);
    if (strcmp(key, "screen") == 0)
        return read_flag(key, value, &s->on_screen);
    return um_fail(UM_EINVAL,
                   "unknown key \"%s\": known are seed, frames, width, height, empty, look, "
                   "surface, sweep, screen",
                   key);
}

/* What only all keys together say. */
static um_status settle(struct source_phantom *s)
{
    if (s->surface != UM_SURFACE_ANY && s->look != UM_LOOK_HARD)
        return um_fail(UM_EINVAL, "phantom: surface= is of look=hard; the default look has one");
    if (s->sweeps && s->look != UM_LOOK_DEFAULT)
        return um_fail(UM_EINVAL, "phantom: sweep=1 is of look=default, not of look=hard");
    if (s->sweeps && s->empty >= 0)
        return um_fail(UM_EINVAL,
                       "phantom: empty= is not of sweep=1: the script says where no bone is");
    if (s->frames < 0)
        s->frames = s->sweeps ? UM_SWEEP_FRAMES : 100;
    if (s->empty < 0)
        s->empty = EMPTY_SHARE;
    return UM_OK;
}

static um_status phantom_open(void *priv, const char *spec, const um_source_settings *settings,
                              int wake_fd)
{
    (void)settings;
    (void)wake_fd; /* nothing waits */
    struct source_phantom *s = priv;
    s->seed = 1;
    s->frames = -1;
    s->width = UM_PHANTOM_WIDTH;
    s->height = UM_PHANTOM_HEIGHT;
    s->empty = -1;
    um_status st = um_scheme_options(spec, "phantom", NULL, set, s);
    if (st == UM_OK)
        st = settle(s);
    if (st == UM_OK)
        st = generator_open(&s->generator, s->sweeps, s->width, s->height, s->empty, s->look);
    if (st == UM_OK && !s->sweeps)
        um_phantom_set_surface(s->generator.phantom, s->surface);
    if (st == UM_OK && s->on_screen)
        st = um_screen_open(&s->screen, s->seed, s->width, s->height);
    else if (st == UM_OK && !(s->mask = um_alloc((size_t)s->width * (size_t)s->height)))
        st = um_fail(UM_ENOMEM, "phantom mask");
    return st;
}

static void phantom_close(void *priv)
{
    struct source_phantom *s = priv;
    generator_close(&s->generator);
    um_screen_close(&s->screen);
    um_free(s->mask);
}

static um_status phantom_read(void *priv, uint64_t index, um_frame **frame)
{
    struct source_phantom *s = priv;
    if (s->frames && index >= (uint64_t)s->frames)
        return UM_EOF;
    um_status st = s->on_screen ? um_frame_create(frame, UM_SCREEN_WIDTH, UM_SCREEN_HEIGHT, 1)
                                : um_frame_create(frame, s->width, s->height, 1);
    if (st != UM_OK)
        return st;
    um_frame *f = *frame;
    generator_draw(&s->generator, s->seed, index, s->on_screen ? s->screen.image : f->pixels,
                   s->on_screen ? s->screen.image_mask : s->mask, &s->truth);
    if (s->on_screen)
        um_screen_show(&s->screen, f->pixels, &s->truth);
    s->drawn = 1;
    if (s->sweeps) {
        f->has_pose = f->has_spacing = 1;
        memcpy(f->pose, s->generator.sweep.pose, sizeof f->pose);
        f->spacing_mm[0] = f->spacing_mm[1] = UM_SWEEP_SPACING;
        name_in_sweep(s->name, index);
    }
    return UM_OK;
}

static long phantom_length(const void *priv)
{
    const struct source_phantom *s = priv;
    return s->frames ? s->frames : LONG_MAX;
}

static const char *phantom_name(const void *priv)
{
    const struct source_phantom *s = priv;
    return s->name; /* "" where a number will do */
}

static const um_truth *phantom_truth(const void *priv)
{
    const struct source_phantom *s = priv;
    return s->drawn ? &s->truth : NULL;
}

const um_source_ops um_source_phantom = {
    .struct_size = sizeof um_source_phantom,
    .priv_size = sizeof(struct source_phantom),
    .open = phantom_open,
    .close = phantom_close,
    .read = phantom_read,
    .length = phantom_length,
    .name = phantom_name,
    .truth = phantom_truth,
};

/* ---- files ---- */

struct writer {
    const char *dir;
    int width, height;
    struct generator generator;
    bool sweeps;
    um_look look;
    long written; /* annotations */
    uint8_t *pixels, *mask;
    um_json images, annotations;
};

static um_status write_png(const struct writer *w, const char *name, const uint8_t *pixels)
{
    char *path = um_path_join(w->dir, name);
    um_status st = path ? UM_OK : um_fail(UM_ENOMEM, "%s", name);
    if (path && w->sweeps) /* each has a folder */
        st = um_path_make_parents(path);
    if (st == UM_OK)
        st = um_image_write_png(path, pixels, w->width, w->height, 1);
    um_free(path);
    return st;
}

static void describe_box(um_json *j, const float box[4])
{
    const float xywh[4] = {box[0], box[1], box[2] - box[0], box[3] - box[1]};
    um_json_put_floats(j, "bbox", xywh, 4);
}

/* The probe's, of a sweep. */
static void describe_pose(um_json *j, const struct writer *w)
{
    um_json_put_doubles(j, "pose", w->sweeps ? w->generator.sweep.pose : NULL, 16);
}

/* The look that knows more than one: kinds in the order of structures/NAME.png, whose pixels are
 * 0, or the index of a structure + 1. */
static void describe_structures(um_json *j, const um_truth *truth)
{
    static const char *const kinds[] = {"bone",  "fascia", "vessel", "cyst",
                                        "nerve", "tendon", "needle"};
    um_json_put_begin(j, "structures", '[');
    for (int i = 0; i < truth->n_structures; i++) {
        um_json_begin(j, '{');
        um_json_put_string(j, "kind", kinds[truth->structure[i].kind]);
        describe_box(j, truth->structure[i].box);
        um_json_end(j, '}');
    }
    um_json_end(j, ']');
}

/* An annotation of w->mask. */
static um_status describe_bone(struct writer *w, long id, const float box[4], float visibility)
{
    um_json *j = &w->annotations;
    char *counts = NULL;
    um_status st = um_rle_encode(w->mask, w->width, w->height, &counts);
    if (st != UM_OK)
        return st;
    int64_t area = 0;
    for (size_t i = 0; i < (size_t)w->width * (size_t)w->height; i++)
        area += w->mask[i];
    um_json_newline(j);
    um_json_begin(j, '{');
    /* from 1: to pycocotools 0 means "no match" */
    um_json_put_int(j, "id", w->look == UM_LOOK_DEFAULT ? id + 1 : ++w->written);
    um_json_put_int(j, "image_id", id);
    um_json_put_int(j, "category_id", 0);
    describe_box(j, box);
    um_json_put_int(j, "area", area);
    um_json_put_int(j, "iscrowd", 0);
    um_json_put_begin(j, "segmentation", '{');
    um_json_put_begin(j, "size", '[');
    um_json_int(j, w->height);
    um_json_int(j, w->width);
    um_json_end(j, ']');
    um_json_put_string(j, "counts", counts);
    um_json_end(j, '}');
    um_json_put_float(j, "visibility", visibility);
    describe_pose(j, w);
    um_json_end(j, '}');
    um_free(counts);
    return UM_OK;
}

/* Leaves the mask of all bones in w->mask. */
static um_status describe(struct writer *w, long id, const char *name, const um_truth *truth)
{
    um_json *j = &w->images;
    size_t size = (size_t)w->width * (size_t)w->height;
    um_json_newline(j);
    um_json_begin(j, '{');
    um_json_put_int(j, "id", id);
    um_json_put_string(j, "file_name", name);
    um_json_put_int(j, "width", w->width);
    um_json_put_int(j, "height", w->height);
    if (truth->map)
        describe_structures(j, truth);
    if (w->sweeps) {
        um_json_put_string(j, "event", w->generator.sweep.event);
        describe_pose(j, w);
    }
    um_json_end(j, '}');
    if (!truth->map)
        return truth->has_bone ? describe_bone(w, id, truth->box, truth->visibility) : UM_OK;
    int bones = 0;
    um_status st = UM_OK;
    for (int i = 0; i < truth->n_structures && st == UM_OK; i++) {
        if (truth->structure[i].kind != UM_STRUCTURE_BONE)
            continue;
        for (size_t k = 0; k < size; k++)
            w->mask[k] = truth->map[k] == i + 1;
        /* they come first, and of the first alone it is known how much is visible */
        st = describe_bone(w, id, truth->structure[i].box, bones++ ? NAN : truth->visibility);
    }
    for (size_t k = 0; k < size; k++)
        w->mask[k] = truth->map[k] && truth->map[k] <= bones;
    return st;
}

static um_status write_truth(struct writer *w)
{
    char *images = NULL, *annotations = NULL;
    um_json_end(&w->images, ']');
    um_json_end(&w->annotations, ']');
    um_status st = um_json_finish(&w->images, &images);
    if (st == UM_OK)
        st = um_json_finish(&w->annotations, &annotations);
    char *path = um_path_join(w->dir, "truth.json");
    if (st == UM_OK && !path)
        st = um_fail(UM_ENOMEM, "truth.json");
    struct um_part part;
    if (st == UM_OK)
        st = um_part_open(&part, path);
    if (st == UM_OK) {
        /* label 0 of the detector is category 0 here */
        static const char *const TEXT[] = {"{\"info\":{\"description\":\"ultramotion phantom\"},\n"
                                           "\"categories\":[{\"id\":0,\"name\":\"bone\"}],\n"
                                           "\"images\":",
                                           ",\n\"annotations\":", "}\n"};
        um_part_write(&part, TEXT[0], strlen(TEXT[0]));
        um_part_write(&part, images, strlen(images));
        um_part_write(&part, TEXT[1], strlen(TEXT[1]));
        um_part_write(&part, annotations, strlen(annotations));
        um_part_write(&part, TEXT[2], strlen(TEXT[2]));
        st = um_part_close(&part, UM_OK);
    }
    um_free(path);
    um_free(images);
    um_free(annotations);
    return st;
}

static um_status make_folders(const char *dir, um_look look)
{
    static const char *const names[] = {"frames", "masks", "structures"};
    um_status st = um_path_make_folder(dir);
    for (int i = 0; i < (look == UM_LOOK_HARD ? 3 : 2) && st == UM_OK; i++) {
        char *path = um_path_join(dir, names[i]);
        st = path ? um_path_make_folder(path) : um_fail(UM_ENOMEM, "%s", names[i]);
        um_free(path);
    }
    return st;
}

static void name_frame(char name[SWEEP_NAME_BYTES], bool sweeps, uint64_t index)
{
    if (sweeps)
        name_in_sweep(name, index);
    else
        snprintf(name, SWEEP_NAME_BYTES, "%05llu", (unsigned long long)index);
}

/* Images of an older set that would stay among the new ones, which its truth does not know. */
static um_status refuse_older(const struct writer *w, long frames)
{
    char next[SWEEP_NAME_BYTES], other[SWEEP_NAME_BYTES], left[3][SWEEP_NAME_BYTES + 16];
    name_frame(next, w->sweeps, (uint64_t)frames);
    name_frame(other, !w->sweeps, 0);
    snprintf(left[0], sizeof left[0], "frames/%s.png", next);
    snprintf(left[1], sizeof left[1], "frames/%s.png", other);
    snprintf(left[2], sizeof left[2], "structures/%s.png",
             w->look == UM_LOOK_HARD ? next : "00000");
    for (int i = 0; i < 3; i++) {
        char *path = um_path_join(w->dir, left[i]);
        if (!path)
            return um_fail(UM_ENOMEM, "%s", left[i]);
        um_status st = UM_OK;
        if (access(path, F_OK) == 0)
            st = um_fail(UM_EINVAL,
                         "phantom: %s: of an older set, and would stay among %ld new frames: want "
                         "another folder, or that one emptied",
                         path, frames);
        um_free(path);
        if (st != UM_OK)
            return st;
    }
    return UM_OK;
}

um_status um_phantom_write(const char *dir, const char *look, uint64_t seed, long frames, int width,
                           int height, int (*progress)(void *ctx, long done), void *ctx)
{
    if (!dir || !dir[0] || frames < 1)
        return um_fail(UM_EINVAL, "phantom: %s", frames < 1 ? "at least one frame" : "no folder");
    struct writer w = {.dir = dir, .width = width, .height = height};
    w.sweeps = look && strcmp(look, "sweep") == 0;
    um_status st = look && !w.sweeps ? read_look(look, "default, hard or sweep", &w.look) : UM_OK;
    if (st == UM_OK)
        st = generator_open(&w.generator, w.sweeps, width, height, EMPTY_SHARE, w.look);
    if (st == UM_OK)
        st = refuse_older(&w, frames);
    if (st == UM_OK)
        st = make_folders(dir, w.look);
    size_t size = (size_t)width * (size_t)height;
    if (st == UM_OK && (!(w.pixels = um_alloc(size)) || !(w.mask = um_alloc(size))))
        st = um_fail(UM_ENOMEM, "phantom of %dx%d pixels", width, height);
    um_json_begin(&w.images, '[');
    um_json_begin(&w.annotations, '[');
    for (long i = 0; i < frames && st == UM_OK; i++) {
        char name[SWEEP_NAME_BYTES], frame_name[96], mask_name[96];
        um_truth truth;
        name_frame(name, w.sweeps, (uint64_t)i);
        snprintf(frame_name, sizeof frame_name, "frames/%s.png", name);
        snprintf(mask_name, sizeof mask_name, "masks/%s_mask.png", name);
        generator_draw(&w.generator, seed, (uint64_t)i, w.pixels, w.mask, &truth);
        st = write_png(&w, frame_name, w.pixels);
        if (st == UM_OK)
            st = describe(&w, i, frame_name, &truth);
        for (size_t k = 0; k < size; k++)
            w.mask[k] = w.mask[k] ? 255 : 0;
        if (st == UM_OK)
            st = write_png(&w, mask_name, w.mask);
        if (st == UM_OK && truth.map) {
            snprintf(mask_name, sizeof mask_name, "structures/%05ld.png", i);
            st = write_png(&w, mask_name, truth.map);
        }
        if (st == UM_OK && progress && progress(ctx, i + 1) != 0)
            break;
    }
    if (st == UM_OK)
        st = write_truth(&w);
    um_json_free(&w.images);
    um_json_free(&w.annotations);
    um_free(w.pixels);
    um_free(w.mask);
    generator_close(&w.generator);
    return st;
}
