/* SPDX-License-Identifier: Apache-2.0 */
/* The score of a detection, for plain C and for the GPU: the sigmoid of its logit, worked out in
 * double and rounded once, since every library's expf has last bits of its own. */
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

#endif
