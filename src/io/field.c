/* SPDX-License-Identifier: Apache-2.0 */
#include "io/field.h"

#include "base/mem.h"

static const float BLUR_SIGMAS = 3.2f;

um_status um_field_open(struct um_field *f, int w, int h)
{
    f->w = w;
    f->tmp = um_array((size_t)w * (size_t)h, sizeof(float));
    f->line = um_array((size_t)w + 2 * UM_FIELD_TAPS, sizeof(float));
    f->knots = um_array((size_t)w + 4, sizeof(float));
    return f->tmp && f->line && f->knots ? UM_OK
                                         : um_fail(UM_ENOMEM, "phantom of %dx%d pixels", w, h);
}

void um_field_close(struct um_field *f)
{
    um_free(f->tmp);
    um_free(f->line);
    um_free(f->knots);
}

void um_field_noise(struct rng *r, float *out, size_t n)
{
    const float scale = 1 / 147.80167f; /* sqrt(4 (256^2 - 1) / 12) */
    for (size_t i = 0; i < n; i += 2) {
        uint64_t x = next(r);
        x = (x & 0x00ff00ff00ff00ffu) + (x >> 8 & 0x00ff00ff00ff00ffu);
        x += x >> 16;
        out[i] = (float)((int)(x & 0x3ff) - 510) * scale;
        if (i + 1 < n)
            out[i + 1] = (float)((int)(x >> 32 & 0x3ff) - 510) * scale;
    }
}

static int mirror(int i, int n) /* … 2 1 | 0 1 2 … n-1 | n-2 … */
{
    if (n == 1)
        return 0;
    int period = 2 * (n - 1);
    i %= period;
    i = i < 0 ? i + period : i;
    return i < n ? i : period - i;
}

/* Half of a normalised Gaussian, taps[0] its middle. */
static int gaussian(float *taps, float sigma)
{
    int r = (int)(BLUR_SIGMAS * sigma) + 1;
    r = r < UM_FIELD_TAPS ? r : UM_FIELD_TAPS - 1;
    float sum = 0;
    for (int i = 0; i <= r; i++) {
        taps[i] = natural_exp((float)(i * i) / (-2 * sigma * sigma));
        sum += i ? 2 * taps[i] : taps[i];
    }
    for (int i = 0; i <= r; i++)
        taps[i] /= sum;
    return r;
}

static float energy(const float *taps, int r)
{
    float sum = taps[0] * taps[0];
    for (int i = 1; i <= r; i++)
        sum += 2 * taps[i] * taps[i];
    return sum;
}

static void blur_row(struct um_field *f, const float *from, float *restrict to, int w, int r)
{
    float *restrict taps = f->taps, *restrict line = f->line + r;
    memcpy(line, from, (size_t)w * sizeof *line);
    for (int i = 1; i <= r; i++) {
        line[-i] = from[mirror(-i, w)];
        line[w - 1 + i] = from[mirror(w - 1 + i, w)];
    }
    for (int x = 0; x < w; x++)
        to[x] = taps[0] * line[x];
    for (int i = 1; i <= r; i++)
        for (int x = 0; x < w; x++)
            to[x] += taps[i] * (line[x - i] + line[x + i]);
}

/* From f->tmp, with f->taps. */
static void blur_columns(struct um_field *f, float *field, int w, int h, int r)
{
    const float *restrict taps = f->taps;
    for (int y = 0; y < h; y++) {
        float *restrict to = field + (size_t)y * (size_t)w;
        const float *from = f->tmp + (size_t)y * (size_t)w;
        for (int x = 0; x < w; x++)
            to[x] = taps[0] * from[x];
        for (int i = 1; i <= r; i++) {
            const float *restrict a = f->tmp + (size_t)mirror(y - i, h) * (size_t)w;
            const float *restrict b = f->tmp + (size_t)mirror(y + i, h) * (size_t)w;
            for (int x = 0; x < w; x++)
                to[x] += taps[i] * (a[x] + b[x]);
        }
    }
}

float um_field_blur(struct um_field *f, float *field, int w, int h, float sx, float sy)
{
    int r = gaussian(f->taps, sx);
    for (int y = 0; y < h; y++)
        blur_row(f, field + (size_t)y * (size_t)w, f->tmp + (size_t)y * (size_t)w, w, r);
    float left = energy(f->taps, r);
    r = gaussian(f->taps, sy);
    blur_columns(f, field, w, h, r);
    return left * energy(f->taps, r);
}

void um_field_widen(struct um_field *f, float *field, int w, int h, float near, float focus,
                    float far, float at, float sy)
{
    for (int y = 0; y < h; y++) {
        float fy = (float)y, *to = f->tmp + (size_t)y * (size_t)w;
        float sx = fy < at ? near + (focus - near) * fy / at
                           : focus + (far - focus) * (fy - at) / ((float)h - at);
        int r = gaussian(f->taps, sx);
        float scale = 1 / sqrtf(energy(f->taps, r));
        blur_row(f, field + (size_t)y * (size_t)w, to, w, r);
        for (int x = 0; x < w; x++)
            to[x] *= scale;
    }
    int r = gaussian(f->taps, sy);
    float scale = 1 / sqrtf(energy(f->taps, r));
    for (int i = 0; i <= r; i++)
        f->taps[i] *= scale;
    blur_columns(f, field, w, h, r);
}

void um_field_curve(struct um_field *f, struct rng *r, float amp, float spacing, float *out)
{
    int n = (int)((float)f->w / spacing);
    n = n < 3 ? 3 : n > f->w ? f->w : n;
    float *k = f->knots;
    for (int i = 0; i < n; i++)
        k[i] = amp * normal(r);
    float before = k[1]; /* the border is mirrored */
    for (int i = 0; i < n; i++) {
        float here = k[i], after = i + 1 < n ? k[i + 1] : before;
        k[i] = 0.25f * before + 0.5f * here + 0.25f * after;
        before = here;
    }
    k[n] = k[n - 1];
    float step = (float)(n - 1) / (float)f->w;
    for (int x = 0; x < f->w; x++) {
        float at = (float)x * step;
        int i = (int)at;
        out[x] = k[i] + (at - (float)i) * (k[i + 1] - k[i]);
    }
}
