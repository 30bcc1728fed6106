/* SPDX-License-Identifier: Apache-2.0 */
/* Counts what a core's queue had no room for. XDP is not told: it hands over packets in bulk, after the program has
 * returned, and only this tracepoint says what became of them. */
#include <uapi/linux/bpf.h>

/* xdp:xdp_cpumap_enqueue(int map_id, unsigned int processed, unsigned int drops, int to_cpu), include/trace/events/xdp.h */
int firsthop_overflow(struct bpf_raw_tracepoint_args *ctx)
{
    u32 map = ctx->args[0], drops = ctx->args[2], cpu = ctx->args[3], first = 0;

    if (!drops)
        return 0;
    u32 *ours = queues.lookup(&first);
    if (!ours || *ours != map)
        return 0;
    u64 *counter = overflow.lookup(&cpu);
    if (counter)
        *counter += drops;
    return 0;
}
