/* SPDX-License-Identifier: Apache-2.0 */
/* Names of classes as one text, in the order of the labels: with commas between them, or, where a
 * name would not survive that, as a JSON list. */
#ifndef UM_WEIGHTS_LABELS_H
#define UM_WEIGHTS_LABELS_H

#include "base/status.h"

/* name[i] may be NULL. *out is freed with um_free(). */
um_status um_labels_print(const char *const *name, int n, char **out);
/* name[0..n-1] becomes names of their own or NULL; UM_EFORMAT unless there are n of them. A plain
 * number is a count and names nothing. On failure too, they are the caller's to free. */
um_status um_labels_read(const char *text, char **name, int n);
/* One name per line of a text file; UM_EFORMAT unless there are n of them. */
um_status um_labels_read_file(const char *path, char **name, int n);

#endif
