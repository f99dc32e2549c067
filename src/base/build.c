/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* dl_iterate_phdr() */
#include "base/build.h"

#include "ultramotion/ultramotion.h"

#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static char id[2 * 32 + 1];

/* The notes of a segment: a head, name and content padded to words. */
static void read_notes(const unsigned char *at, size_t left)
{
    ElfW(Nhdr) note;
    while (left >= sizeof note && !id[0]) {
        memcpy(&note, at, sizeof note);
        size_t name = (note.n_namesz + 3u) / 4 * 4, content = (note.n_descsz + 3u) / 4 * 4;
        if (name > left - sizeof note || content > left - sizeof note - name)
            return;
        const unsigned char *desc = at + sizeof note + name;
        bool ours = note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
                    memcmp(at + sizeof note, "GNU", 4) == 0 && note.n_descsz <= sizeof id / 2;
        for (uint32_t i = 0; ours && i < note.n_descsz; i++)
            snprintf(id + 2 * i, 3, "%02x", desc[i]);
        at = desc + content;
        left -= sizeof note + name + content;
    }
}

/* The object, program or library, that contains this function. */
static int look(struct dl_phdr_info *object, size_t size, void *ctx)
{
    uintptr_t here = (uintptr_t)&um_build_id;
    bool inside = false;
    (void)size, (void)ctx;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        uintptr_t from = object->dlpi_addr + p->p_vaddr;
        inside = inside || (p->p_type == PT_LOAD && here >= from && here - from < p->p_memsz);
    }
    for (int i = 0; inside && i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        if (p->p_type == PT_NOTE)
            read_notes((const unsigned char *)object->dlpi_addr + p->p_vaddr, p->p_memsz);
    }
    return inside;
}

static void find(void)
{
    dl_iterate_phdr(look, NULL);
    if (!id[0])
        snprintf(id, sizeof id, "%s", um_version());
}

const char *um_build_id(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find);
    return id;
}
