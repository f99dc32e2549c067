/* SPDX-License-Identifier: Apache-2.0 */
/* What lies beside a model: config.json, preprocessor_config.json, a list of names. */
#include "memory_file.h"

#include "base/mem.h"
#include "weights/labels.h"
#include "weights/view.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NAMES = 20 };

static void forget(char **name)
{
    for (int i = 0; i < NAMES; i++) {
        um_free(name[i]);
        name[i] = NULL;
    }
}

/* Names as one text and back are the same names. */
static void check_names(const char *text)
{
    char *name[NAMES] = {NULL}, *again[NAMES] = {NULL}, *printed = NULL;
    if (um_labels_read(text, name, NAMES) == UM_OK &&
        um_labels_print((const char *const *)name, NAMES, &printed) == UM_OK &&
        um_labels_read(printed, again, NAMES) == UM_OK)
        for (int i = 0; i < NAMES; i++)
            if (!name[i] != !again[i] || (name[i] && strcmp(name[i], again[i]) != 0))
                abort();
    um_free(printed);
    forget(name);
    forget(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *name[NAMES] = {NULL}, path[MEMORY_PATH], label[] = "model", *copy = malloc(size + 1);
    um_weights w = {.path = label, .hugging_face = size % 2};
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    copy[size] = 0;
    um_config_parse(&w, "config.json", copy, size);
    um_preprocessor_parse(&w, "preprocessor_config.json", copy, size);
    for (int i = 0; i < w.fact_count; i++)
        if (um_weights_fact(&w, w.fact[i].key, NULL) == NULL)
            abort();
    const char *classes = um_weights_fact(&w, "classes", NULL);
    if (classes)
        check_names(classes);
    int fd = memory_file(data, size, path);
    if (um_labels_read_file(path, name, NAMES) == UM_OK && size < NAMES - 1)
        abort(); /* so many names need so many lines */
    close(fd);
    forget(name);
    um_arena_finish(&w.arena);
    free(copy);
    return 0;
}
