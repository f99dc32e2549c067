/* SPDX-License-Identifier: Apache-2.0 */
/* Lines on stderr while a run goes on: one that nobody reads is left out and counted, for neither
 * frames nor the end wait for a reader. Threads: any. */
#ifndef UM_TELL_H
#define UM_TELL_H

#include <stdbool.h>
#include <stdint.h>

/* Of a source that is read round and round, what was said of it: zero at first. */
struct told {
    uint64_t text[256]; /* their hashes, the last ones */
    uint64_t n;
};
/* Was it said before? It was from now on. */
bool told_before(struct told *t, const char *text);

void tell(const char *text); /* behind "ultramotion: ", without what a terminal would obey */
void tell_line(const char *prefix, const char *text);
/* How far it is, on a terminal, a few times a second; what is told next takes the line's place.
 * all: 0 or less where nobody knows. */
void tell_progress(uint64_t done, long all, const char *more);
void tell_progress_end(void); /* that line stays */
/* The run is over: who does not read within a second gets nothing any more. */
void tell_end(void);

#endif
