/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include "cli.h"
#include "config.h"
#include "json.h"
#include "tell.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum kind { FLAG, TEXT, CHOICE, LIST, INTEGER, LONG, UNSIGNED, FLOAT, BOOL01, NUMBERS };

struct row {
    const char *name;
    enum kind kind;
    size_t offset; /* of the value in struct options */
    int commands;
    const char *value, *help; /* CHOICE: value is all that may be given */
    char letter;              /* 0: none */
    double min, max;
    size_t also; /* LIST: of its count; NUMBERS: of its "given" flag */
    int numbers; /* NUMBERS: how many */
    int idle;    /* those of the commands that take it as run does, and have no use for it */
};

#define AT(field) offsetof(struct options, field)
#define RUN (ON_RUN | ON_SERVE)
#define KEPT (ON_REPLAY | IN_RECORDING)
#define MODELS (RUN | ON_DETECT | ON_SEGMENT | ON_BENCH | ON_DOCTOR | ON_VAL)
#define STREAM (RUN | ON_DETECT | ON_SEGMENT)
#define ALL \
    (STREAM | ON_PHANTOM | ON_BENCH | ON_INSPECT | ON_CONVERT | ON_DOCTOR | ON_VAL | ON_IGTL)

static const struct row table[] = {
    {"detector", TEXT, AT(detector), RUN | ON_DETECT | ON_BENCH | ON_DOCTOR | ON_VAL | KEPT, "FILE",
     .help = "D-FINE weights (.pt, .pth, .safetensors); default: the bundled model"},
    {"detector", TEXT, AT(detector), ON_CONVERT, "FILE",
     .help = "with --calibrate, of a segmenter: finds what it outlines in the images; default: the "
             "bundled model"},
    {"segmenter", TEXT, AT(segmenter), RUN | ON_SEGMENT | ON_BENCH | ON_DOCTOR | ON_VAL | KEPT,
     "FILE", .help = "weights of MobileSAM or another SAM family; default: the bundled model"},
    {"boxes-only", FLAG, AT(boxes_only), RUN | KEPT, NULL,
     .help = "run the detector alone: packets without masks"},
    {"device", TEXT, AT(device), MODELS | KEPT, "auto|cpu|cuda:N|guard",
     .help = "where to compute; auto (default) = the first GPU that works, else cpu"},
    {"precision", CHOICE, AT(precision), MODELS | KEPT, "auto|fp32|bf16|fp16|int8",
     .help = "precision of the computation; auto (default) = fp16 on a GPU, bf16 on a CPU with "
             "AMX, else fp32"},
    {"precision", TEXT, AT(precision), ON_CONVERT, "fp32|fp16|bf16|same|int8",
     .help = "precision of the stored weights; same = as in MODEL; int8 = the same, and what "
             "--precision int8 needs of --calibrate; default fp32"},
    {"threads", INTEGER, AT(threads), MODELS | KEPT, "N",
     .help = "compute threads; default: all that this process may use", .min = 1, .max = 1024},
    {"weight-cache", TEXT, AT(weight_cache), MODELS | ON_REPLAY, "auto|off|DIR",
     .help = "where packed weights are cached between starts; auto (default) = "
             "$XDG_CACHE_HOME/ultramotion or ~/.cache/ultramotion"},
    {"conf", FLOAT, AT(conf), RUN | ON_VAL | ON_BENCH | KEPT, "0.5",
     .help = "score from which a frame is VISIBLE", .max = 1},
    {"conf", FLOAT, AT(conf), ON_DETECT, "0.5", .help = "score from which a box is printed",
     .max = 1},
    {"conf", FLOAT, AT(conf), ON_SEGMENT, "0.5",
     .help = "taken as by run: what a prompt points at is outlined whatever its score", .max = 1},
    {"class", TEXT, AT(class_name), RUN | KEPT, "NAME|N",
     .help = "class to follow; default: the best of all"},
    {"class", TEXT, AT(class_name), ON_DETECT, "NAME|N",
     .help = "class to print, of the network's best boxes of all classes (as many as it has "
             "queries); default: all"},
    {"objects", INTEGER, AT(objects), RUN | ON_BENCH | KEPT, "N",
     .help = "structures to outline: the N best boxes of at least --conf; default 1", .min = 1,
     .max = UM_OBJECTS_MAX},
    {"per-class", FLAG, AT(per_class), RUN | ON_BENCH | KEPT, NULL,
     .help = "with --objects: at most one structure of each class"},
    {"track", BOOL01, AT(track), RUN | ON_VAL | KEPT, "0|1",
     .help = "1 = the state follows from how well the mask fits the image and previous frames "
             "(docs/STATE.md), 0 = from --conf alone; default: 0, serve: 1"},
    {"theta-on", FLOAT, AT(theta_on), RUN | KEPT, "0.6",
     .help = "with --track: mean score S above which a mask can become VISIBLE", .max = 1},
    {"theta-off", FLOAT, AT(theta_off), RUN | KEPT, "0.4",
     .help = "with --track: mean score S below which a mask is doubted", .max = 1},
    {"theta-cont", FLOAT, AT(theta_cont), RUN | KEPT, "0.5",
     .help = "with --track: mean score C above which a structure that was lost is taken for the "
             "same one",
     .max = 1},
    {"detect-every", INTEGER, AT(detect_every), RUN | KEPT, "K",
     .help = "while the structure is steady, run the detector only on every K-th frame and prompt "
             "the others from the previous mask; above 1 it implies --track 1; default 1",
     .min = 1, .max = UM_DETECT_EVERY_MAX},
    {"shadow", CHOICE, AT(shadow), RUN | ON_REPLAY, "legacy",
     .help = "also run legacy host mode on some frames, count differences, and continue in legacy "
             "mode alone if masks diverge"},
    {"shadow-every", INTEGER, AT(shadow_every), RUN | ON_REPLAY, "N",
     .help = "with --shadow: on every N-th frame; default 30", .min = 1, .max = 1000000},
    {"budget-ms", FLOAT, AT(budget_ms), RUN, "B",
     .help =
         "milliseconds from a frame's receipt to its packet: late packets are counted, and with "
         "--track (then the default) less work is done while they are late; default 0 = no budget",
     .max = 3.6e6},
    {"gain", TEXT, AT(gain), RUN | ON_DETECT | ON_VAL | KEPT, "auto|off|G[,GAMMA]",
     .help = "brightness of the images the networks see: auto = 0.5 % of the pixels become white, "
             "G = times G, then to the power of GAMMA (also auto,GAMMA; docs/FRAME.md); default: "
             "what the detector's file says, else off"},
    {"gray", BOOL01, AT(gray), RUN | ON_DETECT | ON_VAL | KEPT, "0|1",
     .help = "1 = colours become gray before the networks see them: for networks trained on gray "
             "images, which miss what a scanner tints or draws over; default: what the detector's "
             "file says, else 0"},
    {"nms", FLOAT, AT(nms), RUN | ON_DETECT | ON_VAL | KEPT, "IOU",
     .help = "of two boxes of a class that overlap by more, drop the lower-scoring one; 1 = drop "
             "none, as D-FINE does; default: what the detector's file says, else 1",
     .min = 1e-3, .max = 1},
    {"presence", TEXT, AT(presence), RUN | ON_VAL | KEPT, "K[,P]",
     .help =
         "a frame's score is the probability that one of its K best boxes is right, 1 - (1 - "
         "s1)(1 - s2)..., scaled such that P becomes 0.5; 1 = the best box's own score; default: "
         "what the detector's file says, else 1"},
    {"det-smooth", FLOAT, AT(det_smooth), RUN | ON_DETECT | ON_VAL | KEPT, "R",
     .help = "how far the filter that resizes images for the detector reaches, in pixels of its "
             "input: above 1 it takes away noise and enhanced edges; 1 = as D-FINE does; default: "
             "what the detector's file says, else 1",
     .min = 1, .max = 8},
    {"mask-clean", BOOL01, AT(mask_clean), RUN | ON_VAL | KEPT, "0|1",
     .help = "1 = remove specks and pieces of the mask outside the detector's box, fill small "
             "holes (docs/FRAME.md), 0 = the mask as the network makes it; default 1"},
    {"reuse", BOOL01, AT(reuse), RUN | ON_BENCH | KEPT, "0|1",
     .help = "1 = an image identical to the previous one, pixel by pixel, takes the networks' "
             "results for that one, and its packet says so; default 0"},
    {"gate", CHOICE, AT(gate), RUN | ON_BENCH | KEPT, "speculative|sync",
     .help = "sync = read the score first and skip the segmenter if nothing was found; speculative "
             "= wait for nothing before the packet; default: sync on cpu, else speculative"},
    {"sam-as-numpy", BOOL01, AT(sam_as_numpy), RUN | ON_SEGMENT | ON_BENCH | KEPT, "0|1",
     .help = "1 = legacy host mode: masks are made on the host; default: ULTRAMOTION_SAM_AS_NUMPY, "
             "else 0"},
    {"det-size", TEXT, AT(det_size), MODELS | ON_CONVERT | KEPT, "auto|N|WxH",
     .help = "size of the detector's input; auto (default) = what the file says, else 640",
     .idle = ON_SEGMENT},
    {"queries", INTEGER, AT(queries), MODELS | ON_CONVERT | KEPT, "N",
     .help = "queries of the detector; default: what the file says, else 300", .min = 1,
     .max = MAX_QUERIES, .idle = ON_SEGMENT},
    {"det-act", CHOICE, AT(det_act), MODELS | ON_CONVERT | KEPT, "relu|silu",
     .help = "activation of the detector's decoder; default: what the file says, else relu. DEIM "
             "needs silu, which its files do not say",
     .idle = ON_SEGMENT},
    {"det-fit", CHOICE, AT(det_fit), MODELS | ON_CONVERT | KEPT, "stretch|letterbox",
     .help = "how images fill the detector's input; default: what the file says, else stretch",
     .idle = ON_SEGMENT},
    {"names", TEXT, AT(names), MODELS | ON_CONVERT | KEPT, "FILE",
     .help = "names of the classes, one per line; default: what the file says", .idle = ON_SEGMENT},
    {"upstream", FLAG, AT(upstream), ON_CONVERT, NULL,
     .help = "write a PyTorch file that upstream's own code loads"},
    {"sam-size", INTEGER, AT(sam_size), MODELS | ON_CONVERT | KEPT, "auto|N",
     .help = "side of the segmenter's canvas; MobileSAM's windows tile multiples of 224 (224, 448, "
             "672, 896), LiteMedSAM's of 56 (docs/SPEED.md); auto (default) = what the file says, "
             "else 1024",
     .min = 16, .max = 8192, .idle = ON_DETECT},
    {"sam-family", TEXT, AT(sam_family), MODELS | ON_CONVERT | KEPT,
     "mobile-sam|tiny-sam|lite-medsam|sam-vit|medsam-vit",
     .help = "family of the segmenter, if its file cannot tell; default: what it says",
     .idle = ON_DETECT},
    {"crop", NUMBERS, AT(crop), RUN | ON_DETECT | ON_VAL | KEPT, "auto|X,Y,W,H",
     .help = "part of the image to process; results are in full-image coordinates. auto = of a "
             "scanner's screen the part that is the ultrasound image",
     .max = 16384, .also = AT(has_crop), .numbers = 4},
    {"box", NUMBERS, AT(box), ON_SEGMENT, "X0,Y0,X1,Y1", .help = "box prompt in pixels",
     .min = -1e9, .max = 1e9, .also = AT(has_box), .numbers = 4},
    {"point", LIST, AT(point), ON_SEGMENT, "X,Y,LABEL",
     .help = "point prompt, label 1 object, 0 background; repeatable", .also = AT(points)},
    {"multimask", FLAG, AT(multimask), ON_SEGMENT, NULL,
     .help = "three masks; the one with the best predicted IoU is written"},
    {"sink", LIST, AT(sink), RUN | ON_SEGMENT | ON_REPLAY, "SINK",
     .help = "where packets go: dir:PATH, jsonl:PATH, video:OUT.mp4, web::8080, ... (ultramotion "
             "--help lists all); repeatable; default jsonl:- (serve: igtl::18945)",
     .letter = 'o', .also = AT(sinks)},
    {"sink", LIST, AT(sink), ON_PHANTOM | ON_VAL, "DIR", .help = "folder to write", .letter = 'o',
     .also = AT(sinks)},
    {"frames", LONG, AT(frames), STREAM | ON_VAL | ON_REPLAY, "N", .help = "stop after N frames",
     .min = 1, .max = 1e15},
    {"frames", LONG, AT(frames), ON_PHANTOM, "N",
     .help = "number of frames; default 100, with --sweep 105", .min = 1, .max = 1e15},
    {"frames", LONG, AT(frames), ON_BENCH, "N", .help = "number of frames; defaults above",
     .min = 1, .max = 1e15},
    {"frames", LONG, AT(frames), ON_CONVERT, "N",
     .help = "with --calibrate: number of images; default 32", .min = 1, .max = 1e15},
    {"frames", LONG, AT(frames), ON_IGTL, "N",
     .help = "stop after N frames; sniff, fake-slicer: after N messages", .min = 1, .max = 1e15},
    {"fps", FLOAT, AT(fps), ON_IGTL, "N",
     .help = "send, fake-plus: frames a second; default: as fast as they are accepted",
     .max = 10000},
    {"fps", FLOAT, AT(fps), ON_BENCH, "N", .help = "live: frames a second; default 25, then 60",
     .min = 0.1, .max = 10000},
    {"igtl-crc", CHOICE, AT(igtl_crc), RUN, "check|count|ignore",
     .help = "messages of an OpenIGTLink source with a wrong CRC: dropped (default), accepted and "
             "counted, or not checked"},
    {"igtl-coord", CHOICE, AT(igtl_coord), RUN, "assume-ras|honour",
     .help = "images claim RAS or LPS: treat all as RAS, as Slicer and Plus do (default), or "
             "honour it"},
    {"igtl-max-fps", TEXT, AT(igtl_max_fps), RUN, "N",
     .help = "OpenIGTLink sinks send at most N frames a second"},
    {"igtl-version", CHOICE, AT(igtl_version), RUN, "1|2",
     .help =
         "version of the headers to send; default: a sink's is that of each peer, a source's 2"},
    {"loop", FLAG, AT(loop), STREAM | ON_IGTL, NULL,
     .help = "start again at the end of the source"},
    {"recursive", FLAG, AT(recursive), STREAM | ON_CONVERT, NULL,
     .help = "a folder: also its subfolders"},
    {"window", TEXT, AT(window), STREAM | ON_VAL | ON_CONVERT, "LO,HI|auto",
     .help = "16-bit images: sample LO becomes black and HI white; auto = each image's minimum and "
             "maximum"},
    {"realtime", FLAG, AT(realtime), RUN, NULL,
     .help = "a waiting frame is replaced by the newest, and counted; serve: always"},
    {"realtime", FLAG, AT(realtime), ON_REPLAY, NULL,
     .help =
         "at the frames' original times; a waiting frame is replaced by the newest, and counted"},
    {"max-age-ms", INTEGER, AT(max_age_ms), RUN, "N",
     .help = "with --realtime: a frame received longer ago is skipped and counted; 0 = no limit; "
             "default: run: 0, serve: 2000",
     .max = 1e6},
    {"lag-alarm-ms", INTEGER, AT(lag_alarm_ms), RUN, "N",
     .help = "alarm when a live sender's images arrive this much later than its quickest ones for "
             "a second; default 500, 0 = never",
     .max = 1e6},
    {"verify", FLAG, AT(verify), ON_REPLAY, NULL,
     .help = "compare each packet with the recorded one, bit for bit except times; exit 3 at the "
             "first that differs"},
    {"strict", FLAG, AT(strict), STREAM | ON_REPLAY, NULL,
     .help = "stop at the first unreadable frame"},
    {"size", TEXT, AT(size), STREAM, "WxH", .help = "size of raw frames on stdin"},
    {"size", TEXT, AT(size), ON_PHANTOM, "WxH", .help = "size of the frames; default 422x558"},
    {"pixel", CHOICE, AT(pixel), STREAM, "gray8|rgb8",
     .help = "pixels of raw frames on stdin; default gray8"},
    {"kpi", TEXT, AT(kpi), RUN | ON_SEGMENT | ON_REPLAY, "FILE|-",
     .help =
         "one JSON line per published prediction; an existing file is kept as FILE.1, FILE.2, ..."},
    {"kpi-events", CHOICE, AT(kpi_events), RUN, "predictions|all",
     .help = "KPI lines: published predictions only, or all events; default: serve: all, run: "
             "predictions"},
    {"kpi-max-mb", FLOAT, AT(kpi_max_mb), RUN, "N",
     .help = "start a new KPI file after N MB; default 64, 0 = never", .max = 1e6},
    {"kpi-keep", INTEGER, AT(kpi_keep), RUN, "N",
     .help = "older KPI files to keep when a new one is started; default 0 = all", .max = 1000000},
    {"trace", TEXT, AT(trace), RUN | ON_REPLAY, "FILE",
     .help = "each frame's stages by thread, for ui.perfetto.dev or chrome://tracing"},
    {"trace-steps", FLAG, AT(trace_steps), RUN | ON_REPLAY, NULL,
     .help = "with --trace, on cpu: also what each thread computes and when, by its place in the "
             "network"},
    {"summary-every", FLOAT, AT(summary_every), RUN | ON_REPLAY | ON_VAL, "SECONDS",
     .help = "print a line on stderr about the run so far; default 0 = never", .max = 86400},
    {"on-sink-full", CHOICE, AT(on_sink_full), RUN | ON_REPLAY, "block|drop",
     .help = "when a sink falls behind: wait for it, or drop its oldest packet and count it; "
             "default: block, serve: drop"},
    {"sink-deadline", FLOAT, AT(sink_deadline), RUN | ON_REPLAY, "SECONDS",
     .help = "abandon a sink that takes longer for a packet; default 10, 0 = never", .max = 86400},
    {"stall-deadline", FLOAT, AT(stall_deadline), RUN, "SECONDS",
     .help = "exit with 1 and the reason when the pipeline does not return from a frame in time; "
             "default: run: 0 = never, serve: 60",
     .max = 86400},
    {"assert-transfers", NUMBERS, AT(assert_transfers), RUN, "UP,DOWN",
     .help = "exit 3 at the first frame with more copies to or from the device", .max = 1000,
     .also = AT(has_assert), .numbers = 2},
    {"inflight", INTEGER, AT(inflight), RUN | ON_BENCH | ON_DOCTOR | KEPT, "N",
     .help =
         "frames in flight, for throughput: on cpu in parallel, each on its share of --threads "
         "(not with --gain auto or --dump), elsewhere in one queue (at most 3, speculative gate, "
         "masks on the device); nowhere with --track; default 1, for the lowest latency",
     .min = 1, .max = UM_INFLIGHT_MAX},
    {"on-device-lost", CHOICE, AT(on_device_lost), RUN | ON_REPLAY, "fail|cpu",
     .help =
         "when a device fails: end the run (default), or continue on cpu from the frame in flight"},
    {"dump", TEXT, AT(dump), STREAM, "FILE.safetensors",
     .help = "intermediate tensors of the networks for the last frame (of one object)"},
    {"seed", UNSIGNED, AT(seed), ON_PHANTOM, "N", .help = "seed of the phantom; default 1",
     .max = 1.8e19},
    {"look", TEXT, AT(look), ON_PHANTOM, "default|hard",
     .help =
         "hard: darker, with weaker bones of more shapes, other structures, poor contact, margins"},
    {"sweep", FLAG, AT(sweep), ON_PHANTOM, NULL,
     .help = "scripted sweeps of 105 frames, a folder each, with the event and the probe's pose of "
             "each frame"},
    {"guard-seed", UNSIGNED, AT(guard_seed), MODELS | KEPT, "N",
     .help = "seed of the order in which the guard device runs what may run in any order",
     .max = 1.8e19},
    {"calibrate", TEXT, AT(calibrate), ON_CONVERT, "SOURCE",
     .help = "with --precision int8: the images to calibrate on"},
    {"rounds", INTEGER, AT(rounds), ON_BENCH, "N",
     .help = "measurements per stage or kernel; default 10", .min = 1, .max = 1000000},
    {"serve", FLAG, AT(serve), ON_BENCH, NULL,
     .help = "for interleaved comparisons: bench stages runs the stage, bench pipeline the image "
             "that each line of stdin names"},
    {"results", TEXT, AT(results), ON_VAL, "FILE.json",
     .help = "score these results (COCO format; -o writes them) instead of running the networks"},
    {"masks", TEXT, AT(masks), ON_VAL, "DIR",
     .help = "ground-truth masks, NAME.png or NAME_mask.png; default: NAME_mask.png beside NAME.*"},
    {"lines", TEXT, AT(lines), ON_VAL, "DIR",
     .help = "ground-truth lines, NAME.png or NAME_line.png; default: NAME_line.png beside NAME.*"},
    {"pictures", TEXT, AT(pictures), ON_VAL, "DIR",
     .help = "where the images of a COCO .json are; default: beside it"},
    {"within", NUMBERS, AT(within), ON_VAL, "COVER,EXACT",
     .help = "distances in pixels within which a line counts as covered by the mask, and the mask "
             "as on the line; default 4,8",
     .max = 1e6, .also = AT(has_within), .numbers = 2},
    {"spacing", NUMBERS, AT(spacing), ON_VAL, "X,Y",
     .help = "size of a pixel in mm; default: what the image says", .min = 1e-6, .max = 1e6,
     .also = AT(has_spacing), .numbers = 2},
    {"table", FLAG, AT(table), ON_BENCH, NULL,
     .help = "bench kernels, roofline: a table instead of JSON lines"},
    {"json", FLAG, AT(json), ON_VAL | ON_INSPECT, NULL, .help = "one JSON object on stdout"},
    {"config", TEXT, AT(config), ALL, "FILE.yaml",
     .help = "options from a file, same keys; the command line overrides it"},
    {"quiet", FLAG, AT(quiet), (ALL & ~ON_INSPECT) | ON_REPLAY, NULL, .help = "errors only",
     .letter = 'q'},
    {"quiet", FLAG, AT(quiet), ON_INSPECT, NULL, .help = "no list of tensors", .letter = 'q'},
    {"verbose", FLAG, AT(verbose), ALL | ON_REPLAY, NULL, .help = "say more", .letter = 'v'},
    {"help", FLAG, AT(help), ALL | ON_REPLAY, NULL, .help = "this text", .letter = 'h'},
};
enum { ROWS = sizeof table / sizeof *table };

