/* SPDX-License-Identifier: Apache-2.0 */
/* The viewer's files, which lie in src/web/page; cmake/embed.cmake makes them part of the library.
 */
#ifndef UM_WEB_PAGE_H
#define UM_WEB_PAGE_H

#include <stddef.h>

struct um_web_page {
    const char *path, *type;
    const unsigned char *data;
    size_t size;
};
extern const struct um_web_page um_web_pages[];
extern const size_t um_web_page_count;

#endif
