/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_TOOLS_LIST_H
#define UM_TOOLS_LIST_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Room for one more element of `size` bytes behind the n of a list (T **) that grows by this alone.
 * False: no memory, and the list is as it was. */
static inline bool list_room(void *list, long n, size_t size)
{
    void *more;
    if (n & (n - 1)) /* it has room up to the next power of two */
        return true;
    memcpy(&more, list, sizeof more);
    more = realloc(more, (n ? 2 * (size_t)n : 1) * size);
    if (more)
        memcpy(list, &more, sizeof more);
    return more;
}

#endif