/* Which options were given, and where. */
static enum { NOT_GIVEN, IN_FILE, HERE } given[ROWS];

static struct options defaults(void)
{
    return (struct options){.sam_as_numpy = -1,
                            .track = -1,
                            .mask_clean = 1,
                            .gray = -1,
                            .theta_on = 0.6f,
                            .theta_off = 0.4f,
                            .theta_cont = 0.5f,
                            .detect_every = 1,
                            .shadow_every = 30,
                            .conf = 0.5f,
                            .within = {4, 8},
                            .seed = 1,
                            .guard_seed = 1,
                            .rounds = 10,
                            .max_age_ms = -1,
                            .lag_alarm_ms = 500,
                            .inflight = 1,
                            .objects = 1,
                            .sink_deadline = 10,
                            .stall_deadline = -1,
                            .kpi_max_mb = 64};
}

static const struct row *find_row(const char *name, size_t length, enum command_bit command)
{
    for (int i = 0; i < ROWS; i++)
        if (strlen(table[i].name) == length && strncmp(table[i].name, name, length) == 0 &&
            (table[i].commands & command))
            return &table[i];
    return NULL;
}

/* Is it of the scheme? */
static bool scheme_is(const char *spec, const char *scheme)
{
    size_t n = strlen(scheme);
    return strncmp(spec, scheme, n) == 0 && spec[n] == ':';
}

