/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <unistd.h>

struct phantom_progress {
    long frames;
    bool terminal;
};

static void phantom_shown(void *ctx, long done)
{
    const struct phantom_progress *p = ctx;
    if (p->terminal)
        fprintf(stderr, "\r%ld/%ld ", done, p->frames);
}

int command_phantom(const struct options *o)
{
    int width = 422, height = 558;
    long all = o->sweep ? 105 : 100; /* one sweep */
    struct phantom_progress p = {.frames = o->frames ? o->frames : all,
                                 .terminal = isatty(2) && !o->quiet};
    const char *dir = cli_folder(o, "phantom");
    if (!dir)
        return EXIT_USAGE;
    if (o->sweep && o->look)
        return cli_usage("phantom: --look %s: --sweep has a look of its own", o->look);
    if (o->size && !options_size("--size", o->size, &width, &height))
        return EXIT_USAGE;
    um_status st = um_phantom_write(dir, o->sweep ? "sweep" : o->look, o->seed, p.frames, width,
                                    height, phantom_shown, &p);
    if (p.terminal)
        fprintf(stderr, "\n");
    if (st != UM_OK)
        return cli_fail(st);
    if (!o->quiet)
        fprintf(stderr, "%ld frames in %s/frames, masks in %s/masks, truth in %s/truth.json\n",
                p.frames, dir, dir, dir);
    return EXIT_DONE;
}
