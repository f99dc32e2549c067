/* SPDX-License-Identifier: Apache-2.0 */
#include "base/record.h"

#include <string.h>

static um_status check_size(size_t size, size_t own_size, const char *name)
{
    enum { LARGEST = 1 << 16 };
    if (size < sizeof size || size > LARGEST)
        return um_fail(UM_EINVAL,
                       "%s.struct_size is %zu: set it to sizeof(%s), %zu in this library", name,
                       size, name, own_size);
    return UM_OK;
}

um_status um_record_in(void *own, size_t own_size, const void *theirs, const char *name)
{
    if (!theirs)
        return UM_OK;
    size_t size;
    memcpy(&size, theirs, sizeof size);
    um_status st = check_size(size, own_size, name);
    const unsigned char *byte = theirs;
    for (size_t i = own_size; st == UM_OK && i < size; i++)
        if (byte[i])
            return um_fail(UM_EINVAL,
                           "%s has %zu bytes, this library knows %zu: byte %zu asks for something "
                           "that it does not have",
                           name, size, own_size, i);
    if (st != UM_OK)
        return st;
    memcpy(own, theirs, size < own_size ? size : own_size);
    memcpy(own, &own_size, sizeof own_size);
    return UM_OK;
}

um_status um_record_out(void *theirs, const void *own, size_t own_size, const char *name)
{
    size_t size;
    memcpy(&size, theirs, sizeof size);
    um_status st = check_size(size, own_size, name);
    if (st == UM_OK)
        um_record_init(theirs, size, own, own_size);
    return st;
}

void um_record_init(void *theirs, size_t their_size, const void *own, size_t own_size)
{
    if (their_size < sizeof their_size)
        return;
    memset(theirs, 0, their_size);
    memcpy(theirs, own, their_size < own_size ? their_size : own_size);
    memcpy(theirs, &their_size, sizeof their_size);
}
