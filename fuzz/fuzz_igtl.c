/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of OpenIGTLink messages in pieces (the first byte: how large), with right and wrong
 * CRCs. What is read is written again, and must be the same bytes. */
#include "base/mem.h"
#include "igtl/content.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned touched;

static void touch(const void *p, size_t n)
{
    unsigned sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((const uint8_t *)p)[i];
    touched = sum;
}

/* `out` holds one message whose content must be m's. */
static void same(struct um_igtl_outbox *out, const struct um_igtl_message *m, size_t least)
{
    um_igtl_end(out, NULL, 0);
    struct um_igtl_header h;
    struct um_igtl_message again;
    if (out->failed || um_igtl_header_read(&h, out->data, out->size) != UM_OK ||
        um_igtl_message_read(&again, &h, out->data + UM_IGTL_HEADER, out->size - UM_IGTL_HEADER,
                             true) != UM_OK ||
        again.content_size != least || memcmp(again.content, m->content, least) != 0)
        abort();
    um_igtl_outbox_finish(out);
}

static void content(const struct um_igtl_message *m)
{
    struct um_igtl_outbox out = {0};
    struct um_igtl_image image;
    struct um_igtl_status status;
    struct um_igtl_string string;
    struct um_igtl_label label;
    float v[12], quaternion[4];
    double matrix[16];
    int n = 0;
    const char *type = m->header.type;
    um_igtl_begin(&out, m->header.version, type, m->header.device, m->header.stamp, m->id);
    if (um_igtl_image_read(&image, m) == UM_OK) {
        touch(image.pixels, image.bytes);
        um_igtl_image_matrix(&image, matrix);
        um_igtl_image_write(&out, &image);
        um_igtl_bytes(&out, image.pixels, image.bytes);
        same(&out, m, m->content_size);
        um_igtl_begin(&out, 1, type, "", 0, 0);
    }
    if (um_igtl_transform_read(v, m) == UM_OK) {
        um_igtl_transform_write(&out, v);
        same(&out, m, 48);
        um_igtl_begin(&out, 1, type, "", 0, 0);
    }
    um_igtl_outbox_finish(&out);
    (void)um_igtl_position_read(v, quaternion, m);
    (void)um_igtl_capability_read(&n, m);
    (void)um_igtl_strict(m);
    if (um_igtl_status_read(&status, m) == UM_OK)
        touch(status.text, strlen(status.text));
    if (um_igtl_string_read(&string, m) == UM_OK)
        touch(string.text, string.size);
    if (um_igtl_label_count(&n, m) == UM_OK)
        for (int i = 0; i < n; i++)
            um_igtl_label_read(&label, m, i);
    (void)um_igtl_asks(type, "GET_", "TRANSFORM");
}

static void message(const struct um_igtl_inbox *in)
{
    struct um_igtl_message m;
    struct um_igtl_pair pair;
    size_t at = 0, pairs = 0;
    um_status checked = um_igtl_message_read(&m, &in->header, in->body, in->have, true);
    um_status st = um_igtl_message_read(&m, &in->header, in->body, in->have, false);
    if (checked == UM_OK && st != UM_OK)
        abort();
    if (st != UM_OK)
        return;
    for (; um_igtl_message_pair(&m, &at, &pair); pairs++) {
        touch(pair.key, pair.key_size);
        touch(pair.value, pair.value_size);
    }
    if (pairs != (size_t)m.pairs)
        abort();
    touch(m.content, m.content_size);
    content(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct um_igtl_inbox in = {.limit = 1 << 16, .image_limit = 1 << 20};
    size_t piece = size ? data[0] + 1u : 1;
    if (piece == 1)
        piece = size;
    for (size_t from = 1; from < size;) {
        uint8_t *to = NULL;
        size_t room = 0;
        um_mem_fail_at(piece == 0x7f ? 1 : 0);
        um_status st = um_igtl_inbox_room(&in, &to, &room);
        um_mem_fail_at(0);
        if (st != UM_OK || room == 0)
            break;
        room = room < piece ? room : piece;
        room = room < size - from ? room : size - from;
        memcpy(to, data + from, room);
        from += room;
        st = um_igtl_inbox_filled(&in, room);
        if (st == UM_OK)
            message(&in);
        else if (st != UM_AGAIN)
            break;
    }
    um_igtl_inbox_finish(&in);
    return 0;
}
