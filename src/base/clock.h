/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_BASE_CLOCK_H
#define UM_BASE_CLOCK_H

#include <stdint.h>

uint64_t um_clock_ns(void); /* monotonic */
double um_clock_unix(void); /* seconds since 1970 */

#endif
