/* SPDX-License-Identifier: Apache-2.0 */
/* Cameras, as far as that goes without one: what their specs mean, what is said where there is
 * none, and, through libavfilter's frames, the way that a camera's take. */
#include "io/source.h"
#include "language.h"
#include "test.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static bool says(const char *spec, um_status want, const char *text)
{
    um_source *s = NULL;
    um_status st = um_source_open(&s, spec, NULL);
    um_source_close(&s);
    bool good = st == want && strstr(um_last_error(), text);
    if (!good)
        printf("  %s: %d, %s\n", spec, st, um_last_error());
    return good;
}

static bool here(void)
{
    um_source *s = NULL;
    if (!um_camera_built)
        return false;
    um_status st = um_source_open(&s, "lavfi:color=size=16x8", NULL);
    um_source_close(&s);
    return st != UM_EUNSUPPORTED; /* built, and libavdevice is where this runs */
}

TEST(a_build_without_cameras_says_so)
{
    if (um_camera_built)
        SKIP("cameras are built");
    CHECK(says("v4l2:/dev/video0", UM_EUNSUPPORTED, "libavdevice-dev"));
    CHECK(says("lavfi:testsrc2", UM_EUNSUPPORTED, "libavdevice-dev"));
}

TEST(specs_that_mean_nothing)
{
    static const struct {
        const char *spec, *text;
    } bad[] = {{"v4l2:", "which device?"},
               {"v4l2:?size=640x480", "which device?"},
               {"lavfi:", "which graph?"},
               {"v4l2:/dev/video0?size=640", "is not WxH"},
               {"v4l2:/dev/video0?size=640x", "is not WxH"},
               {"v4l2:/dev/video0?size=640x480p", "is not WxH"},
               {"v4l2:/dev/video0?size=-1x480", "is not WxH"},
               {"v4l2:/dev/video0?size=123456x480", "is not WxH"},
               {"v4l2:/dev/video0?fps=0", "fps"},
               {"v4l2:/dev/video0?fps=fast", "fps"},
               {"v4l2:/dev/video0?format=", "format"},
               {"v4l2:/dev/video0?zoom=3", "known are size=WxH, fps, format"},
               {"v4l2:/dev/video0?size=640x480&fps", "fps"},
               {"v4l2:/dev/video0,fps=1001", "fps"}};
    um_source_settings loop;
    um_source *s = NULL;
    if (!um_camera_built)
        SKIP("cameras are left out");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(says(bad[i].spec, UM_EINVAL, bad[i].text));
    um_source_settings_default(&loop);
    loop.loop = 1;
    CHECK_EQ(um_source_open(&s, "v4l2:/dev/video0", &loop), UM_EINVAL);
    CHECK(strstr(um_last_error(), "cannot be looped"));
}

TEST(what_is_no_camera_is_named)
{
    if (!um_camera_built)
        SKIP("cameras are left out");
    CHECK(says("v4l2:/dev/no_such_camera", UM_EIO, "there is no device /dev/no_such_camera"));
    CHECK(says("v4l2:/dev/no_such_camera?size=8x8,fps=25", UM_EIO, "there is no device"));
    CHECK(says("v4l2:/", UM_EIO, "is no video device"));
    CHECK(says("v4l2:/proc/self/exe", UM_EIO, "is no video device"));
    if (!here())
        SKIP("no libavdevice");
    CHECK(says("v4l2:/dev/null", UM_EIO, "it is no video device"));
    CHECK(says("lavfi:no_such_filter", UM_EINVAL, "no graph of libavfilter"));
    CHECK(says("lavfi:anullsrc", UM_EUNSUPPORTED, "nothing in it"));
}

/* 25 frames a second of which the n-th is gray 10 n. */
static const char GRAYS[] = "lavfi:nullsrc=size=16x8:rate=25:duration=0.4,format=gray,"
                            "geq=lum=N*10";

TEST(frames_come_with_their_times_and_end)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    if (!here())
        SKIP("no libavdevice");
    CHECK_OK(um_source_open(&s, GRAYS, NULL));
    CHECK(um_source_live(s));
    for (int n = 0; n < 10; n++) {
        CHECK_OK(um_source_read(s, &f));
        CHECK(f->width == 16 && f->height == 8 && f->channels == 1 && f->has_ts);
        CHECK(fabs(f->ts - n * 0.04) < 1e-9);
        CHECK(f->pixels[0] == 10 * n && f->pixels[7 * f->stride + 15] == 10 * n);
        CHECK(f->received_ns != 0);
        CHECK_STR(f->source, GRAYS);
        um_frame_unref(&f);
    }
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    CHECK_EQ(um_source_read(s, &f), UM_EOF);
    um_source_close(&s);
}

TEST(colours_and_16_bits)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    um_source_settings window;
    if (!here())
        SKIP("no libavdevice");
    CHECK_OK(um_source_open(&s, "lavfi:color=red:size=16x8,format=rgb24", NULL));
    CHECK_OK(um_source_read(s, &f));
    CHECK(f->channels == 3 && f->pixels[0] > 250 && f->pixels[1] < 5 && f->pixels[2] < 5);
    um_frame_unref(&f);
    um_source_close(&s);
    um_source_settings_default(&window);
    window.window = UM_WINDOW_RANGE;
    window.window_lo = 0;
    window.window_hi = 1000;
    CHECK_OK(um_source_open(&s, "lavfi:nullsrc=size=16x8,format=gray16le,geq=lum=500", &window));
    CHECK_OK(um_source_read(s, &f));
    CHECK(f->channels == 1 && (f->pixels[0] == 127 || f->pixels[0] == 128));
    um_frame_unref(&f);
    um_source_close(&s);
}

static void *cancel(void *source)
{
    um_source_cancel(source);
    return NULL;
}

TEST(a_comma_locale_opens_the_same_camera)
{
    um_source *s = NULL;
    if (!here())
        SKIP("no libavdevice");
    if (!enter_locale("de_DE"))
        SKIP("no locale with a decimal comma, and localedef cannot make one");
    char text[8];
    snprintf(text, sizeof text, "%.1f", 0.5);
    um_status st = um_source_open(&s, "lavfi:color=size=16x8:rate=12.5", NULL);
    um_source_close(&s);
    setlocale(LC_ALL, "C");
    CHECK_STR(text, "0,5"); /* so it is in force */
    CHECK_EQ(st, UM_OK);
}

TEST(a_cancelled_camera_ends)
{
    um_source *s = NULL;
    um_frame *f = NULL;
    pthread_t thread;
    um_status st = UM_OK;
    if (!here())
        SKIP("no libavdevice");
    CHECK_OK(um_source_open(&s, "lavfi:color=size=16x8", NULL)); /* without an end */
    CHECK_OK(um_source_read(s, &f));
    um_frame_unref(&f);
    CHECK(pthread_create(&thread, NULL, cancel, s) == 0);
    while (st == UM_OK) {
        st = um_source_read(s, &f);
        um_frame_unref(&f);
    }
    CHECK_EQ(st, UM_EOF);
    pthread_join(thread, NULL);
    um_source_close(&s);
}

TEST_MAIN
