/* SPDX-License-Identifier: Apache-2.0 */
/* The score of a detection, for plain C and for the GPU: the sigmoid of its logit, and the score of
 * a frame. Worked out in double and rounded once, since every library's expf has last bits of its
 * own. */
#ifndef UM_NN_SCORE_H
#define UM_NN_SCORE_H

#include <math.h>

#ifndef UM_SCORE /* a GPU's source says it in its own words */
#define UM_SCORE static inline
#endif

UM_SCORE float um_box_score(float logit)
{
    return (float)(1 / (1 + exp(-(double)logit)));
}

/* That one of several detections is right, where none = (1 - s1)(1 - s2)...: noisy-or (Pearl,
 * Probabilistic Reasoning in Intelligent Systems, 1988, 4.3.2), its odds scaled such that a
 * probability of `half` is a score of one half. */
UM_SCORE float um_presence(double none, double half)
{
    double any = (1 - none) * (1 - half);
    return (float)(any / (any + none * half));
}

#endif
