/* SPDX-License-Identifier: Apache-2.0 */
/* Element types, for host and device code. */
#ifndef UM_DEVICE_DTYPE_H
#define UM_DEVICE_DTYPE_H

enum um_dtype { UM_F32, UM_F16, UM_BF16, UM_I32, UM_U8, UM_I8, UM_DTYPES };

#endif
