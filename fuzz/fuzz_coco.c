/* SPDX-License-Identifier: Apache-2.0 */
/* A COCO file beside two images, and its annotations as masks. */
#include "memory_file.h"

#include "truth.h"

#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WIDTH = 12, HEIGHT = 9, ROOM = MEMORY_PATH + 16 };

static char folder[MEMORY_PATH];

static void in_folder(char path[ROOM], const char *name)
{
    snprintf(path, ROOM, "%s/%s", folder, name);
}

static void forget(void)
{
    static const char *const names[] = {"a.png", "b.png", "truth.json"};
    char path[ROOM];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        in_folder(path, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* a.png and b.png, in a folder that goes with the process. */
static void begin(void)
{
    static const uint8_t pixels[WIDTH * HEIGHT] = {1};
    char path[ROOM];
    scratch_path(folder);
    if (mkdir(folder, 0700) != 0)
        abort();
    atexit(forget);
    for (const char *name = "ab"; *name; name++) {
        in_folder(path, (char[]){*name, '.', 'p', 'n', 'g', 0});
        if (um_image_write_png(path, pixels, WIDTH, HEIGHT, 1) != UM_OK)
            abort();
    }
}

static void check(const struct truth_frame *f, int categories)
{
    if (f->image->width != WIDTH || f->image->height != HEIGHT)
        abort();
    for (int i = 0; i < f->objects; i++) {
        const struct truth_object *o = &f->object[i];
        if (o->category < 0 || o->category >= categories || !(o->box[2] >= 0 && o->box[3] >= 0))
            abort();
        for (int k = 0; o->mask && k < WIDTH * HEIGHT; k++)
            if (o->mask[k] > 1)
                abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[ROOM];
    if (!folder[0])
        begin();
    in_folder(path, "truth.json");
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    truth *t = NULL;
    struct truth_settings set = {.images = folder};
    um_source_settings_default(&set.source);
    um_status st = truth_open(&t, path, &set);
    const struct category *category = NULL;
    int categories = st == UM_OK ? truth_categories(t, &category) : 0;
    while (st == UM_OK) {
        struct truth_frame frame;
        st = truth_next(t, &frame);
        if (st == UM_OK)
            check(&frame, categories);
    }
    if (st != UM_EOF && !um_last_error()[0])
        abort(); /* a refusal says why */
    truth_close(&t);
    return 0;
}
