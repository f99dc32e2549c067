/* SPDX-License-Identifier: Apache-2.0 */
/* One connection, message by message. */
#include "ultramotion/igtl.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/wake.h"
#include "io/igtl_link.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct um_igtl {
    struct um_address address;
    struct um_igtl_link link;
    int listening, port, wake;
    char peer[UM_SOCKET_PEER];
};

um_status um_igtl_open(um_igtl **out, const char *address)
{
    if (out)
        *out = NULL;
    if (!out || !address)
        return um_fail(UM_EINVAL, "um_igtl_open: no %s", out ? "address" : "place for the result");
    struct um_igtl *l = um_zalloc(sizeof *l);
    if (!l)
        return um_fail(UM_ENOMEM, "OpenIGTLink connection");
    l->listening = l->link.fd = l->wake = -1;
    l->link.version = 1;
    l->link.in.image_limit = 64 << 20;
    l->link.in.limit = 1 << 20;
    const char *own = strncmp(address, "igtl://", 7) == 0 ? address + 5 : address; /* a source's */
    um_status st = um_address_read(&l->address, "igtl", own);
    if (st == UM_OK && l->address.options[0])
        st = um_fail(UM_EINVAL, "igtl: \"%s\": options mean nothing here", address);
    if (st == UM_OK && l->address.host[0])
        st = um_address_to_connect(&l->address, address, "");
    else if (st == UM_OK)
        st = um_socket_listen(&l->listening, &l->port, &l->address);
    if (st != UM_OK)
        um_igtl_close(&l);
    *out = l;
    return st;
}

um_status um_igtl_wait(um_igtl *link, int timeout_ms)
{
    if (!link)
        return um_fail(UM_EINVAL, "um_igtl_wait: no connection");
    const int most = 100, pause = timeout_ms >= 0 && timeout_ms < most ? timeout_ms : most;
    bool again = link->link.fd >= 0;
    um_igtl_link_close(&link->link);
    if (link->listening < 0) {
        if (again) /* not faster than somebody can come: nobody who sends us away is stormed */
            um_wake_wait(link->wake, pause);
        um_status st = um_socket_connect(&link->link.fd, &link->address, link->wake, timeout_ms);
        if (st == UM_EIO)
            um_wake_wait(link->wake, pause);
        return st;
    }
    if (!um_wake_poll(link->listening, POLLIN, link->wake, timeout_ms))
        return UM_AGAIN;
    return um_socket_accept(&link->link.fd, link->listening, link->peer);
}

void um_igtl_set_wake(um_igtl *link, int wake_fd)
{
    if (link)
        link->wake = wake_fd;
}

int um_igtl_port(const um_igtl *link)
{
    return link ? link->port : 0;
}

void um_igtl_close(um_igtl **link)
{
    enum { PATIENCE_MS = 300 };
    if (!link || !*link)
        return;
    struct um_igtl *l = *link;
    *link = NULL;
    if (l->link.fd >= 0) /* or what it says would take back what was sent last */
        um_igtl_link_drain(&l->link, um_clock_ns() + PATIENCE_MS * 1000000ull);
    um_igtl_link_close(&l->link);
    if (l->listening >= 0)
        close(l->listening);
    um_free(l);
}

/* ---- a message as JSON ---- */

/* Of all components; NaN: none is a number. */
static double most_of(const struct um_igtl_image *image)
{
    size_t size = um_igtl_scalar_bytes(image->scalar);
    double most = (double)NAN;
    for (size_t i = 0; i + size <= image->bytes; i += size) {
        double v = um_igtl_scalar(image, i / size);
        most = isnan(most) || v > most ? v : most;
    }
    return most;
}

static um_status json_image(um_json *j, const struct um_igtl_message *m)
{
    struct um_igtl_image image;
    double matrix[16];
    char sha[65];
    um_status st = um_igtl_image_read(&image, m);
    if (st != UM_OK)
        return st;
    um_igtl_image_matrix(&image, matrix);
    um_sha256_hex(sha, image.pixels, image.bytes);
    um_json_put_begin(j, "image", '{');
    um_json_put_begin(j, "size", '[');
    for (int i = 0; i < 3; i++)
        um_json_int(j, image.size[i]);
    um_json_end(j, ']');
    um_json_put_int(j, "components", image.components);
    um_json_put_int(j, "scalar", image.scalar);
    um_json_put_int(j, "coordinates", image.coordinates);
    um_json_put_floats(j, "t", image.t, 3);
    um_json_put_floats(j, "s", image.s, 3);
    um_json_put_floats(j, "n", image.n, 3);
    um_json_put_floats(j, "p", image.p, 3);
    um_json_put_doubles(j, "origin", (double[]){matrix[3], matrix[7], matrix[11]}, 3);
    um_json_put_double(j, "most", most_of(&image));
    um_json_put_string(j, "sha256", sha);
    um_json_end(j, '}');
    return UM_OK;
}

