/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    enum command_bit bit;
    int (*run)(const struct options *o);
    int min_args, max_args;
    const char *arguments, *help;
};

static const struct command commands[] = {
    {"run", ON_RUN, command_run, 1, 1, "SOURCE [-o SINK]...",
     "the whole pipeline: detect, outline, one packet a frame"},
    {"detect", ON_DETECT, command_detect, 1, 1, "SOURCE", "boxes only, JSON lines on stdout"},
    {"segment", ON_SEGMENT, command_segment, 1, 1,
     "SOURCE --box X0,Y0,X1,Y1 [--point X,Y,LABEL]... [-o SINK]...", "outline what a prompt names"},
    {"val", ON_VAL, command_val, 1, 1, "DATASET [--json]",
     "accuracy against truth (not in this build)"},
    {"phantom", ON_PHANTOM, command_phantom, 0, 0, "-o DIR [--frames N] [--seed N]",
     "write synthetic ultrasound frames with truth"},
    {"bench", ON_BENCH, command_bench, 0, 1, "[pipeline|stages|residency|kernels]",
     "measure, JSON lines on stdout"},
    {"inspect", ON_INSPECT, command_inspect, 1, 1, "MODEL",
     "architecture, classes, input size, tensors, sha256 of a weight file"},
    {"convert", ON_CONVERT, command_convert, 2, 2, "MODEL OUT.safetensors [--precision fp32|fp16]",
     "write a weight file as .safetensors"},
    {"doctor", ON_DOCTOR, command_doctor, 0, 0, "",
     "devices, kernels chosen, memory plan, what is missing and how to get it"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *f)
{
    fprintf(f, "usage: ultramotion COMMAND [ARGUMENTS]\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\nSOURCE  a file, a folder, a glob (PNG, JPEG), phantom:seed=1,frames=100, or - "
               "(raw frames on stdin)\n"
               "SINK    dir:PATH, jsonl:PATH, jsonl:-, null:\n\n"
               "ultramotion COMMAND --help lists the options of a command. Research software, not "
               "a medical device.\n");
}

int main(int argc, char **argv)
{
    struct options o;
    signal(SIGPIPE, SIG_IGN); /* a reader that leaves is an ordinary end, seen by the sink */
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("ultramotion %s (abi %d)\n", um_version(), um_abi());
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return EXIT_DONE;
    }
    for (int i = 0; i < COMMANDS; i++) {
        const struct command *c = &commands[i];
        if (strcmp(argv[1], c->name) != 0)
            continue;
        if (!cli_parse(&o, c->bit, c->name, argc - 2, argv + 2))
            return EXIT_USAGE;
        if (o.help) {
            printf("usage: ultramotion %s %s\n\n%s\n", c->name, c->arguments, c->help);
            cli_print_options(c->bit);
            return EXIT_DONE;
        }
        if (o.positionals < c->min_args || o.positionals > c->max_args)
            return cli_usage("usage: ultramotion %s %s", c->name, c->arguments);
        return c->run(&o);
    }
    cli_usage("no command \"%s\"", argv[1]);
    print_usage(stderr);
    return EXIT_USAGE;
}
