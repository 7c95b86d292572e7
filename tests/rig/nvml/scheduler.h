/* SPDX-License-Identifier: Apache-2.0 */
/* What the scheduler's state and its log have in common. */
#ifndef SCHEDULER_H
#define SCHEDULER_H

#include "abi_scheduler.h"
#include "library.h"

nvmlReturn_t scheduler_of_gpu(nvmlDevice_t device, struct gpu **gpu);
nvmlReturn_t scheduler_of_gi(nvmlGpuInstance_t handle, struct gpu **gpu, uint32_t *id);
nvmlReturn_t scheduler_state(struct gpu *gpu, uint32_t gi, uint32_t engine, struct nvsim_sched *sched);
union nvmlVgpuSchedulerParams scheduler_params(const struct nvsim_sched *sched);

#endif
