/* SPDX-License-Identifier: Apache-2.0 */
#include "ultramotion/ultramotion.h"

const char *um_version(void)
{
    return UM_VERSION;
}

int um_abi(void)
{
    return 18;
}
