/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/labels.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 20 };

/* Between commas, round which people write spaces. */
static bool survives(const char *name)
{
    size_t n = strlen(name);
    return !strchr(name, ',') && name[0] != '[' && name[0] != ' ' && !(n && name[n - 1] == ' ');
}

um_status um_labels_print(const char *const *name, int n, char **out)
{
    bool list = n == 1 && name[0] && strspn(name[0], "0123456789") == strlen(name[0]);
    size_t bytes = 1;
    *out = NULL;
    for (int i = 0; i < n; i++) {
        bytes += name[i] ? strlen(name[i]) + 1 : 1;
        list = list || (name[i] && !survives(name[i]));
    }
    if (list) {
        um_json j = {0};
        um_json_begin(&j, '[');
        for (int i = 0; i < n; i++)
            um_json_string(&j, name[i] ? name[i] : "");
        um_json_end(&j, ']');
        return um_json_finish(&j, out);
    }
    char *text = *out = um_alloc(bytes);
    if (!text)
        return um_fail(UM_ENOMEM, "names of %d classes", n);
    *text = 0;
    for (int i = 0; i < n; i++)
        text += snprintf(text, bytes - (size_t)(text - *out), "%s%s", i ? "," : "",
                         name[i] ? name[i] : "");
    return UM_OK;
}

static um_status keep(char **name, int i, const char *text, size_t n)
{
    name[i] = n ? um_zalloc(n + 1) : NULL;
    if (n && !name[i])
        return um_fail(UM_ENOMEM, "name of class %d", i);
    if (n)
        memcpy(name[i], text, n);
    return UM_OK;
}

static um_status check_count(long count, int n)
{
    return count == n ? UM_OK
                      : um_fail(UM_EFORMAT,
                                "metadata \"classes\" is of %ld, the detector has %d; give names "
                                "with --names FILE",
                                count, n);
}

um_status um_labels_read(const char *text, char **name, int n)
{
    if (*text && strspn(text, "0123456789") == strlen(text)) /* one class may have no name */
        return check_count(strtol(text, NULL, 10), n);
    cJSON *list = NULL;
    um_status st = text[0] == '[' ? um_json_parse(&list, text, strlen(text), NULL, false) : UM_OK;
    if (st != UM_OK)
        return st;
    long count = list ? cJSON_GetArraySize(list) : 1;
    for (const char *p = text; !list && (p = strchr(p, ',')); p++)
        count++;
    st = check_count(count, n);
    for (int i = 0; list && i < n && st == UM_OK; i++) {
        const cJSON *x = cJSON_GetArrayItem(list, i);
        if (cJSON_IsString(x))
            st = keep(name, i, x->valuestring, strlen(x->valuestring));
    }
    for (int i = 0; !list && text && i < n && st == UM_OK; i++) {
        size_t length = strcspn(text, ","), from = strspn(text, " "), to = length;
        while (to > from && text[to - 1] == ' ')
            to--;
        st = keep(name, i, text + from, from < to ? to - from : 0);
        text = text[length] ? text + length + 1 : NULL;
    }
    cJSON_Delete(list);
    return st;
}

static um_status read_lines(const char *path, const char *text, size_t size, char **name, int n)
{
    int count = 0;
    um_status st = UM_OK;
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* the mark some editors write */
        text += 3;
        size -= 3;
    }
    for (size_t i = 0, bytes = 0; i < size; i += bytes) {
        uint32_t code = 0;
        bytes = um_text_utf8(text + i, size - i, &code);
        if (!bytes || (um_text_is_control(code) && code != '\n' && code != '\r' && code != '\t'))
            return um_fail(UM_EFORMAT, "%s: no text at byte %zu, want one name per line", path, i);
    }
    for (const char *end = text + size; text < end && st == UM_OK;) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t length = (size_t)((newline ? newline : end) - text);
        size_t shown = length;
        while (shown && (text[shown - 1] == '\r' || text[shown - 1] == ' '))
            shown--;
        if (count < n)
            st = keep(name, count, text, shown);
        count += count < n || shown; /* empty lines at the end name nothing */
        text += length + (newline != NULL);
    }
    if (st == UM_OK && count != n)
        st =
            um_fail(UM_EFORMAT, "%s: %d names, the detector has %d class%s; want one name per line",
                    path, count, n, n == 1 ? "" : "es");
    return st;
}

um_status um_labels_read_file(const char *path, char **name, int n)
{
    unsigned char *text = NULL;
    size_t size = 0;
    um_status st = um_file_read(path, FILE_BYTES_MAX, &text, &size);
    if (st != UM_OK)
        return um_fail_in(st, path);
    st = read_lines(path, (const char *)text, size, name, n);
    um_free(text);
    return st;
}
