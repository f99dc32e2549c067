/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/op_table.h"

#include <string.h>

static um_status check_precision(enum um_dtype layers, const struct um_ops *ops)
{
    if (layers == UM_I8 && !ops->int8)
        return um_fail(UM_EUNSUPPORTED,
                       "precision int8: level %s of this processor has none (AVX-VNNI, AVX-512 "
                       "VNNI and arm64's dot products have), want fp32",
                       ops->name);
    if (layers == UM_BF16 && !ops->bf16)
        return um_fail(
            UM_EUNSUPPORTED,
            "precision bf16: on level %s of this processor it is no quicker (with AMX it "
            "is, and with AMD's AVX-512 BF16), want fp32%s",
            ops->name, ops->int8 ? " or int8" : "");
    return UM_OK;
}

um_status um_ops_attach(um_device *dev)
{
    const struct um_ops *ops = NULL;
    um_status st = UM_OK;
    um_device_lock(dev);
    if (!dev->ops) { /* written once: whoever has a tape reads it without the lock */
        st = dev->caps.launches ? um_ops_choose_gpu(dev, &ops) : um_ops_choose(&ops);
        if (st == UM_OK)
            st = check_precision(dev->layers, ops);
        if (st == UM_OK && dev->choose && ops->narrow == UM_NARROW_TILES)
            dev->layers = UM_BF16;
        dev->isa = st == UM_OK ? ops->name : dev->isa;
        dev->ops = st == UM_OK ? ops : NULL;
    }
    um_device_unlock(dev);
    return st;
}

const char *um_device_isa(const um_device *device)
{
    um_device *dev = (um_device *)(uintptr_t)device;
    if (!dev)
        return "";
    um_device_lock(dev);
    const char *isa = dev->isa || um_ops_attach(dev) == UM_OK ? dev->isa : "none";
    um_device_unlock(dev);
    return isa;
}

const char *um_device_precision(const um_device *device)
{
    if (!device)
        return "";
    if (device->caps.launches)
        return um_precision_name(device->precision);
    um_device_isa(device); /* which the choice hangs on */
    return um_precision_name(device->layers);
}

const char *um_device_precision_reason(const um_device *device)
{
    if (!device)
        return "";
    if (!device->choose)
        return "asked for";
    if (device->caps.launches)
        return "tensor cores";
    return strcmp(um_device_precision(device), "bf16") == 0 ? "AMX" : "no AMX";
}
