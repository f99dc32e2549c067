/* SPDX-License-Identifier: Apache-2.0 */
#include "model/input_size.h"

#include "base/number.h"

#include <stdio.h>
#include <string.h>

static bool side(const char *text, int step, int *out)
{
    uint64_t n = 0;
    if (!um_number_whole(text, UM_INPUT_MAX, &n) || n == 0 || n % (uint64_t)step)
        return false;
    *out = (int)n;
    return true;
}

um_status um_input_extent(const um_weights *file, int step, int *w, int *h, const char **from)
{
    char width[16];
    *w = *h = 0;
    const char *where = NULL, *text = um_weights_fact(file, "input_size", &where);
    if (!text)
        return UM_OK;
    if (from)
        *from = where;
    size_t n = strcspn(text, "x");
    snprintf(width, sizeof width, "%.*s", (int)(n < sizeof width ? n : sizeof width), text);
    if (n >= sizeof width || !side(width, step, w) ||
        !side(text[n] ? text + n + 1 : width, step, h))
        return um_fail(UM_EFORMAT,
                       "%s: %s input_size is \"%.40s\", want N or WxH of multiples of %d up to %d",
                       um_weights_path(file), where, text, step, UM_INPUT_MAX);
    return UM_OK;
}

um_status um_input_size(const um_weights *file, int step, int *side_out)
{
    int h = 0;
    um_status st = um_input_extent(file, step, side_out, &h, NULL);
    if (st == UM_OK && *side_out != h)
        return um_fail(UM_EFORMAT, "%s: metadata input_size is %dx%d, want a square",
                       um_weights_path(file), *side_out, h);
    return st;
}

um_status um_input_gray(const um_weights *file, bool *gray)
{
    const char *where = NULL, *text = um_weights_fact(file, "gray", &where);
    *gray = text && strcmp(text, "1") == 0;
    if (text && !*gray && strcmp(text, "0") != 0)
        return um_fail(UM_EFORMAT, "%s: %s gray is \"%.40s\", want 0 or 1", um_weights_path(file),
                       where, text);
    return UM_OK;
}
