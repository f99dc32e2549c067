/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct command {
    const char *name;
    enum command_bit bit;
    int (*run)(const struct options *o);
    int min_args, max_args;
    const char *arguments, *help;
    const char *more; /* or NULL */
};

static const struct command commands[] = {
    {"run", ON_RUN, command_run, 1, 1, "SOURCE [-o SINK]...",
     "the whole pipeline: detect, outline, one packet per frame",
     "SOURCE and SINK: ultramotion --help lists them. Without -o packets are JSON lines on "
     "stdout.\n"
     "  ultramotion run FOLDER -o dir:out                   masks and outlined images in out/\n"
     "  ultramotion run scan.mp4 -o video:out.mp4 -o jsonl:out.jsonl\n"},
    {"serve", ON_SERVE, command_serve, 1, 1, "SOURCE [-o SINK]...",
     "live: newest frames first, never waiting for sinks",
     "Like run, with other defaults: -o igtl::18945 --realtime --on-sink-full drop --track 1\n"
     "--max-age-ms 2000 --stall-deadline 60 --kpi-events all.\n"},
    {"replay", ON_REPLAY, command_replay, 1, 1, "FOLDER [--verify] [-o SINK]...",
     "rerun a recording, with the options it was made with",
     "FOLDER is what -o record:FOLDER wrote. Runs as fast as it can, or at the original times\n"
     "(--realtime). Options given here override the recorded ones.\n"},
    {"igtl", ON_IGTL, command_igtl, 2, 3,
     "sniff|fake-slicer ADDRESS\n       ultramotion igtl send|fake-plus ADDRESS SOURCE",
     "test tools: the other ends of an OpenIGTLink stream",
     "ADDRESS      HOST:PORT or igtl://HOST:PORT connects, :PORT waits for a connection\n"
     "sniff        prints every message as a line of JSON\n"
     "fake-slicer  the same, greeting as 3D Slicer does\n"
     "send         sends the frames of a source as images\n"
     "fake-plus    with timestamps and poses like PlusServer, to one client after another\n"},
    {"detect", ON_DETECT, command_detect, 1, 1, "SOURCE", "boxes only, JSON lines on stdout", NULL},
    {"segment", ON_SEGMENT, command_segment, 1, 1,
     "SOURCE --box X0,Y0,X1,Y1 [--point X,Y,LABEL]... [--multimask] [-o SINK]...",
     "outline what a prompt points at", NULL},
    {"val", ON_VAL, command_val, 1, 1, "DATASET [--json] [-o DIR]",
     "accuracy against ground truth: boxes, masks, lines, states",
     "DATASET  a folder with a COCO .json (or that file), or with NAME_mask.png or "
     "NAME_line.png\n"
     "         beside its images (--masks, --lines: in folders of their own), or phantom:\n"
     "-o DIR   report.json, results.json (COCO format), worst/, contact.png: red what was "
     "found,\n"
     "         green the ground truth\n"
     "Boxes: all of the detector's, as in COCO. Masks, lines and states: what the pipeline "
     "publishes;\n"
     "misses count as Dice 0, distances and lines are over what was found; results without any "
     "mask\n"
     "are not scored by masks. In mask and line images every non-zero pixel counts.\n"
     "A folder is a sweep. With several classes each has its own row, of the frames that are "
     "judged by\n"
     "a structure of it.\n"},
    {"phantom", ON_PHANTOM, command_phantom, 0, 0,
     "-o DIR [--frames N] [--seed N] [--look hard|--sweep]",
     "write synthetic ultrasound frames with ground truth",
     "The source phantom:KEY=VALUE,... generates the same: seed, frames (0: endless), width, "
     "height,\n"
     "empty (share of frames without bone), look=default|hard, "
     "surface=arc|plate|rib|flank|humps (for\n"
     "look=hard), sweep=1 (frames have the probe's pose; a sweep is 105 frames), screen=1 (on a "
     "scanner's\nscreen of 1280x960)\n"
     "-o DIR  frames, masks and truth.json (COCO); of --look hard also structures: pixels are 0 "
     "or\n"
     "        the place, from 1 on, in the image's list of structures in truth.json\n"},
    {"bench", ON_BENCH, command_bench, 0, 1, "[pipeline|stages|residency|kernels|roofline|live]",
     "measure, JSON lines on stdout",
     "pipeline   phantom frames, generated beforehand, by stage (default; 20 frames), p99 over\n"
     "           median, and the peak memory of the process\n"
     "stages     each network by itself, on noise\n"
     "kernels    each kernel call of the networks by its place there, the longest first\n"
     "roofline   parts of the networks compared with matrix products of the same precision in\n"
     "           the same run: the share of their rate, and the time beyond it\n"
     "residency  legacy host mode against device-resident masks, alternating frame by frame "
     "(200\n"
     "           frames); a table on stderr. Legacy: the same kernels, then blocking copies of\n"
     "           the frame-size fp32 logits and the score, threshold and packet on the host.\n"
     "           Copies in the SAM stage: all of a frame except the upload, the gate's read "
     "and\n"
     "           the packet. SAM latency: the frame less upload, detection (with resize and "
     "gate)\n"
     "           and packet; with the speculative gate it overlaps the detection, and only "
     "whole\n"
     "           frames can be compared. Only frames that every mode segmented count.\n"
     "live       a run between an OpenIGTLink sender and a client, in one process: what it "
     "adds\n"
     "           to the pipeline's time (500 frames at each rate)\n"},
    {"inspect", ON_INSPECT, command_inspect, 1, 1, "MODEL",
     "architecture, classes, input size, tensors, sha256 of a weight file", NULL},
    {"convert", ON_CONVERT, command_convert, 2, 2,
     "MODEL OUT [--precision fp32|fp16|bf16|same] [--upstream]\n"
     "       ultramotion convert MODEL OUT --precision int8 --calibrate SOURCE",
     "write a weight file as .safetensors",
     "int8: which layers can compute in int8, and with which ranges, is measured on the images "
     "of\n"
     "--calibrate SOURCE and written into the metadata; layers are left in floating point, the "
     "worst\n"
     "first, until every best box is within 2 px of the floating-point one and nine of ten "
     "within\n"
     "0.5, and masks have a mean Dice of 0.99 with the floating-point ones.\n"},
    {"doctor", ON_DOCTOR, command_doctor, 0, 0, "[OPTIONS]",
     "devices, kernels chosen, memory plan, what is missing and how to get it", NULL},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const char ends[] =
    "SOURCE  a file, a folder, a glob (%s), @LIST.txt (one path per line),\n"
    "        phantom:seed=1,frames=100 (keys: phantom --help), or - (raw frames on stdin)\n"
    "        live: igtl://HOST:18944 (OpenIGTLink), igtl-listen::PORT,\n"
    "        v4l2:/dev/video0?size=WxH&fps=N&format=F (a camera)\n"
    "        recorded: replay:FOLDER, replay-live:FOLDER (at its original times)\n"
    "SINK    dir:PATH, jsonl:PATH, jsonl:-, video:OUT.mp4, null:, igtl::18945,\n"
    "        igtl-connect:HOST:PORT, web::8080 (a viewer for browsers),\n"
    "        record:FOLDER (frames, poses and packets, for replay),\n"
    "        masks:OUT.seg.nrrd (or .seq.nrrd, .mha: all masks in one file)\n";

static void print_usage(FILE *f)
{
    fprintf(f, "usage: ultramotion COMMAND [ARGUMENTS]\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\n");
    fprintf(f, ends, um_image_kinds());
    fprintf(f, "\nultramotion COMMAND --help lists the options of a command. Research software, "
               "not a medical device.\n");
}

/* The manual page, ultramotion(1): what is above and the table of options, as man(7) has it. */
static void print_man(void)
{
    const char *names[COMMANDS];
    int bits[COMMANDS];
    char text[1024];

    printf(".TH ULTRAMOTION 1 \"\" \"ultramotion %s\"\n"
           ".SH NAME\nultramotion \\- find and outline a structure in ultrasound frames\n"
           ".SH SYNOPSIS\n.B ultramotion\n.I COMMAND\n[ARGUMENTS]\n"
           ".br\n.B ultramotion help\n[COMMAND]\n.br\n.B ultramotion \\-\\-version\n"
           ".SH DESCRIPTION\nFinds a structure in every frame of a source (D\\-FINE), outlines it "
           "(a segmenter of SAM's families, prompted with the box) and publishes one packet "
           "per frame. Research software, not a medical device.\n.PP\n.nf\n",
           um_version());
    snprintf(text, sizeof text, ends, um_image_kinds());
    options_put_man(text);
    printf(".fi\n.SH COMMANDS\n");
    for (int i = 0; i < COMMANDS; i++) {
        const struct command *c = &commands[i];
        names[i] = c->name;
        bits[i] = c->bit;
        printf(".TP\n.B ");
        snprintf(text, sizeof text, "ultramotion %s %s", c->name, c->arguments);
        for (char *s = text; *s; s++) /* a heading is one line */
            if (*s == '\n')
                *s = ',';
        options_put_man(text);
        printf("\n");
        options_put_man(c->help);
        if (c->more) {
            printf("\n.nf\n");
            options_put_man(c->more);
            printf(".fi");
        }
        printf("\n");
    }
    printf(".SH OPTIONS\n");
    options_print_man(names, bits, COMMANDS);
    printf(".SH EXIT STATUS\n"
           ".TP\n.B 0\nsuccess\n.TP\n.B 1\na failure while running\n.TP\n.B 2\ninvalid "
           "arguments\n.TP\n.B 3\nan assertion given on the command line did not hold\n"
           ".SH ENVIRONMENT\n"
           ".TP\n.B ULTRAMOTION_SAM_AS_NUMPY\n1: masks are made on the host, unless "
           "\\-\\-sam\\-as\\-numpy is given\n"
           ".TP\n.B ULTRAMOTION_MODELS\nfolder of the bundled models\n"
           ".TP\n.B ULTRAMOTION_CPU\nc, neon, avx2, avxvnni, avx512 or amx: kernels of that "
           "level instead of the best that the CPU has\n"
           ".TP\n.B ULTRAMOTION_CUDA\nplain: a GPU's plain kernels, to compare with\n"
           ".TP\n.B ULTRAMOTION_CUDA_DRIVER\nthe GPU driver's library, if it is not "
           "libcuda.so.1\n"
           ".TP\n.B XDG_CACHE_HOME\nwhere packed weights are cached (in ultramotion/), else "
           "~/.cache\n"
           ".SH EXAMPLES\n.nf\n");
    options_put_man(
        "ultramotion phantom -o frames --frames 8\n"
        "ultramotion run frames/frames -o dir:out -o jsonl:out.jsonl\n"
        "ultramotion run scan.mp4 --detector dfine.pth --segmenter mobile_sam.pt -o video:out.mp4\n"
        "ultramotion serve igtl://plus:18944 -o igtl::18945 -o web::8080\n"
        "ultramotion val frames\n");
    printf(".fi\n");
}

/* The words that may follow a command, as its arguments have them: "[a|b]" or "a|b OTHER". */
static void print_first_words(const struct command *c)
{
    for (const char *line = c->arguments; line; line = strchr(line, '\n')) {
        const char *own = strstr(line, c->name); /* a further line has the command once more */
        const char *s = *line == '\n' && own ? own + strlen(c->name) + 1 : line;
        s += *s == '[';
        size_t n = strcspn(s, " ]"), bar = strcspn(s, "|");
        for (const char *end = s + n; bar < n && s < end; s += strcspn(s, "| ]") + 1)
            printf("%.*s ", (int)strcspn(s, "| ]"), s);
        line += *line == '\n';
    }
}

/* What bash offers behind a tab: commands, what follows them, options, the words that an option
 * takes, also behind a = (three words for bash), else files. */
static void print_completion(void)
{
    printf("_ultramotion()\n"
           "{\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
           "    local words= options= commands=\"");
    for (int i = 0; i < COMMANDS; i++)
        printf("%s ", commands[i].name);
    printf("\"\n"
           "    [[ $before == = ]] && before=${COMP_WORDS[COMP_CWORD - 2]}\n"
           "    [[ $word == = ]] && word=\n"
           "    case $COMP_CWORD:${COMP_WORDS[1]} in\n"
           "        1:*) words=\"$commands help --version\" ;;\n");
    for (int i = 0; i < COMMANDS; i++) {
        printf("        *:%s) case $before in\n", commands[i].name);
        options_print_completion(commands[i].bit);
        printf("        esac ;;\n");
    }
    printf("    esac\n"
           "    case $COMP_CWORD:${COMP_WORDS[1]} in\n"
           "        2:help) words=$commands ;;\n");
    for (int i = 0; i < COMMANDS; i++) {
        printf("        2:%s) words+=\"", commands[i].name);
        print_first_words(&commands[i]);
        printf("\" ;;\n");
    }
    printf("    esac\n"
           "    [[ $word == -* ]] && words+=$options\n"
           "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
           "}\n"
           "complete -o default -F _ultramotion ultramotion\n");
}

/* A file that this program opens must not take the place of a standard stream: what is written
 * there would land in it. A closed one is opened so that using it fails, as it should. */
static void open_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
                _exit(EXIT_FAILED);
}

