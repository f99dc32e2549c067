/* SPDX-License-Identifier: Apache-2.0 */
/* OpenIGTLink messages as bytes: header, extended header, metadata, CRC. Pure functions: nothing
 * here knows sockets. docs/OPENIGTLINK.md says what is read, sent and refused. */
#ifndef UM_IGTL_MESSAGE_H
#define UM_IGTL_MESSAGE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    UM_IGTL_HEADER = 58,
    UM_IGTL_TYPE = 12,
    UM_IGTL_NAME = 20,
    UM_IGTL_META_MAX = 65535, /* bytes of keys and values: the reference counts them in 16 bits */
    UM_IGTL_ASCII = 3,        /* IANA MIBenum */
    UM_IGTL_UTF8 = 106
};

struct um_igtl_header {
    int version; /* 1, or 2: with extended header and metadata */
    char type[UM_IGTL_TYPE + 1], device[UM_IGTL_NAME + 1];
    uint64_t stamp; /* 32.32 seconds since 1970; 0 = unused */
    uint64_t body_size, crc;
};

/* @return UM_OK; UM_EUNSUPPORTED for a version above 2, whose body can be skipped; UM_EFORMAT where
 * the stream cannot go on. */
um_status um_igtl_header_read(struct um_igtl_header *h, const uint8_t *p, size_t n);

/* A message whose body is there. Pointers are into the body. */
struct um_igtl_message {
    struct um_igtl_header header;
    const uint8_t *content;
    size_t content_size;
    uint32_t id;         /* version 2: the sender's choice */
    int pairs;           /* of metadata */
    const uint8_t *meta; /* their descriptions */
    const uint8_t *text; /* keys and values */
};
/* `check`: the CRC must be right. UM_EFORMAT for anything that does not fit. */
um_status um_igtl_message_read(struct um_igtl_message *m, const struct um_igtl_header *h,
                               const uint8_t *body, size_t n, bool check);

/* A key and its value: bytes that end nowhere, from the sender or to be sent. */
struct um_igtl_pair {
    const char *key, *value;
    size_t key_size, value_size;
    int encoding; /* IANA MIBenum */
};
/* Pair 0 starts with *at = 0; each call moves it. False at the end. */
bool um_igtl_message_pair(const struct um_igtl_message *m, size_t *at, struct um_igtl_pair *pair);

/* CRC-64 of ECMA-182: not reflected, starts at 0. `crc` is that of what came before. */
uint64_t um_igtl_crc(uint64_t crc, const void *data, size_t n);

/* 32.32 fixed point there and back. */
uint64_t um_igtl_stamp(double seconds);
double um_igtl_seconds(uint64_t stamp);

/* ---- a stream of messages, in pieces of any size ---- */

/* Where received bytes go. Partial messages stay until the rest comes. */
struct um_igtl_inbox {
    uint64_t image_limit, limit; /* of bodies: of IMAGE, and of all others */
    uint8_t head[UM_IGTL_HEADER];
    struct um_igtl_header header; /* once the head is whole */
    uint8_t *body;
    size_t have, capacity; /* of the head, then of the body */
    bool in_body, whole, skip;
    uint64_t skipped; /* messages of versions that nobody here knows */
    uint64_t passed;  /* messages of types that nobody here reads, of more than `limit` bytes */
};
void um_igtl_inbox_finish(struct um_igtl_inbox *in);
/* Room for at least one byte, at most *n. Forgets the message that was whole. */
um_status um_igtl_inbox_room(struct um_igtl_inbox *in, uint8_t **to, size_t *n);
/* n bytes came. @return UM_OK: a message is whole (in->header, in->body); UM_AGAIN: not yet;
 * UM_EFORMAT, UM_ENOMEM: the stream cannot go on. */
um_status um_igtl_inbox_filled(struct um_igtl_inbox *in, size_t n);

/* ---- writing ---- */

/* Messages one behind the other. Starts as {0}; a failed allocation is remembered. */
struct um_igtl_outbox {
    uint8_t *data;
    size_t size, capacity;
    size_t start; /* of the message in the making */
    int version;
    bool failed;
};
void um_igtl_outbox_finish(struct um_igtl_outbox *out);
/* Names are cut to what fits. `id` is for version 2. */
void um_igtl_begin(struct um_igtl_outbox *out, int version, const char *type, const char *device,
                   uint64_t stamp, uint32_t id);
/* Room for n bytes of content, NULL if there is no memory. */
uint8_t *um_igtl_room(struct um_igtl_outbox *out, size_t n);
void um_igtl_u8(struct um_igtl_outbox *out, uint8_t v);
void um_igtl_u16(struct um_igtl_outbox *out, uint16_t v);
void um_igtl_u32(struct um_igtl_outbox *out, uint32_t v);
void um_igtl_u64(struct um_igtl_outbox *out, uint64_t v);
void um_igtl_f32(struct um_igtl_outbox *out, float v);
/* Text in a field of n bytes, cut or filled with zeros. */
void um_igtl_name(struct um_igtl_outbox *out, const char *text, size_t n);
void um_igtl_bytes(struct um_igtl_outbox *out, const void *data, size_t n);
/* The metadata of our own messages: who sends them. */
extern const struct um_igtl_pair um_igtl_client;
/* Version 2: pairs that would be more than UM_IGTL_META_MAX bytes are left out. */
void um_igtl_end(struct um_igtl_outbox *out, const struct um_igtl_pair *pairs, int n);

/* Numbers as they lie in messages. */
uint16_t um_igtl_get16(const uint8_t *p);
uint64_t um_igtl_get64(const uint8_t *p);
float um_igtl_get_f32(const uint8_t *p);
/* A field of n bytes, which may have no zero, as text. */
void um_igtl_get_name(char *text, const uint8_t *p, size_t n);

#endif
