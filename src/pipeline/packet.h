/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of packets. A pipeline's come from a pool, to which they return when their last reference
 * is dropped, so that in the steady state none is allocated; the pool outlives its owner until the
 * last of them has come back. */
#ifndef UM_PIPELINE_PACKET_H
#define UM_PIPELINE_PACKET_H

#include "base/status.h"
#include "ultramotion/packet.h"

typedef struct um_packet_pool um_packet_pool;

um_status um_packet_pool_open(um_packet_pool **out);
void um_packet_pool_close(um_packet_pool **pool); /* accepts NULL */

/* um_packet_create() with memory of a pool; pool NULL: of the heap. */
um_status um_packet_make(um_packet **out, um_packet_pool *pool, const um_packet *fields,
                         const um_object *const *objects, int n);

#endif
