/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/queue.h"

#include "base/mem.h"

#include <string.h>

um_status um_queue_init(struct um_queue *q, int capacity)
{
    *q = (struct um_queue){.capacity = capacity};
    q->item = um_array((size_t)capacity, sizeof(void *));
    if (!q->item)
        return um_fail(UM_ENOMEM, "queue of %d", capacity);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    return UM_OK;
}

void um_queue_finish(struct um_queue *q)
{
    if (!q->item)
        return;
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    um_free(q->item);
    q->item = NULL;
}

static void *take(struct um_queue *q)
{
    void *item = q->item[0];
    memmove(q->item, q->item + 1, (size_t)--q->count * sizeof(void *));
    return item;
}

enum um_queue_put um_queue_put(struct um_queue *q, void *item, enum um_queue_full full, void **old)
{
    *old = NULL;
    pthread_mutex_lock(&q->lock);
    while (full == UM_QUEUE_WAIT && !q->left && q->count == q->capacity)
        pthread_cond_wait(&q->changed, &q->lock);
    if (full == UM_QUEUE_REPLACE && !q->left && q->count == q->capacity)
        *old = take(q);
    enum um_queue_put done = q->left                   ? UM_QUEUE_LEFT
                             : q->count == q->capacity ? UM_QUEUE_FULL
                                                       : UM_QUEUE_PUT;
    if (done == UM_QUEUE_PUT)
        q->item[q->count++] = item;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return done;
}

void *um_queue_take(struct um_queue *q, bool wait)
{
    pthread_mutex_lock(&q->lock);
    while (wait && !q->left && q->count == 0 && !q->ended)
        pthread_cond_wait(&q->changed, &q->lock);
    void *item = q->count > 0 ? take(q) : NULL;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return item;
}

bool um_queue_over(struct um_queue *q)
{
    pthread_mutex_lock(&q->lock);
    bool over = q->ended && q->count == 0;
    pthread_mutex_unlock(&q->lock);
    return over;
}

int um_queue_count(struct um_queue *q)
{
    pthread_mutex_lock(&q->lock);
    int count = q->count;
    pthread_mutex_unlock(&q->lock);
    return count;
}

static void set(struct um_queue *q, bool *flag)
{
    pthread_mutex_lock(&q->lock);
    *flag = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

void um_queue_end(struct um_queue *q)
{
    set(q, &q->ended);
}

void um_queue_leave(struct um_queue *q)
{
    set(q, &q->left);
}