static um_status json_labels(um_json *j, const struct um_igtl_message *m)
{
    struct um_igtl_label label;
    int n = 0;
    um_status st = um_igtl_label_count(&n, m);
    if (st != UM_OK)
        return st;
    um_json_put_begin(j, "labels", '[');
    for (int i = 0; i < n; i++) {
        um_igtl_label_read(&label, m, i);
        um_json_begin(j, '{');
        um_json_put_string(j, "name", label.name);
        um_json_put_string(j, "device", label.device);
        um_json_put_int(j, "label", label.label);
        um_json_put_string(j, "owner", label.owner);
        um_json_end(j, '}');
    }
    um_json_end(j, ']');
    return UM_OK;
}

static um_status json_content(um_json *j, const struct um_igtl_message *m)
{
    const char *type = m->header.type;
    float v[12], quaternion[4];
    struct um_igtl_status status;
    struct um_igtl_string string;
    int n = 0;
    um_status st = UM_OK;
    if (strcmp(type, "IMAGE") == 0) {
        st = json_image(j, m);
    } else if (strcmp(type, "LBMETA") == 0) {
        st = json_labels(j, m);
    } else if (strcmp(type, "TRANSFORM") == 0) {
        if ((st = um_igtl_transform_read(v, m)) == UM_OK)
            um_json_put_floats(j, "transform", v, 12);
    } else if (strcmp(type, "POSITION") == 0) {
        if ((st = um_igtl_position_read(v, quaternion, m)) == UM_OK) {
            um_json_put_floats(j, "position", v, 3);
            um_json_put_floats(j, "quaternion", quaternion, 4);
        }
    } else if (strcmp(type, "STRING") == 0) {
        if ((st = um_igtl_string_read(&string, m)) == UM_OK)
            um_json_put_bytes(j, "string", string.text, string.size);
    } else if (strcmp(type, "CAPABILITY") == 0) {
        if ((st = um_igtl_capability_read(&n, m)) == UM_OK) {
            um_json_put_begin(j, "capability", '[');
            for (int i = 0; i < n; i++)
                um_json_bytes(
                    j, (const char *)m->content + (size_t)i * UM_IGTL_TYPE,
                    strnlen((const char *)m->content + (size_t)i * UM_IGTL_TYPE, UM_IGTL_TYPE));
            um_json_end(j, ']');
        }
    } else if (strcmp(type, "STATUS") == 0) {
        if ((st = um_igtl_status_read(&status, m)) == UM_OK) {
            um_json_put_begin(j, "status", '{');
            um_json_put_int(j, "code", status.code);
            um_json_put_int(j, "subcode", status.subcode);
            um_json_put_string(j, "name", status.name);
            um_json_put_string(j, "text", status.text);
            um_json_end(j, '}');
        }
    }
    return st;
}

/* `broken`: what is wrong with the whole of it, so that only its header says something. */
static um_status to_json(const struct um_igtl_message *m, const char *broken, char **text)
{
    um_json j = {0};
    char stamp[17];
    struct um_igtl_pair pair;
    size_t at = 0;
    snprintf(stamp, sizeof stamp, "%016llx", (unsigned long long)m->header.stamp);
    um_json_begin(&j, '{');
    um_json_put_string(&j, "type", m->header.type);
    um_json_put_string(&j, "device", m->header.device);
    um_json_put_int(&j, "version", m->header.version);
    um_json_put_string(&j, "stamp", stamp);
    um_json_put_double(&j, "ts", um_igtl_seconds(m->header.stamp));
    um_json_put_int(&j, "id", m->id);
    um_json_put_uint(&j, "body_bytes", m->header.body_size);
    um_json_put_begin(&j, "metadata", '{');
    while (um_igtl_message_pair(m, &at, &pair)) {
        char key[256];
        size_t n = pair.key_size < sizeof key ? pair.key_size : sizeof key - 1;
        memcpy(key, pair.key, n);
        key[n] = 0;
        um_json_put_bytes(&j, key, pair.value, pair.value_size);
    }
    um_json_end(&j, '}');
    bool read = !broken && json_content(&j, m) == UM_OK;
    const char *problem = broken ? broken : read ? um_igtl_strict(m) : um_last_error();
    if (problem) {
        um_json_put_string(&j, read ? "strict" : "problem", problem);
    }
    um_json_end(&j, '}');
    return um_json_finish(&j, text);
}