bool options_any_scheme(const char *spec, const char *const *schemes)
{
    while (*schemes && !scheme_is(spec, *schemes))
        schemes++;
    return *schemes != NULL;
}

static bool any_sink(const struct options *o, const char *const *schemes)
{
    int i = 0;
    while (i < o->sinks && !options_any_scheme(o->sink[i], schemes))
        i++;
    return i < o->sinks;
}

/* The first of the names (spaces between them) that was given, here or, if `in_file` says so, in
 * the file of --config, which may serve several sources; NULL: none. */
static const char *first_given(const char *names, bool in_file, enum command_bit command)
{
    for (size_t n = 0; *names; names += n + (names[n] == ' ')) {
        n = strcspn(names, " ");
        const struct row *r = find_row(names, n, command);
        if (r && given[r - table] >= (in_file ? IN_FILE : HERE))
            return r->name;
    }
    return NULL;
}

bool options_meet(const struct options *o, enum command_bit command)
{
    static const char *const igtl[] = {"igtl", "igtl-listen", NULL};
    static const char *const to_igtl[] = {"igtl", "igtl-connect", NULL};
    const char *what = command == ON_CONVERT && o->calibrate ? o->calibrate
                       : o->positionals                      ? o->positional[0]
                                                             : "";
    const int uses = um_source_uses(what);
    const bool serve = command == ON_SERVE, bench = command == ON_BENCH,
               igtl_source = options_any_scheme(what, igtl),
               igtl_sink = any_sink(o, to_igtl) || (serve && !o->sinks),
               sends = strcmp(what, "send") == 0 || strcmp(what, "fake-plus") == 0,
               tabled = strcmp(what, "kernels") == 0 || strcmp(what, "roofline") == 0,
               networks = bench && (tabled || strcmp(what, "stages") == 0),
               residency = bench && strcmp(what, "residency") == 0,
               all_events = o->kpi_events ? strcmp(o->kpi_events, "all") == 0 : serve,
               tracks =
                   o->track > 0 ||
                   (o->track < 0 && (o->detect_every > 1 || (o->objects == 1 && !o->boxes_only &&
                                                             (serve || o->budget_ms > 0))));
    const struct {
        const char *names, *lacks;
        bool acts;
    } rule[] = {
        {"max-age-ms", "without --realtime", serve || o->realtime},
        {"shadow-every", "without --shadow", o->shadow},
        {"kpi-events", "without --kpi", o->kpi},
        {"kpi-max-mb kpi-keep", "without --kpi FILE", o->kpi && strcmp(o->kpi, "-") != 0},
        {"theta-on theta-off theta-cont", "without --track 1", tracks},
        {"per-class", "without --objects 2 or more", o->objects > 1},
        {"presence", "with --objects 2 or more", o->objects <= 1},
        {"segmenter sam-size sam-family sam-as-numpy mask-clean gate shadow",
         "with --boxes-only, which makes no masks", !o->boxes_only},
        {"kpi", "with --boxes-only, which makes no masks", !o->boxes_only || all_events},
        {"trace-steps", "without --trace FILE", o->trace},
        {"guard-seed", "without --device guard", o->device && strcmp(o->device, "guard") == 0},
        {"frames recursive window detector", "without --calibrate",
         command != ON_CONVERT || o->calibrate},
        {"detector segmenter device precision threads weight-cache track gain gray nms presence "
         "mask-clean det-smooth det-size queries det-act det-fit names sam-size sam-family",
         "with --results, which runs no network", !o->results},
        {"size pixel", "for a source other than -", command == ON_PHANTOM || uses & UM_SOURCE_SIZE},
        {"recursive", "for a source other than files", uses & UM_SOURCE_RECURSIVE},
        {"window", "for a source other than files and cameras", uses & UM_SOURCE_WINDOW},
        {"lag-alarm-ms", "for a source that is not live", uses & UM_SOURCE_LIVE},
        {"igtl-crc igtl-coord", "for a source other than igtl", igtl_source},
        {"igtl-version", "without a source or sink igtl", igtl_source || igtl_sink},
        {"igtl-max-fps", "without a sink igtl", igtl_sink},
        {"fps loop", "for igtl sniff and fake-slicer", command != ON_IGTL || sends},
        {"fps", "for a bench other than live", !bench || strcmp(what, "live") == 0},
        {"table", "for a bench other than kernels and roofline", tabled},
        {"serve", "for a bench other than pipeline and stages",
         !tabled && !residency && strcmp(what, "live") != 0},
        {"frames rounds", "with --serve, which takes what stdin names", !bench || !o->serve},
        {"rounds", "for a bench other than stages, kernels and roofline", !bench || networks},
        {"frames conf gate", "for a bench of the networks by themselves", !networks},
        {"objects per-class reuse inflight sam-as-numpy",
         "for a bench other than pipeline and live", !networks && !residency},
    };
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++) {
        bool in_file = strncmp(rule[i].lacks, "without --", 10) == 0;
        const char *name = rule[i].acts ? NULL : first_given(rule[i].names, in_file, command);
        if (name)
            return cli_usage("--%s: nothing %s", name, rule[i].lacks), false;
    }
    return true;
}

