/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_IO_PATH_H
#define UM_IO_PATH_H

#include "base/status.h"

#include <stdbool.h>

/* "folder/name", freed with um_free(); NULL when memory ran out. */
char *um_path_join(const char *folder, const char *name);
/* "name" in the folder where the file at `path` lies; the same. */
char *um_path_beside(const char *path, const char *name);
/* Create a folder and those above it, or only these. UM_EIO names what could not be created. */
um_status um_path_make_folder(const char *path);
um_status um_path_make_parents(const char *path);
/* Create a folder and hold it, as long as *lock is open, against others that would write into it.
 * On error, and where it cannot be locked, *lock is -1. */
um_status um_path_hold_folder(const char *path, int *lock);
/* Has it a part ".."? */
bool um_path_steps_up(const char *path);
/* Does the path lead into the folder, not deeper? */
bool um_path_in(const char *folder, const char *path);

#endif
