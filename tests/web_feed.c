/* SPDX-License-Identifier: Apache-2.0 */
/* web_feed SPEC FPS SECONDS: phantom frames with their true masks into a sink at a steady rate, so
 * that a viewer can be measured without a network's time (tests/test_viewer.py --measure). Closes
 * with what the sink counted, as a JSON object. */
#include "ultramotion/ultramotion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEPT = 60 };

static void say(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "ultramotion: %s\n", text);
}

static void print_count(void *ctx, const char *name, uint64_t n)
{
    int *any = ctx;
    printf("%s\"%s\":%llu", *any ? "," : "{", name, (unsigned long long)n);
    *any = 1;
}

/* A packet that says the truth. */
static um_status make(um_packet **packet, const um_frame *f, const um_truth *truth)
{
    um_packet p = {.struct_size = sizeof p,
                   .frame_id = f->id,
                   .ts = f->ts,
                   .state = truth->has_bone ? UM_STATE_VISIBLE : UM_STATE_LOST,
                   .score = 0.9f,
                   .width = f->width,
                   .height = f->height,
                   .crop = {0, 0, f->width, f->height},
                   .has_box = truth->has_bone,
                   .has_mask = truth->has_bone,
                   .device = "none",
                   .precision = "fp32"};
    memcpy(p.box, truth->box, sizeof p.box);
    size_t row = (size_t)um_packet_row_bytes(&p);
    uint8_t *bits = calloc((size_t)f->height, row);
    for (int y = 0; bits && truth->mask && y < f->height; y++)
        for (int x = 0; x < f->width; x++)
            if (truth->mask[y * f->width + x])
                bits[(size_t)y * row + (size_t)(x >> 3)] |= (uint8_t)(1 << (x & 7));
    p.bits = bits;
    um_status st = um_packet_create(packet, &p, NULL, 0);
    free(bits);
    return st;
}

int main(int argc, char **argv)
{
    um_source *source = NULL;
    um_sink *sink = NULL;
    um_sink_settings set;
    um_frame *frame[KEPT] = {NULL};
    um_packet *packet[KEPT] = {NULL};
    um_truth truth = {.struct_size = sizeof truth};
    um_sink_settings_default(&set);
    set.log = say;
    if (argc != 4 || um_source_open(&source, "phantom:seed=900001,frames=60,empty=0", NULL))
        return fprintf(stderr, "%s\n", um_last_error()), 1;
    for (int i = 0; i < KEPT; i++)
        if (um_source_read(source, &frame[i]) || um_source_truth(source, &truth) ||
            make(&packet[i], frame[i], &truth))
            return fprintf(stderr, "%s\n", um_last_error()), 1;
    if (um_sink_open(&sink, argv[1], &set))
        return fprintf(stderr, "%s\n", um_last_error()), 1;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    double fps = strtod(argv[2], NULL), frames = fps * strtod(argv[3], NULL);
    for (int i = 0; i < (int)frames; i++) {
        at.tv_nsec += (long)(1e9 / fps);
        at.tv_sec += at.tv_nsec / 1000000000;
        at.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        if (um_sink_write(sink, packet[i % KEPT], frame[i % KEPT], NULL))
            return fprintf(stderr, "%s\n", um_last_error()), 1;
    }
    int any = 0;
    um_sink_counts(sink, print_count, &any);
    printf("}\n");
    for (int i = 0; i < KEPT; i++) {
        const um_packet *p = packet[i];
        um_packet_unref(&p);
        um_frame_unref(&frame[i]);
    }
    um_source_close(&source);
    return um_sink_close(&sink) != UM_OK;
}
