/* SPDX-License-Identifier: Apache-2.0 */
/* A build without GPU kernels. */
#include "device/cuda_driver.h"

const struct um_cuda_image um_cuda_images[1];
