/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_BUILD_H
#define UM_BASE_BUILD_H

/* What tells this build of the library from any other: the linker's build id as hex digits, or,
 * where it wrote none, the version. Static. Threads: any. */
const char *um_build_id(void);

#endif
