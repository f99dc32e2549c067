/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "tell.h"

static void show(void *frames, long done)
{
    tell_progress((uint64_t)done, *(const long *)frames, "");
}

int command_phantom(const struct options *o)
{
    int width = 422, height = 558;
    long all = o->sweep ? 105 : 100; /* one sweep */
    long frames = o->frames ? o->frames : all;
    const char *dir = cli_folder(o, "phantom");
    if (!dir)
        return EXIT_USAGE;
    if (o->sweep && o->look)
        return cli_usage("phantom: --look %s: --sweep has a look of its own", o->look);
    if (o->size && !options_size("--size", o->size, &width, &height))
        return EXIT_USAGE;
    um_status st = um_phantom_write(dir, o->sweep ? "sweep" : o->look, o->seed, frames, width,
                                    height, o->quiet ? NULL : show, &frames);
    tell_progress_end();
    if (st != UM_OK)
        return cli_fail(st);
    if (!o->quiet)
        fprintf(stderr, "%ld frames in %s/frames, masks in %s/masks, truth in %s/truth.json\n",
                frames, dir, dir, dir);
    return EXIT_DONE;
}
