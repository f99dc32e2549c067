/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/budget.h"

enum {
    MEMORY = 8,   /* frames of which ... */
    TOO_MANY = 3, /* ... so many are late before less is done */
    LEAST = 4,    /* heartbeats in time before more is done */
    MOST = 64,    /* the same, after it went wrong again and again */
    REPEATS = 2   /* at most, between two frames with work */
};
static const double ROOM = 0.8; /* of the budget: what must suffice before more is done */

bool um_budget_repeats(const struct um_budget *b)
{
    return b->effort == UM_EFFORT_REPEAT && b->repeated < REPEATS;
}

static void go_to(struct um_budget *b, um_effort effort)
{
    b->effort = effort;
    b->late = 0;
    b->in_time = 0;
}

/* Frames with the detector say what full work takes, those without what following does. */
static bool is_of(const struct um_budget_frame *f, um_effort effort)
{
    return effort == UM_EFFORT_FULL || !f->detected;
}

void um_budget_step(struct um_budget *b, double budget_ms, const struct um_budget_frame *f)
{
    if (f->repeated) {
        b->repeated++;
        return;
    }
    b->repeated = 0;
    if (!b->patience)
        b->patience = LEAST;
    if (b->trial > 0 && --b->trial == 0 && b->patience > LEAST) { /* it went well for so long */
        b->patience /= 2;
        b->trial = b->patience * UM_BUDGET_HEARTBEAT;
    }
    if (is_of(f, b->effort))
        b->late = (b->late << 1 | (f->latency_ms > budget_ms)) & ((1u << MEMORY) - 1);
    if (b->effort < UM_EFFORT_REPEAT && __builtin_popcount(b->late) >= TOO_MANY) {
        if (b->trial > 0) /* it was too early */
            b->patience = b->patience * 2 < MOST ? b->patience * 2 : MOST;
        b->trial = 0;
        go_to(b, (um_effort)(b->effort + 1));
        return;
    }
    if (b->effort == UM_EFFORT_FULL)
        return;
    bool proof = f->detected == (b->effort == UM_EFFORT_FOLLOW);
    int need = b->patience * (b->effort == UM_EFFORT_FOLLOW ? 1 : UM_BUDGET_HEARTBEAT);
    if (proof)
        b->in_time = f->latency_ms <= ROOM * budget_ms ? b->in_time + 1 : 0;
    if (b->in_time >= need) {
        b->trial = b->patience * UM_BUDGET_HEARTBEAT;
        go_to(b, (um_effort)(b->effort - 1));
    }
}