/* An option as one writes it. */
static const char *spelled(const struct row *r, char *text, size_t size)
{
    char letter[8] = "";
    if (r->letter)
        snprintf(letter, sizeof letter, "-%c, ", r->letter);
    snprintf(text, size, "%s--%s%s%s", letter, r->name, r->value ? " " : "",
             r->value ? r->value : "");
    return text;
}

/* The words of a text from a column on, which the later lines begin at, too. */
static void put_words(const char *text, int column)
{
    int at = column;
    for (size_t n = 0; *text; text += n + (text[n] == ' ')) {
        n = strcspn(text, " ");
        if (at > column && at + 1 + (int)n > 100) {
            printf("\n%*s", column, "");
            at = column;
        }
        at += printf("%s%.*s", at > column ? " " : "", (int)n, text);
    }
    printf("\n");
}

void options_print(enum command_bit command)
{
    enum { COLUMN = 36 };
    char left[96];
    printf("\noptions:\n");
    for (int i = 0; i < ROWS; i++)
        if (table[i].commands & command) {
            int at = printf("  %s", spelled(&table[i], left, sizeof left));
            printf("%s%*s", at < COLUMN ? "" : "\n", at < COLUMN ? COLUMN - at : COLUMN, "");
            put_words(table[i].idle & command ? "taken as by run, and not used here"
                                              : table[i].help,
                      COLUMN);
        }
}

