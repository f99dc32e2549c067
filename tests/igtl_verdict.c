/* SPDX-License-Identifier: Apache-2.0 */
/* What our OpenIGTLink codec says of messages, for tests/parity/igtl_parity.py: a line of
 * hexadecimal digits on stdin each, a line of "1 pairs" (accepted, with its metadata entries) or "0
 * why" on stdout. */
#include "igtl/content.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static um_status content(const struct um_igtl_message *m)
{
    struct um_igtl_image image;
    struct um_igtl_status status;
    struct um_igtl_string string;
    float v[12], quaternion[4];
    int n = 0;
    const char *type = m->header.type;
    return strcmp(type, "IMAGE") == 0        ? um_igtl_image_read(&image, m)
           : strcmp(type, "TRANSFORM") == 0  ? um_igtl_transform_read(v, m)
           : strcmp(type, "POSITION") == 0   ? um_igtl_position_read(v, quaternion, m)
           : strcmp(type, "STATUS") == 0     ? um_igtl_status_read(&status, m)
           : strcmp(type, "STRING") == 0     ? um_igtl_string_read(&string, m)
           : strcmp(type, "CAPABILITY") == 0 ? um_igtl_capability_read(&n, m)
           : strcmp(type, "LBMETA") == 0     ? um_igtl_label_count(&n, m)
                                             : UM_OK;
}

static int digit(int c)
{
    return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

int main(void)
{
    static char line[1 << 20];
    while (fgets(line, sizeof line, stdin)) {
        size_t n = strcspn(line, "\n") / 2;
        uint8_t *p = malloc(n ? n : 1); /* exactly as many, so that a sanitizer sees one too far */
        struct um_igtl_header h;
        struct um_igtl_message m = {0};
        if (!p)
            return 1;
        for (size_t i = 0; i < n; i++)
            p[i] = (uint8_t)(digit(line[2 * i]) << 4 | digit(line[2 * i + 1]));
        um_status st = um_igtl_header_read(&h, p, n);
        if (st == UM_OK && h.body_size > n - UM_IGTL_HEADER)
            st = um_fail(UM_EFORMAT, "a body that ends beyond what is there");
        if (st == UM_OK)
            st = um_igtl_message_read(&m, &h, p + UM_IGTL_HEADER, (size_t)h.body_size, true);
        if (st == UM_OK)
            st = content(&m);
        if (st == UM_OK)
            printf("1 %d\n", m.pairs);
        else
            printf("0 %s\n", um_last_error());
        fflush(stdout);
        free(p);
    }
    return 0;
}
