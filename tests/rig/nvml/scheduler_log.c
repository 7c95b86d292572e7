// SPDX-License-Identifier: Apache-2.0
/* The scheduler's log: whom it let run, and for how long. */
#include "scheduler.h"

static nvmlReturn_t read_log(struct gpu *gpu, uint32_t gi, uint32_t engine, struct nvsim_sched *sched,
			     struct nvsim_log *log)
{
	TRY(scheduler_state(gpu, gi, engine, sched));
	*log = (struct nvsim_log){ .gi = gi, .engine = engine };
	TRY(gpu_ask(gpu, NVSIM_IOC_SCHED_LOG, log));
	if (log->count > NVML_SCHEDULER_SW_MAX_LOG_ENTRIES)
		log->count = NVML_SCHEDULER_SW_MAX_LOG_ENTRIES;
	return NVML_SUCCESS;
}

static void copy_entries(const struct nvsim_log *log, struct nvmlVgpuSchedulerLogEntry *entries)
{
	for (uint32_t index = 0; index < log->count; index++)
		entries[index] = (struct nvmlVgpuSchedulerLogEntry){
			.timestamp = log->list[index].timestamp_ns,
			.timeRunTotal = log->list[index].run_total_ns,
			.timeRun = log->list[index].run_ns,
			.swRunlistId = log->list[index].sw_runlist,
			.targetTimeSlice = log->list[index].target_slice_ns,
			.cumulativePreemptionTime = log->list[index].preemption_ns,
		};
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuSchedulerLog(nvmlDevice_t device, struct nvmlVgpuSchedulerLog *pSchedulerLog)
{
	struct nvsim_sched sched;
	struct nvsim_log log;
	struct gpu *gpu;

	CALL();
	REQUIRE(pSchedulerLog, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gpu(device, &gpu));
	TRY(read_log(gpu, NVSIM_NONE, NVML_VGPU_SCHEDULER_ENGINE_TYPE_GRAPHICS, &sched, &log));
	pSchedulerLog->engineId = NVML_VGPU_SCHEDULER_ENGINE_TYPE_GRAPHICS;
	pSchedulerLog->schedulerPolicy = sched.policy;
	pSchedulerLog->arrMode = sched.arr;
	pSchedulerLog->schedulerParams = scheduler_params(&sched);
	pSchedulerLog->entriesCount = log.count;
	copy_entries(&log, pSchedulerLog->logEntries);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetVgpuSchedulerLog(nvmlGpuInstance_t gpuInstance,
						       struct nvmlVgpuSchedulerLogInfo_v1 *pSchedulerLogInfo)
{
	struct nvsim_sched sched;
	struct nvsim_log log;
	struct gpu *gpu;
	uint32_t gi;

	CALL();
	REQUIRE(pSchedulerLogInfo, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pSchedulerLogInfo->version == nvmlVgpuSchedulerLogInfo_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(scheduler_of_gi(gpuInstance, &gpu, &gi));
	TRY(read_log(gpu, gi, pSchedulerLogInfo->engineId, &sched, &log));
	pSchedulerLogInfo->schedulerPolicy = sched.policy;
	pSchedulerLogInfo->arrMode = sched.arr;
	pSchedulerLogInfo->schedulerParams = scheduler_params(&sched);
	pSchedulerLogInfo->entriesCount = log.count;
	copy_entries(&log, pSchedulerLogInfo->logEntries);
	return NVML_SUCCESS;
}

static nvmlReturn_t read_v2(struct gpu *gpu, uint32_t gi, struct nvmlVgpuSchedulerLogInfo_v2 *info)
{
	struct nvsim_sched sched;
	struct nvsim_log log;

	TRY(read_log(gpu, gi, info->engineId, &sched, &log));
	info->schedulerPolicy = sched.policy;
	info->avgFactor = sched.avg_factor;
	info->timeslice = sched.timeslice_ns;
	info->entriesCount = log.count;
	for (uint32_t index = 0; index < log.count; index++)
		info->logEntries[index] = (struct nvmlVgpuSchedulerLogEntry_v2){
			.timestamp = log.list[index].timestamp_ns,
			.timeRunTotal = log.list[index].run_total_ns,
			.timeRun = log.list[index].run_ns,
			.swRunlistId = log.list[index].sw_runlist,
			.targetTimeSlice = log.list[index].target_slice_ns,
			.cumulativePreemptionTime = log.list[index].preemption_ns,
			.weight = 1,
		};
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuSchedulerLog_v2(nvmlDevice_t device,
						     struct nvmlVgpuSchedulerLogInfo_v2 *pSchedulerLogInfo)
{
	struct gpu *gpu;

	CALL();
	REQUIRE(pSchedulerLogInfo, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gpu(device, &gpu));
	return read_v2(gpu, NVSIM_NONE, pSchedulerLogInfo);
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetVgpuSchedulerLog_v2(nvmlGpuInstance_t gpuInstance,
							  struct nvmlVgpuSchedulerLogInfo_v2 *pSchedulerLogInfo)
{
	struct gpu *gpu;
	uint32_t gi;

	CALL();
	REQUIRE(pSchedulerLogInfo, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gi(gpuInstance, &gpu, &gi));
	return read_v2(gpu, gi, pSchedulerLogInfo);
}