void options_keep(const struct options *o, FILE *f)
{
    const struct options plain = defaults();
    for (int i = 0; i < ROWS; i++) {
        const struct row *r = &table[i];
        const void *v = (const char *)o + r->offset, *d = (const char *)&plain + r->offset;
        static const size_t sizes[] = {
            [FLAG] = sizeof(bool),   [TEXT] = sizeof(char *), [CHOICE] = sizeof(char *),
            [INTEGER] = sizeof(int), [BOOL01] = sizeof(int),  [UNSIGNED] = sizeof(uint64_t),
            [FLOAT] = sizeof(float)};
        bool other = r->kind == NUMBERS ? *(const bool *)(const void *)((const char *)o + r->also)
                                        : memcmp(v, d, sizes[r->kind]) != 0;
        if (!(r->commands & IN_RECORDING) || !other)
            continue;
        fprintf(f, "%s: ", r->name);
        switch (r->kind) {
        case FLAG: fprintf(f, "true"); break;
        case TEXT:
        case CHOICE: json_string(f, *(const char *const *)v); break;
        case UNSIGNED: fprintf(f, "%llu", (unsigned long long)*(const uint64_t *)v); break;
        case FLOAT: fprintf(f, "%.9g", (double)*(const float *)v); break;
        case NUMBERS:
            if (isnan(*(const double *)v)) {
                fprintf(f, "auto");
                break;
            }
            for (int k = 0; k < r->numbers; k++)
                fprintf(f, "%s%.17g", k ? ", " : "[", ((const double *)v)[k]);
            fprintf(f, "]");
            break;
        default: fprintf(f, "%d", *(const int *)v); break;
        }
        fprintf(f, "\n");
    }
}

