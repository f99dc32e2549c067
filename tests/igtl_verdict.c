/* SPDX-License-Identifier: Apache-2.0 */
/* What our OpenIGTLink codec says of messages, for tests/parity/igtl_parity.py: a line of
 * hexadecimal digits on stdin each, a line on stdout: "0 why" where it is refused, also where only
 * a strict peer refuses it, else "1" and all that was read, or "2" and all but the content of a
 * type that is skipped. */
#include "igtl/content.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_bytes(char before, const void *data, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;
    putchar(before);
    for (size_t i = 0; i < n; i++) {
        putchar(digits[p[i] >> 4]);
        putchar(digits[p[i] & 15]);
    }
}

static void print_text(char before, const char *text)
{
    print_bytes(before, text, strlen(text));
}

/* By their bits: what is no number has many. */
static void print_floats(const float *v, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        if (isnan(v[i]))
            printf(" nan");
        else
            printf(" %08x", bits);
    }
}

static void print_sizes(const uint16_t v[3])
{
    printf(" %d,%d,%d", v[0], v[1], v[2]);
}

static void print_head(char verdict, const struct um_igtl_message *m)
{
    struct um_igtl_pair pair;
    size_t at = 0;
    putchar(verdict);
    print_text(' ', m->header.device);
    printf(" %llx %x", (unsigned long long)m->header.stamp, m->id);
    while (um_igtl_message_pair(m, &at, &pair)) {
        print_bytes(' ', pair.key, pair.key_size);
        printf(":%d", pair.encoding);
        print_bytes(':', pair.value, pair.value_size);
    }
    printf(" |");
}

static um_status image(const struct um_igtl_message *m)
{
    struct um_igtl_image i;
    um_status st = um_igtl_image_read(&i, m);
    if (st != UM_OK)
        return st;
    print_head('1', m);
    printf(" %d %d %d %d", i.components, i.scalar, i.endian, i.coordinates);
    print_sizes(i.size);
    print_sizes(i.offset);
    print_sizes(i.part);
    print_floats(i.t, 3);
    print_floats(i.s, 3);
    print_floats(i.n, 3);
    print_floats(i.p, 3);
    print_bytes(' ', i.pixels, i.bytes);
    return UM_OK;
}

static um_status transform(const struct um_igtl_message *m)
{
    float v[12];
    um_status st = um_igtl_transform_read(v, m);
    if (st != UM_OK)
        return st;
    print_head('1', m);
    print_floats(v, 12);
    return UM_OK;
}

static um_status position(const struct um_igtl_message *m)
{
    float v[3], quaternion[4];
    um_status st = um_igtl_position_read(v, quaternion, m);
    if (st != UM_OK)
        return st;
    print_head('1', m);
    print_floats(v, 3);
    print_floats(quaternion, (int)(m->content_size - 12) / 4); /* what came of it */
    return UM_OK;
}

static um_status status(const struct um_igtl_message *m)
{
    struct um_igtl_status s;
    um_status st = um_igtl_status_read(&s, m);
    if (st != UM_OK)
        return st;
    print_head('1', m);
    printf(" %d %lld", s.code, (long long)s.subcode);
    print_text(' ', s.name);
    print_text(' ', s.text);
    return UM_OK;
}

static um_status string(const struct um_igtl_message *m)
{
    struct um_igtl_string s;
    um_status st = um_igtl_string_read(&s, m);
    if (st != UM_OK)
        return st;
    print_head('1', m);
    printf(" %d", s.encoding);
    print_bytes(' ', s.text, s.size);
    return UM_OK;
}

static um_status capability(const struct um_igtl_message *m)
{
    int n = 0;
    um_status st = um_igtl_capability_read(&n, m);
    if (st != UM_OK)
        return st;
    print_head('1', m);
    printf(" %d", n);
    return UM_OK;
}

static um_status labels(const struct um_igtl_message *m)
{
    struct um_igtl_label l;
    int n = 0;
    um_status st = um_igtl_label_count(&n, m);
    if (st != UM_OK)
        return st;
    print_head('1', m);
    for (int i = 0; i < n; i++) {
        um_igtl_label_read(&l, m, i);
        print_text(' ', l.name);
        print_text(' ', l.device);
        printf(" %d", l.label);
        print_bytes(' ', l.rgba, sizeof l.rgba);
        print_sizes(l.size);
        print_text(' ', l.owner);
    }
    return UM_OK;
}

static um_status content(const struct um_igtl_message *m)
{
    static const struct {
        const char *type;
        um_status (*read)(const struct um_igtl_message *m);
    } known[] = {{"IMAGE", image},          {"TRANSFORM", transform}, {"POSITION", position},
                 {"STATUS", status},        {"STRING", string},       {"LBMETA", labels},
                 {"CAPABILITY", capability}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(m->header.type, known[i].type) == 0)
            return known[i].read(m);
    print_head('2', m);
    return UM_OK;
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
        const char *strict = st == UM_OK ? um_igtl_strict(&m) : NULL;
        if (strict)
            st = um_fail(UM_EFORMAT, "%s", strict);
        if (st == UM_OK)
            st = content(&m);
        if (st != UM_OK)
            printf("0 %s", um_last_error());
        putchar('\n');
        fflush(stdout);
        free(p);
    }
    return 0;
}
