/* SPDX-License-Identifier: Apache-2.0 */
/* The transfer ledger. A ledger is a value that belongs to whoever wants to know: one frame of a
 * pipeline, one prediction. While a thread has bound one, every copy and wait of that thread is
 * booked in it; all of them are booked in the device's totals. */
#ifndef UM_DEVICE_LEDGER_H
#define UM_DEVICE_LEDGER_H

#include "ultramotion/device.h"

#include <stdbool.h>

/* Who is responsible for a transfer. Setup copies are outside frames; what is for debugging is not
 * booked. */
enum um_stage {
    UM_STAGE_SETUP,
    UM_STAGE_UPLOAD,
    UM_STAGE_DETECT,
    UM_STAGE_SEGMENT,
    UM_STAGE_PACKET,
    UM_STAGE_DEBUG,
    UM_STAGES
};
const char *um_stage_name(enum um_stage stage);

struct um_booking {
    bool up;
    enum um_stage stage;
    uint64_t bytes;
    const char *reason; /* static string: what the transfer is for */
};

/* The first booked transfer beyond a limit, for the message. */
struct um_violation {
    bool found;
    enum um_stage stage;
    const char *direction; /* "up" or "down" */
    const char *reason;
    uint32_t count, limit;
};

typedef struct um_ledger {
    um_transfers count;
    int limit_up, limit_down; /* most copies; negative = no limit */
    struct um_violation violation;
} um_ledger;

/* An empty ledger for work on `dev`. */
um_ledger um_ledger_new(const um_device *dev, int limit_up, int limit_down);
/* From now on this thread books in l (NULL: in the totals only). Returns the one before, to be
 * bound again afterwards. */
um_ledger *um_ledger_bind(um_ledger *l);

/* For device.c, with the device locked. */
void um_ledger_copy(um_device *dev, const struct um_booking *b);
void um_ledger_wait(um_device *dev, enum um_stage stage);

#endif