void options_put_man(const char *text)
{
    for (const char *s = text; *s; s++) {
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else if ((*s == '.' || *s == '\'') && (s == text || s[-1] == '\n'))
            printf("\\&%c", *s);
        else
            putchar(*s);
    }
}

void options_print_man(const char *const *names, const int *bits, int commands)
{
    char left[96];
    for (int i = 0; i < ROWS; i++) {
        const char *comma = "";
        printf(".TP\n.B ");
        options_put_man(spelled(&table[i], left, sizeof left));
        printf("\n");
        options_put_man(table[i].help);
        printf("\n.br\n(");
        for (int c = 0; c < commands; c++)
            if (table[i].commands & ~table[i].idle & bits[c])
                printf("%s%s", comma, names[c]), comma = ", ";
        printf(")\n");
    }
}

void options_print_completion(enum command_bit command)
{
    for (int i = 0; i < ROWS; i++) {
        const struct row *r = &table[i];
        bool word = r->value && (strchr(r->value, '|') || islower((unsigned char)*r->value));
        if (!(r->commands & command) || !word)
            continue;
        printf("            --%s) words=\"", r->name);
        for (const char *s = r->value; *s; s += strcspn(s, "|"), s += *s == '|') {
            int n = (int)strcspn(s, "|");
            if (strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") >= (size_t)n) /* not N or DIR */
                printf("%.*s ", n, s);
        }
        printf("\" ;;\n");
    }
    printf("            *) options=\"");
    for (int i = 0; i < ROWS; i++)
        if (table[i].commands & command)
            printf("--%s ", table[i].name);
    printf("\" ;;\n");
}

/* strtoll() would also take a sign, spaces and, wrapped, anything. */
bool options_whole(const char *text, double min, double max, long long *out)
{
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return *text && strspn(text, "0123456789") == strlen(text) && !errno && (double)*out >= min &&
           (double)*out <= max;
}

bool options_numbers(const char *text, int count, double *out)
{
    for (int i = 0; i < count; i++) {
        size_t n = strcspn(text, ",");
        char number[64], *end = NULL;
        if (n == 0 || n >= sizeof number || (text[n] == ',') != (i + 1 < count))
            return false;
        memcpy(number, text, n);
        number[n] = 0;
        out[i] = strtod(number, &end);
        if (strspn(number, "0123456789.eE+-") != n || *end || !(out[i] - out[i] == 0))
            return false;
        text += n + 1;
    }
    return true;
}

bool options_size(const char *option, const char *text, int *width, int *height)
{
    char number[2][16];
    long long n[2];
    const char *x = strchr(text, 'x');
    if (!x || (size_t)(x - text) >= sizeof *number || strlen(x + 1) >= sizeof *number)
        return cli_usage("%s: \"%s\" is not WxH", option, text), false;
    snprintf(number[0], sizeof *number, "%.*s", (int)(x - text), text);
    snprintf(number[1], sizeof *number, "%s", x + 1);
    for (int i = 0; i < 2; i++)
        if (!options_whole(number[i], 1, INT_MAX, &n[i]))
            return cli_usage("%s: \"%s\" is not WxH", option, text), false;
    *width = (int)n[0];
    *height = (int)n[1];
    return true;
}

/* Is it one of "a|b|c"? */
static bool is_one_of(const char *text, const char *choices)
{
    size_t n = strcspn(choices, "|");
    return (strlen(text) == n && strncmp(text, choices, n) == 0) ||
           (choices[n] && is_one_of(text, choices + n + 1));
}

/* Where the text came from, for messages: "--name" or "FILE.yaml: name". */
static bool set_value(struct options *o, const struct row *r, const char *where, const char *text)
{
    char *base = (char *)o;
    long long n = 0;
    bool may_be_auto = r->value && strncmp(r->value, "auto|", 5) == 0;
    switch (r->kind) {
    case FLAG:
        if (text && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return cli_usage("%s takes no value, or true or false, not \"%s\"", where, text), false;
        *(bool *)(void *)(base + r->offset) = !text || strcmp(text, "true") == 0;
        return true;
    case TEXT:
    case CHOICE:
        if (!*text)
            return cli_usage("%s: is empty, want %s", where, r->value), false;
        if (r->kind == CHOICE && !is_one_of(text, r->value))
            return cli_usage("%s: \"%s\" is not one of %s", where, text, r->value), false;
        *(const char **)(void *)(base + r->offset) = text;
        return true;
    case LIST: {
        int *count = (int *)(void *)(base + r->also);
        if (*count == MAX_LIST)
            return cli_usage("%s: at most %d", where, MAX_LIST), false;
        ((const char **)(void *)(base + r->offset))[(*count)++] = text;
        return true;
    }
    case INTEGER:
    case LONG:
    case BOOL01:
        if (!(may_be_auto && strcmp(text, "auto") == 0) &&
            !options_whole(text, r->kind == BOOL01 ? 0 : r->min, r->kind == BOOL01 ? 1 : r->max,
                           &n))
            return cli_usage("%s: \"%s\" is not %sa whole number from %.0f to %.0f", where, text,
                             may_be_auto ? "auto or " : "", r->min,
                             r->kind == BOOL01 ? 1.0 : r->max),
                   false;
        if (r->kind == LONG)
            *(long *)(void *)(base + r->offset) = (long)n;
        else
            *(int *)(void *)(base + r->offset) = (int)n;
        return true;
    case UNSIGNED:
        errno = 0;
        *(uint64_t *)(void *)(base + r->offset) = strtoull(text, NULL, 10);
        if (!*text || errno || strspn(text, "0123456789") != strlen(text))
            return cli_usage("%s: \"%s\" is not a whole number from 0 to %llu", where, text,
                             (unsigned long long)UINT64_MAX),
                   false;
        return true;
    case FLOAT: {
        double v = 0;
        if (!options_numbers(text, 1, &v) || v < r->min || v > r->max)
            return cli_usage("%s: \"%s\" is not a number from %g to %g", where, text, r->min,
                             r->max),
                   false;
        *(float *)(void *)(base + r->offset) = (float)v;
        return true;
    }
    case NUMBERS: {
        double v[4] = {NAN, NAN, NAN, NAN}; /* auto */
        bool told = !may_be_auto || strcmp(text, "auto") != 0;
        bool good = !told || options_numbers(text, r->numbers, v);
        if (!good)
            return cli_usage("%s: \"%s\" is not %s", where, text, r->value), false;
        for (int i = 0; told && good && i < r->numbers; i++)
            good = v[i] >= r->min && v[i] <= r->max;
        if (!good)
            return cli_usage("%s: \"%s\": want %s from %g to %g", where, text, r->value, r->min,
                             r->max),
                   false;
        memcpy(base + r->offset, v, (size_t)r->numbers * sizeof *v);
        *(bool *)(void *)(base + r->also) = true;
        return true;
    }
    }
    return false;
}

/* Values of a list are set one by one if the option may be repeated, else joined: crop: [X, Y, W,
 * H]. */
static bool set_pair(struct options *o, const struct row *r, const char *where,
                     const struct config_pair *p)
{
    char joined[256] = "";
    if (!p->list)
        return set_value(o, r, where, p->value[0]);
    if (r->kind != LIST && r->kind != NUMBERS)
        return cli_usage("%s: want a plain value", where), false;
    bool good = true;
    for (int i = 0; i < p->values && good; i++) {
        size_t used = strlen(joined);
        if (r->kind == LIST)
            good = set_value(o, r, where, p->value[i]);
        else
            snprintf(joined + used, sizeof joined - used, "%s%s", i ? "," : "", p->value[i]);
    }
    return good && (r->kind == LIST || set_value(o, r, where, joined));
}

/* The options point into the file's text, which lives until the program ends. */
static bool read_config(struct options *o, enum command_bit command, const char *path)
{
    static struct config config;
    char problem[CONFIG_PROBLEM], where[512];
    bool ok = config_read(&config, path, problem);
    if (!ok)
        cli_usage("--config %s", problem);
    for (int i = 0; ok && i < config.pairs; i++) {
        const struct config_pair *p = &config.pair[i];
        const char *name = p->key;
        const struct row *r = find_row(name, strlen(name), command);
        snprintf(where, sizeof where, "%s:%zu: %s", path, p->line, name);
        if (strcmp(name, "config") == 0)
            return cli_usage("%s: a file cannot name another one", where), false;
        if (!r) {
            bool elsewhere = find_row(name, strlen(name), ALL) != NULL;
            for (int bit = 1; bit <= ON_REPLAY && !elsewhere; bit *= 2)
                elsewhere = find_row(name, strlen(name), (enum command_bit)bit) != NULL;
            /* a key of another command is not for us: one file may serve several commands. A
             * recording, which anybody may have made, says how it is computed, not what is written
             */
            if (!elsewhere || command == IN_RECORDING)
                ok = (cli_usage("%s: no such option%s", where, elsewhere ? " of a recording" : ""),
                      false);
            continue;
        }
        ok = set_pair(o, r, where, p);
        given[r - table] = IN_FILE;
    }
    return ok;
}

/* Walk the arguments; `apply` false only looks for --config. */
static bool walk(struct options *o, enum command_bit command, const char *name, int argc,
                 char **argv, bool apply)
{
    bool only_positional = false;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i], *value = NULL;
        const struct row *r = NULL;
        if (only_positional || a[0] != '-' || !a[1]) {
            if (apply && o->positionals++ < MAX_POSITIONAL)
                o->positional[o->positionals - 1] = a;
            continue;
        }
        if (strcmp(a, "--") == 0) {
            only_positional = true;
            continue;
        }
        if (a[1] == '-') {
            const char *eq = strchr(a, '=');
            r = find_row(a + 2, eq ? (size_t)(eq - a - 2) : strlen(a + 2), command);
            value = eq ? eq + 1 : NULL;
        } else
            for (int k = 0; k < ROWS && !a[2]; k++)
                if (table[k].letter == a[1] && (table[k].commands & command))
                    r = &table[k];
        if (!r)
            return cli_usage("%s: no option %s (see ultramotion %s --help)", name, a, name), false;
        if (r->kind != FLAG && !value) {
            if (++i == argc)
                return cli_usage("%s: %s wants a value: %s", name, a, r->value), false;
            value = argv[i];
        }
        if (apply && given[r - table] == HERE && r->offset == AT(box)) /* looks like one more */
            return cli_usage("%s: --%s is there twice: want one box, or a run for each", name,
                             r->name),
                   false;
        if (apply)
            given[r - table] = HERE;
        if (apply ? !set_value(o, r, a, value)
                  : (strcmp(r->name, "config") == 0 && !set_value(o, r, a, value)))
            return false;
    }
    return true;
}

