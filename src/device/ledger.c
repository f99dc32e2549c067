/* SPDX-License-Identifier: Apache-2.0 */
#include "device/backend.h"

const char *um_stage_name(enum um_stage stage)
{
    switch (stage) {
    case UM_STAGE_SETUP: return "setup";
    case UM_STAGE_UPLOAD: return "upload";
    case UM_STAGE_DETECT: return "detect";
    case UM_STAGE_SEGMENT: return "segment";
    case UM_STAGE_PACKET: return "packet";
    case UM_STAGE_DEBUG: return "debug";
    case UM_STAGES: break;
    }
    return "unknown stage";
}

static _Thread_local um_ledger *bound;

um_ledger um_ledger_new(const um_device *dev, int limit_up, int limit_down)
{
    return (um_ledger){
        .count.shared = dev->caps.shared, .limit_up = limit_up, .limit_down = limit_down};
}

um_ledger *um_ledger_bind(um_ledger *l)
{
    um_ledger *before = bound;
    bound = l;
    return before;
}

static void count(um_transfers *t, const struct um_booking *b)
{
    if (b->stage == UM_STAGE_SETUP) {
        t->setup++;
        return;
    }
    *(b->up ? &t->up : &t->down) += 1;
    *(b->up ? &t->up_bytes : &t->down_bytes) += b->bytes;
}

static void hold_against_limit(um_ledger *l, const struct um_booking *b)
{
    int limit = b->up ? l->limit_up : l->limit_down;
    uint32_t n = b->up ? l->count.up : l->count.down;
    if (b->stage == UM_STAGE_SETUP || limit < 0 || n <= (uint32_t)limit || l->violation.found)
        return;
    l->violation = (struct um_violation){.found = true,
                                         .stage = b->stage,
                                         .direction = b->up ? "up" : "down",
                                         .reason = b->reason,
                                         .count = n,
                                         .limit = (uint32_t)limit};
}

void um_ledger_copy(um_device *dev, const struct um_booking *b)
{
    if (dev->caps.shared || b->stage == UM_STAGE_DEBUG)
        return;
    count(&dev->total, b);
    if (!bound)
        return;
    count(&bound->count, b);
    hold_against_limit(bound, b);
}

void um_ledger_wait(um_device *dev, enum um_stage stage)
{
    if (dev->caps.shared || stage == UM_STAGE_SETUP || stage == UM_STAGE_DEBUG)
        return;
    dev->total.waits++;
    if (bound)
        bound->count.waits++;
}
