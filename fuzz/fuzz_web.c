/* SPDX-License-Identifier: Apache-2.0 */
/* What of HTTP and WebSocket is read by us: headers (lines, in this order: Host, Origin,
 * Authorization, ?token=, Content-Type) and, behind them, a body. */
#include "base/mem.h"
#include "web/request.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADERS = 5, LONGEST = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char token[] = "0123456789abcdef";
    char header[HEADERS][LONGEST] = {{0}};
    struct um_web_control control;
    struct um_web_message message;
    size_t at = 0;
    for (int i = 0; i < HEADERS && at < size; i++) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t n = end ? (size_t)(end - data) - at : size - at;
        memcpy(header[i], data + at, n < LONGEST - 1 ? n : LONGEST - 1);
        at += n + (end != NULL);
    }
    bool host = um_web_host_good(header[0], "probe.ward,other");
    if (host && strpbrk(header[0], "/@?#\\ ")) /* a name of nobody's */
        abort();
    if (um_web_origin_good(header[1], header[0]) && header[1][0] &&
        strlen(header[1]) <= strlen(header[0]))
        abort();
    if (um_web_token_good(token, header[2], header[3]) && !strstr(header[2], token) &&
        strcmp(header[3], token) != 0)
        abort();
    (void)um_web_is_json(header[4]);
    const char *body = (const char *)data + at;
    for (int round = 0; round < 2; round++) {
        um_mem_fail_at(round ? 1 + size % 3 : 0);
        if (um_web_control_read(&control, body, size - at) == UM_OK &&
            (control.n < 1 || control.n > 3))
            abort();
        (void)um_web_message_read(&message, body, size - at);
    }
    um_mem_fail_at(0);
    return 0;
}
