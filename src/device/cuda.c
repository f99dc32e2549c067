/* SPDX-License-Identifier: Apache-2.0 */
/* NVIDIA GPUs through the driver API. */
#include "device/backend.h"

int um_cuda_count(void)
{
    return 0;
}

um_status um_cuda_open(um_device **out, const um_device_settings *s, int ordinal)
{
    *out = NULL;
    (void)ordinal;
    return um_fail(UM_EUNSUPPORTED, "device %s: not in this build (built without GPU kernels)",
                   s->name);
}