/* Has the reader of stdout left? That is an ordinary end; any other failure to write is none. */
static bool reader_left(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP));
}

static int close_stdout(int code)
{
    errno = 0;
    bool failed = fflush(stdout) != 0 || ferror(stdout);
    int error = errno;
    bool departed = failed && reader_left();
    errno = 0;
    failed = fclose(stdout) != 0 || failed;
    error = error ? error : errno;
    if (!failed || departed)
        return code;
    fprintf(stderr, "ultramotion: stdout: %s\n", error ? strerror(error) : "cannot be written");
    return code == EXIT_DONE ? EXIT_FAILED : code;
}

static int dispatch(int argc, char **argv)
{
    struct options o;
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    const bool help = strcmp(argv[1], "help") == 0,
               alone = strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "--man") == 0 ||
                       strcmp(argv[1], "--completion") == 0 || strcmp(argv[1], "--help") == 0 ||
                       strcmp(argv[1], "-h") == 0;
    if (argc > (help ? 3 : 2) && (help || alone))
        return cli_usage("%s: \"%s\" is one argument too many, of %d", argv[1], argv[help ? 3 : 2],
                         argc - 2);
    if (strcmp(argv[1], "--version") == 0) {
        printf("ultramotion %s (abi %d)\n", um_version(), um_abi());
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--man") == 0) {
        print_man();
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--completion") == 0) {
        print_completion();
        return EXIT_DONE;
    }
    if (help && argc == 3 && argv[2][0] != '-' && strcmp(argv[2], "help") != 0)
        return dispatch(3, (char *[]){argv[0], argv[2], "--help"});
    if (help || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return EXIT_DONE;
    }
    for (int i = 0; i < COMMANDS; i++) {
        const struct command *c = &commands[i];
        if (strcmp(argv[1], c->name) != 0)
            continue;
        if (!options_parse(&o, c->bit, c->name, argc - 2, argv + 2))
            return EXIT_USAGE;
        if (o.help) {
            printf("usage: ultramotion %s %s\n\n%s\n%s%s", c->name, c->arguments, c->help,
                   c->more ? "\n" : "", c->more ? c->more : "");
            options_print(c->bit);
            return EXIT_DONE;
        }
        if (o.positionals > c->max_args)
            cli_usage("%s: \"%s\" is one argument too many, of %d%s", c->name,
                      o.positional[c->max_args], o.positionals,
                      strstr(c->arguments, "SOURCE") ? "; a pattern goes in quotes" : "");
        if (o.positionals < c->min_args || o.positionals > c->max_args)
            return fprintf(stderr, "ultramotion: usage: ultramotion %s %s\n", c->name,
                           c->arguments),
                   EXIT_USAGE;
        return options_meet(&o, c->bit) ? c->run(&o) : EXIT_USAGE;
    }
    cli_usage("no command \"%s\"", argv[1]);
    print_usage(stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    open_standard_streams();
    signal(SIGPIPE, SIG_IGN); /* a reader that leaves is an ordinary end, seen by the sink */
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a failed write */
    return close_stdout(dispatch(argc, argv));
}
