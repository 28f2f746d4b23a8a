/* SPDX-License-Identifier: MIT */
/* What channel.c and the two transports are to each other. On the channel's worker. */
#ifndef FS_TRANSPORT_H
#define FS_TRANSPORT_H

#include "fs/channel.h"

/*
 * A request has arrived: counts it and serves it in a task of its own. Where there is no memory for
 * one it is answered so. Either way it is released by request->ops->release().
 */
void channel_request(struct channel *channel, struct request *request);

/* Takes what has arrived by descriptor, a bounded number of requests; true: perhaps there is more.
 */
bool poll_take(struct channel *channel);
/* Queues the poll that wakes the worker, unless one is under way. */
void poll_arm(struct channel *channel);
/* Cancels the poll and waits for its end. In a task. */
void poll_disarm(struct channel *channel);

#endif