um_status um_igtl_receive(um_igtl *link, int timeout_ms, char **json)
{
    struct um_igtl_message m;
    if (!link || !json || link->link.fd < 0)
        return um_fail(UM_EINVAL, "um_igtl_receive: no %s", json ? "connection" : "place");
    *json = NULL;
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : um_clock_ns() + (uint64_t)timeout_ms * 1000000;
    for (;;) {
        struct um_igtl_link *l = &link->link;
        um_status st = um_igtl_link_receive(l);
        if (st == UM_OK) {
            st = um_igtl_message_read(&m, &l->in.header, l->in.body, l->in.have, true);
            char why[512];
            snprintf(why, sizeof why, "%s", um_last_error());
            if (st != UM_OK)
                m = (struct um_igtl_message){.header = l->in.header};
            return to_json(&m, st == UM_OK ? NULL : why, json);
        }
        if (st != UM_AGAIN)
            return st;
        int left = um_clock_ms_until(until);
        if (left == 0 || !um_wake_poll(l->fd, POLLIN, link->wake, left))
            return UM_AGAIN;
    }
}

/* ---- sending ---- */

static um_status send_box(um_igtl *link, struct um_igtl_outbox *out)
{
    enum { PATIENCE_MS = 10000 };
    um_status st = out->failed ? um_fail(UM_ENOMEM, "a message") : UM_OK;
    size_t at = 0;
    while (st == UM_OK && at < out->size) {
        ssize_t n =
            send(link->link.fd, out->data + at, out->size - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            at += (size_t)n;
        else if (errno == EPIPE || errno == ECONNRESET)
            st = UM_EOF;
        else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            st = um_fail(UM_EIO, "%s", strerror(errno));
        else if (!um_wake_poll(link->link.fd, POLLOUT, link->wake, PATIENCE_MS))
            st = um_fail(UM_EIO, "the other side takes nothing");
    }
    um_igtl_outbox_finish(out);
    if (st != UM_OK && at) /* another message would go into the middle of this one */
        shutdown(link->link.fd, SHUT_WR);
    return st;
}

um_status um_igtl_send_frame(um_igtl *link, const um_frame *frame, const char *device)
{
    struct um_igtl_outbox out = {0};
    if (!link || !frame || !device || link->link.fd < 0)
        return um_fail(UM_EINVAL, "um_igtl_send_frame: no %s",
                       !frame    ? "frame"
                       : !device ? "device"
                                 : "connection");
    uint64_t stamp = um_igtl_stamp(frame->ts);
    uint32_t id = (uint32_t)frame->id;
    struct um_igtl_image image = {.components = frame->channels,
                                  .scalar = UM_IGTL_U8,
                                  .endian = UM_IGTL_LITTLE,
                                  .coordinates = UM_IGTL_RAS,
                                  .part = {(uint16_t)frame->width, (uint16_t)frame->height, 1}};
    um_igtl_image_place_plainly(&image, frame->width, frame->height,
                                frame->has_spacing ? frame->spacing_mm : NULL);
    if (frame->has_pose) {
        float matrix[12];
        for (int i = 0; i < 12; i++)
            matrix[i] = (float)frame->pose[i];
        um_igtl_begin(&out, link->link.version, "TRANSFORM", "ProbeToReference", stamp, id);
        um_igtl_transform_write(&out, matrix);
        um_igtl_end(&out, NULL, 0);
    }
    um_igtl_begin(&out, link->link.version, "IMAGE", device, stamp, id);
    um_igtl_image_write(&out, &image);
    for (int y = 0; y < frame->height; y++)
        um_igtl_bytes(&out, frame->pixels + y * frame->stride,
                      (size_t)frame->width * (size_t)frame->channels);
    um_igtl_end(&out, NULL, 0);
    return send_box(link, &out);
}

um_status um_igtl_send_text(um_igtl *link, const char *type, const char *device, const char *text)
{
    struct um_igtl_outbox out = {0};
    if (!link || !type || !device || !text || link->link.fd < 0)
        return um_fail(UM_EINVAL, "um_igtl_send_text: no %s",
                       !text     ? "text"
                       : !type   ? "type"
                       : !device ? "device"
                                 : "connection");
    bool status = strcmp(type, "STATUS") == 0;
    um_igtl_begin(&out, status ? 2 : 1, type, device, 0, 0);
    if (status)
        um_igtl_status_write(&out, UM_IGTL_OK, 0, "", text);
    else if (strcmp(type, "STRING") == 0)
        um_igtl_string_write(&out, text);
    um_igtl_end(&out, &um_igtl_client, 1);
    return send_box(link, &out);
}
