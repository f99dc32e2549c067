/* SPDX-License-Identifier: Apache-2.0 */
#include "igtl/message.h"

#include "base/mem.h"

#include <pthread.h>
#include <string.h>

enum { EXTENDED = 12, PAIR = 8, PAIRS_MOST = (UM_IGTL_META_MAX - 2) / PAIR };

const struct um_igtl_pair um_igtl_client = {"Client", "ultramotion", 6, 11, UM_IGTL_ASCII};

/* ---- numbers ---- */

uint16_t um_igtl_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)um_igtl_get16(p) << 16 | um_igtl_get16(p + 2);
}

uint64_t um_igtl_get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

float um_igtl_get_f32(const uint8_t *p)
{
    uint32_t bits = get32(p);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

void um_igtl_get_name(char *text, const uint8_t *p, size_t n)
{
    memcpy(text, p, n);
    text[n] = 0;
}

static void put(uint8_t *p, uint64_t v, size_t n)
{
    while (n-- > 0) {
        p[n] = (uint8_t)v;
        v >>= 8;
    }
}

uint64_t um_igtl_stamp(double seconds)
{
    if (!(seconds > 0))
        return 0;
    if (seconds >= 4294967296.0)
        return UINT64_MAX;
    uint64_t whole = (uint64_t)seconds;
    return whole << 32 | (uint64_t)((seconds - (double)whole) * 4294967296.0);
}

double um_igtl_seconds(uint64_t stamp)
{
    return (double)(stamp >> 32) + (double)(uint32_t)stamp / 4294967296.0;
}

/* ---- CRC ---- */

/* table[k][b]: what byte b, k bytes before the last one, makes of an empty CRC. */
enum { SLICES = 16 };
static uint64_t table[SLICES][256];

static void make_table(void)
{
    const uint64_t polynomial = 0x42F0E1EBA9EA3693;
    for (unsigned b = 0; b < 256; b++) {
        uint64_t crc = (uint64_t)b << 56;
        for (int bit = 0; bit < 8; bit++)
            crc = crc << 1 ^ (crc >> 63 ? polynomial : 0);
        table[0][b] = crc;
    }
    for (int k = 1; k < SLICES; k++)
        for (unsigned b = 0; b < 256; b++)
            table[k][b] = table[0][table[k - 1][b] >> 56] ^ table[k - 1][b] << 8;
}

uint64_t um_igtl_crc(uint64_t crc, const void *data, size_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const uint8_t *p = data;
    pthread_once(&once, make_table);
    for (; n >= SLICES; n -= SLICES, p += SLICES) { /* byte by byte it would be ten times slower */
        uint64_t a = crc ^ um_igtl_get64(p), b = um_igtl_get64(p + 8);
        crc = table[15][a >> 56] ^ table[14][a >> 48 & 255] ^ table[13][a >> 40 & 255] ^
              table[12][a >> 32 & 255] ^ table[11][a >> 24 & 255] ^ table[10][a >> 16 & 255] ^
              table[9][a >> 8 & 255] ^ table[8][a & 255] ^ table[7][b >> 56] ^
              table[6][b >> 48 & 255] ^ table[5][b >> 40 & 255] ^ table[4][b >> 32 & 255] ^
              table[3][b >> 24 & 255] ^ table[2][b >> 16 & 255] ^ table[1][b >> 8 & 255] ^
              table[0][b & 255];
    }
    for (; n > 0; n--)
        crc = table[0][crc >> 56 ^ *p++] ^ crc << 8;
    return crc;
}

/* ---- reading ---- */

um_status um_igtl_header_read(struct um_igtl_header *h, const uint8_t *p, size_t n)
{
    if (n < UM_IGTL_HEADER)
        return um_fail(UM_EFORMAT, "OpenIGTLink header of %zu bytes, want %d", n, UM_IGTL_HEADER);
    h->version = um_igtl_get16(p);
    um_igtl_get_name(h->type, p + 2, UM_IGTL_TYPE);
    um_igtl_get_name(h->device, p + 14, UM_IGTL_NAME);
    h->stamp = um_igtl_get64(p + 34);
    h->body_size = um_igtl_get64(p + 42);
    h->crc = um_igtl_get64(p + 50);
    if (h->version == 0)
        return um_fail(UM_EFORMAT, "OpenIGTLink header of version 0, want 1 or 2");
    if (h->version > 2)
        return um_fail(UM_EUNSUPPORTED, "OpenIGTLink header of version %d, want 1 or 2",
                       h->version);
    return UM_OK;
}

static um_status broken(const struct um_igtl_header *h, const char *what, uint64_t found,
                        uint64_t most)
{
    return um_fail(UM_EFORMAT, "%s \"%s\": %s %llu of %llu bytes", h->type, h->device, what,
                   (unsigned long long)found, (unsigned long long)most);
}

/* The metadata's region starts at `meta`: `head` bytes of descriptions, then `text` bytes. */
static um_status read_meta(struct um_igtl_message *m, const uint8_t *meta, size_t head, size_t text)
{
    if (head == 0)
        return text ? broken(&m->header, "metadata without a header:", text, 0) : UM_OK;
    if (head < 2)
        return broken(&m->header, "metadata header:", head, 2);
    size_t pairs = um_igtl_get16(meta), used = 0;
    if (2 + pairs * PAIR > head)
        return broken(&m->header, "metadata header:", 2 + pairs * PAIR, head);
    for (size_t i = 0; i < pairs; i++) {
        const uint8_t *p = meta + 2 + i * PAIR;
        size_t key = um_igtl_get16(p), value = get32(p + 4);
        if (key > text - used || value > text - used - key)
            return broken(&m->header, "metadata:", (uint64_t)used + key + value, text);
        used += key + value;
    }
    m->pairs = (int)pairs;
    m->meta = meta + 2;
    m->text = meta + head;
    return UM_OK;
}

um_status um_igtl_message_read(struct um_igtl_message *m, const struct um_igtl_header *h,
                               const uint8_t *body, size_t n, bool check)
{
    *m = (struct um_igtl_message){.header = *h, .content = body, .content_size = n};
    if (n != h->body_size)
        return broken(h, "a body of", n, h->body_size);
    uint64_t crc = check ? um_igtl_crc(0, body, n) : h->crc;
    if (crc != h->crc)
        return um_fail(UM_EFORMAT, "%s \"%s\": CRC %016llx, the header says %016llx", h->type,
                       h->device, (unsigned long long)crc, (unsigned long long)h->crc);
    if (h->version < 2)
        return UM_OK;
    if (n < EXTENDED)
        return broken(h, "extended header:", n, EXTENDED);
    size_t extended = um_igtl_get16(body), head = um_igtl_get16(body + 2);
    size_t text = get32(body + 4);
    if (extended < EXTENDED || extended > n)
        return broken(h, "extended header:", extended, n);
    if (head > n - extended || text > n - extended - head)
        return broken(h, "metadata:", (uint64_t)head + text, n - extended);
    m->id = get32(body + 8);
    m->content = body + extended;
    m->content_size = n - extended - head - text;
    return read_meta(m, m->content + m->content_size, head, text);
}

bool um_igtl_message_pair(const struct um_igtl_message *m, size_t *at, struct um_igtl_pair *pair)
{
    /* *at: index in the low 16 bits, where its text starts above */
    size_t i = *at & 0xffff, from = *at >> 16;
    if (i >= (size_t)m->pairs)
        return false;
    const uint8_t *p = m->meta + i * PAIR;
    *pair = (struct um_igtl_pair){.key = (const char *)m->text + from,
                                  .key_size = um_igtl_get16(p),
                                  .encoding = um_igtl_get16(p + 2),
                                  .value_size = get32(p + 4)};
    pair->value = pair->key + pair->key_size;
    *at = (from + pair->key_size + pair->value_size) << 16 | (i + 1);
    return true;
}

/* ---- a stream ---- */

void um_igtl_inbox_finish(struct um_igtl_inbox *in)
{
    um_free(in->body);
    *in = (struct um_igtl_inbox){.image_limit = in->image_limit, .limit = in->limit};
}

um_status um_igtl_inbox_room(struct um_igtl_inbox *in, uint8_t **to, size_t *n)
{
    enum { STEP = 1 << 20 }; /* a header may lie about its body: memory grows with what came */
    if (in->whole) {
        in->whole = in->in_body = in->skip = false;
        in->have = 0;
    }
    if (!in->in_body) {
        *to = in->head + in->have;
        *n = UM_IGTL_HEADER - in->have;
        return UM_OK;
    }
    size_t have = in->skip ? 0 : in->have;
    uint64_t left = in->header.body_size - have;
    if (have == in->capacity) {
        size_t more = in->capacity < STEP ? STEP : in->capacity;
        if (left < more)
            more = (size_t)left;
        if (in->skip)
            more = STEP;
        uint8_t *grown = um_grow(in->body, have, in->capacity + more);
        if (!grown)
            return um_fail(UM_ENOMEM, "a message of %zu bytes", in->capacity + more);
        in->body = grown;
        in->capacity += more;
    }
    *to = in->body + have;
    *n = in->capacity - have;
    if (*n > left)
        *n = (size_t)left;
    return UM_OK;
}

static bool is_read(const char *type)
{
    static const char *const types[] = {"IMAGE",  "TRANSFORM",  "POSITION", "STATUS",
                                        "STRING", "CAPABILITY", "LBMETA"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return type[0] && strchr("GSR", type[0]) && type[1] && type[2] && type[3] == '_';
}

/* Somebody took this for the port of a web page, or the port of a web page for this. */
static bool is_http(const uint8_t head[UM_IGTL_HEADER])
{
    static const char *const said[] = {"HTTP/1.", "<!DOCTYPE ", "<html"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        for (size_t n = strlen(said[i]), at = 0; at + n <= UM_IGTL_HEADER; at++)
            if (memcmp(head + at, said[i], n) == 0)
                return true;
    return false;
}

static um_status head_whole(struct um_igtl_inbox *in)
{
    const uint64_t passed_most = 1 << 30; /* more is no message, but a stream out of step */
    um_status st = um_igtl_header_read(&in->header, in->head, UM_IGTL_HEADER);
    struct um_igtl_header *h = &in->header;
    if (st == UM_EFORMAT)
        return st;
    in->skip = st == UM_EUNSUPPORTED;
    in->in_body = true;
    in->have = 0;
    uint64_t kept = strcmp(h->type, "IMAGE") == 0 ? in->image_limit : in->limit;
    uint64_t most = in->skip || !is_read(h->type) ? passed_most : kept;
    if (h->body_size > most && is_http(in->head))
        return um_fail(UM_EFORMAT, "HTTP instead of OpenIGTLink: is another port meant?");
    if (h->body_size > most)
        return um_fail(UM_EFORMAT, "%s \"%s\": a body of %llu bytes, the limit is %llu", h->type,
                       h->device, (unsigned long long)h->body_size, (unsigned long long)most);
    in->skip = in->skip || h->body_size > kept;
    return UM_OK;
}

um_status um_igtl_inbox_filled(struct um_igtl_inbox *in, size_t n)
{
    if (in->in_body && in->skip)
        in->header.body_size -= n;
    else
        in->have += n;
    if (!in->in_body && in->have == UM_IGTL_HEADER) {
        um_status st = head_whole(in);
        if (st != UM_OK)
            return st;
    }
    if (!in->in_body)
        return UM_AGAIN;
    if (in->skip && in->header.body_size == 0) {
        *(in->header.version > 2 ? &in->skipped : &in->passed) += 1;
        in->whole = true; /* and nobody is told */
        return UM_AGAIN;
    }
    in->whole = !in->skip && in->have == in->header.body_size;
    return in->whole ? UM_OK : UM_AGAIN;
}

/* ---- writing ---- */

void um_igtl_outbox_finish(struct um_igtl_outbox *out)
{
    um_free(out->data);
    *out = (struct um_igtl_outbox){0};
}

uint8_t *um_igtl_room(struct um_igtl_outbox *out, size_t n)
{
    out->failed = out->failed || !um_make_room(&out->data, &out->capacity, out->size, n, 1);
    if (out->failed)
        return NULL;
    out->size += n;
    return out->data + out->size - n;
}

static void put_number(struct um_igtl_outbox *out, uint64_t v, size_t n)
{
    uint8_t *p = um_igtl_room(out, n);
    if (p)
        put(p, v, n);
}

void um_igtl_u8(struct um_igtl_outbox *out, uint8_t v)
{
    put_number(out, v, 1);
}

void um_igtl_u16(struct um_igtl_outbox *out, uint16_t v)
{
    put_number(out, v, 2);
}

void um_igtl_u32(struct um_igtl_outbox *out, uint32_t v)
{
    put_number(out, v, 4);
}

void um_igtl_u64(struct um_igtl_outbox *out, uint64_t v)
{
    put_number(out, v, 8);
}

void um_igtl_f32(struct um_igtl_outbox *out, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    um_igtl_u32(out, bits);
}

void um_igtl_bytes(struct um_igtl_outbox *out, const void *data, size_t n)
{
    uint8_t *p = um_igtl_room(out, n);
    if (p && n)
        memcpy(p, data, n);
}

void um_igtl_name(struct um_igtl_outbox *out, const char *text, size_t n)
{
    size_t length = strlen(text);
    uint8_t *p = um_igtl_room(out, n);
    if (!p)
        return;
    memset(p, 0, n);
    memcpy(p, text, length < n ? length : n);
}

void um_igtl_begin(struct um_igtl_outbox *out, int version, const char *type, const char *device,
                   uint64_t stamp, uint32_t id)
{
    out->start = out->size;
    out->version = version;
    um_igtl_u16(out, (uint16_t)version);
    um_igtl_name(out, type, UM_IGTL_TYPE);
    um_igtl_name(out, device, UM_IGTL_NAME);
    um_igtl_u64(out, stamp);
    um_igtl_u64(out, 0); /* body size and CRC come at the end */
    um_igtl_u64(out, 0);
    if (version < 2)
        return;
    um_igtl_u16(out, EXTENDED);
    um_igtl_u16(out, 0);
    um_igtl_u32(out, 0);
    um_igtl_u32(out, id);
}

static void put_meta(struct um_igtl_outbox *out, const struct um_igtl_pair *pairs, int n)
{
    size_t text = 0;
    int fit = 0;
    for (; fit < n && fit < PAIRS_MOST &&
           text + pairs[fit].key_size + pairs[fit].value_size <= UM_IGTL_META_MAX;
         fit++)
        text += pairs[fit].key_size + pairs[fit].value_size;
    um_igtl_u16(out, (uint16_t)fit);
    for (int i = 0; i < fit; i++) {
        um_igtl_u16(out, (uint16_t)pairs[i].key_size);
        um_igtl_u16(out, (uint16_t)pairs[i].encoding);
        um_igtl_u32(out, (uint32_t)pairs[i].value_size);
    }
    for (int i = 0; i < fit; i++) {
        um_igtl_bytes(out, pairs[i].key, pairs[i].key_size);
        um_igtl_bytes(out, pairs[i].value, pairs[i].value_size);
    }
    if (out->failed)
        return;
    uint8_t *extended = out->data + out->start + UM_IGTL_HEADER;
    put(extended + 2, 2 + (uint64_t)fit * PAIR, 2);
    put(extended + 4, text, 4);
}

void um_igtl_end(struct um_igtl_outbox *out, const struct um_igtl_pair *pairs, int n)
{
    if (out->version >= 2)
        put_meta(out, pairs, n);
    if (out->failed)
        return;
    uint8_t *head = out->data + out->start, *body = head + UM_IGTL_HEADER;
    size_t size = out->size - out->start - UM_IGTL_HEADER;
    put(head + 42, size, 8);
    put(head + 50, um_igtl_crc(0, body, size), 8);
}
