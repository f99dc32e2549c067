/* SPDX-License-Identifier: Apache-2.0 */
/* A folder given as a model: Hugging Face keeps one in a file of a known name. */
#include "base/mem.h"
#include "weights/view.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_weights(const char *name)
{
    static const char *const END[] = {".safetensors", ".pt", ".pth", ".ckpt", ".bin"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof END / sizeof *END; i++) {
        size_t m = strlen(END[i]);
        if (n > m && name[0] != '.' && strcmp(name + n - m, END[i]) == 0)
            return true;
    }
    return false;
}

static char *join(const char *folder, const char *name)
{
    size_t n = strlen(folder), m = strlen(name);
    char *path = um_alloc(n + m + 2);
    if (path)
        sprintf(path, "%s%s%s", folder, n && folder[n - 1] == '/' ? "" : "/", name);
    return path;
}

/* The file is there. */
static um_status look_for(const char *folder, const char *name, char **out)
{
    char *path = join(folder, name);
    if (!path)
        return um_fail(UM_ENOMEM, "path in a folder");
    if (access(path, F_OK) == 0)
        *out = path;
    else
        um_free(path);
    return UM_OK;
}

/* How many files in the folder may be weights; *only: the last of them. */
static um_status count_weights(const char *folder, int *n, char only[256])
{
    DIR *dir = opendir(folder);
    if (!dir)
        return um_fail(UM_EIO, "%s: cannot open: %s", folder, strerror(errno));
    for (const struct dirent *e; (e = readdir(dir));)
        if (is_weights(e->d_name)) {
            ++*n;
            snprintf(only, 256, "%s", e->d_name);
        }
    closedir(dir);
    return UM_OK;
}

um_status um_folder_resolve(const char *path, char **out)
{
    static const char *const KNOWN[] = {"model.safetensors", "pytorch_model.bin"};
    struct stat s;
    char only[256] = "", *shards = NULL;
    um_status st = UM_OK;
    *out = NULL;
    if (stat(path, &s) != 0 || !S_ISDIR(s.st_mode))
        return UM_OK;
    for (int i = 0; i < 2 && !*out && st == UM_OK; i++)
        st = look_for(path, KNOWN[i], out);
    if (st != UM_OK || *out)
        return st;
    st = look_for(path, "model.safetensors.index.json", &shards);
    if (st == UM_OK && !shards)
        st = look_for(path, "pytorch_model.bin.index.json", &shards);
    if (st == UM_OK && shards)
        st = um_fail(UM_EFORMAT,
                     "%s: a model cut into several files, want one weight file; save it "
                     "again with a larger max_shard_size",
                     path);
    um_free(shards);
    if (st != UM_OK)
        return st;
    static const char *const FOREIGN[][2] = {{"saved_model.pb", "a TensorFlow SavedModel"},
                                             {"Manifest.json", "a Core ML package"}};
    for (int i = 0; i < 2; i++) {
        char *there = NULL;
        st = look_for(path, FOREIGN[i][0], &there);
        if (st == UM_OK && there)
            st = um_fail(UM_EFORMAT,
                         "%s: %s, want weights of D-FINE or SAM as .safetensors, .pt or .pth; give "
                         "the PyTorch checkpoint that it was made of",
                         path, FOREIGN[i][1]);
        um_free(there);
        if (st != UM_OK)
            return st;
    }
    int n = 0;
    st = count_weights(path, &n, only);
    if (st != UM_OK)
        return st;
    if (n == 1) {
        *out = join(path, only);
        return *out ? UM_OK : um_fail(UM_ENOMEM, "path in a folder");
    }
    return n ? um_fail(UM_EFORMAT,
                       "%s: a folder with %d weight files, want one file; name it, as %s/%s", path,
                       n, path, only)
             : um_fail(UM_EFORMAT,
                       "%s: a folder without a weight file, want a .safetensors, .pt or .pth file "
                       "or a folder with model.safetensors; name the file, or download it",
                       path);
}
