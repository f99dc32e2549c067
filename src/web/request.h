/* SPDX-License-Identifier: Apache-2.0 */
/* Who may ask what: pure functions of what a browser, or somebody else, has sent. */
#ifndef UM_WEB_REQUEST_H
#define UM_WEB_REQUEST_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { UM_WEB_BODY = 4096, UM_WEB_MESSAGE = 1024, UM_WEB_TOKEN = 128 };

/* The header Host: an address, "localhost", or one of `names` (commas between them), each with any
 * port. A page of a stranger's name that was made to point here has that name in it. */
bool um_web_host_good(const char *host, const char *names);
/* The header Origin, "" without one: nobody's (then no page asks), or the page that we gave. */
bool um_web_origin_good(const char *origin, const char *host);
/* "Bearer TOKEN" of the header Authorization, or the value of ?token=; both may be "". Takes as
 * long for every wrong one. */
bool um_web_token_good(const char *token, const char *authorization, const char *argument);
/* Media type application/json, with parameters or without. */
bool um_web_is_json(const char *content_type);

/* The body of POST /control. */
enum { UM_WEB_KEYS = 3 };
struct um_web_control {
    int n;
    const char *key[UM_WEB_KEYS]; /* each once, of the program's own memory */
    double value[UM_WEB_KEYS];
};
um_status um_web_control_read(struct um_web_control *out, const char *text, size_t size);

/* What a viewer says over its WebSocket. */
struct um_web_message {
    bool has_stream, stream; /* it wants frames, or none */
    bool has_ping;
    double ping; /* its own clock, sent back with ours */
};
um_status um_web_message_read(struct um_web_message *out, const char *text, size_t size);

#endif