/* What a recording was made with, where the command line says nothing else. */
static bool read_recorded(struct options *o, int argc, char **argv)
{
    struct options line = *o; /* the command line, before what was recorded */
    char path[4200], text[4300];
    struct stat folder;
    if (!walk(&line, ON_REPLAY, "replay", argc, argv, true))
        return false;
    snprintf(path, sizeof path, "%s/settings.yaml", line.positionals ? line.positional[0] : "");
    if (line.help || !line.positionals)
        return true;
    if (access(path, F_OK) != 0) { /* a program made it */
        snprintf(text, sizeof text,
                 "%s: not there: its options are the library's defaults, which clean no masks",
                 path);
        o->mask_clean = 0;
        if (!line.quiet && stat(line.positional[0], &folder) == 0 && S_ISDIR(folder.st_mode))
            tell(text);
        return true;
    }
    if (!read_config(o, IN_RECORDING, path))
        return false;
    o->recorded_device = o->device;
    return true;
}

bool options_parse(struct options *o, enum command_bit command, const char *name, int argc,
                   char **argv)
{
    *o = defaults();
    if (command == ON_REPLAY && !read_recorded(o, argc, argv))
        return false;
    memset(given, 0, sizeof given); /* what was recorded, nobody gave */
    if (!walk(o, command, name, argc, argv, false) ||
        (o->config && !read_config(o, command, o->config)))
        return false;
    struct options from_file = *o;
    o->sinks = o->points = 0;
    if (!walk(o, command, name, argc, argv, true))
        return false;
    if (!o->sinks) { /* a list on the command line replaces the file's */
        memcpy(o->sink, from_file.sink, sizeof o->sink);
        o->sinks = from_file.sinks;
    }
    if (!o->points) {
        memcpy(o->point, from_file.point, sizeof o->point);
        o->points = from_file.points;
    }
    return true;
}
