/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "stop.h"
#include "tell.h"
#include "text.h"

struct writing {
    const struct options *o;
    long frames, done;
};

static int after_frame(void *ctx, long done)
{
    struct writing *w = ctx;
    w->done = done;
    if (!w->o->quiet)
        tell_progress((uint64_t)done, w->frames, "");
    return stop_requested();
}

int command_phantom(const struct options *o)
{
    int width = 422, height = 558;
    long all = o->sweep ? 105 : 100; /* one sweep */
    struct writing w = {.o = o, .frames = o->frames ? o->frames : all};
    const char *dir = cli_folder(o, "phantom");
    if (!dir)
        return EXIT_USAGE;
    if (o->sweep && o->look)
        return cli_usage("phantom: --look %s: --sweep has a look of its own", o->look);
    if (o->size && !options_size("--size", o->size, &width, &height))
        return EXIT_USAGE;
    stop_catch();
    um_status st = um_phantom_write(dir, o->sweep ? "sweep" : o->look, o->seed, w.frames, width,
                                    height, after_frame, &w);
    tell_progress_end();
    if (st != UM_OK)
        return cli_fail(st);
    if (!o->quiet)
        fprintf(stderr, "%ld frame%s in %s/frames, masks in %s/masks, truth in %s/truth.json\n",
                w.done, plural((uint64_t)w.done), dir, dir, dir);
    return EXIT_DONE;
}
