/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's ABI: the vGPU scheduler, as it was (v1) and as it is from API 13 on (v2). */
#ifndef ABI_SCHEDULER_H
#define ABI_SCHEDULER_H

#include "abi.h"

enum {
	NVML_VGPU_SCHEDULER_POLICY_BEST_EFFORT = 1,
	NVML_VGPU_SCHEDULER_POLICY_EQUAL_SHARE = 2,
	NVML_VGPU_SCHEDULER_POLICY_FIXED_SHARE = 3,
	NVML_SUPPORTED_VGPU_SCHEDULER_POLICY_COUNT = 3,
	NVML_SCHEDULER_SW_MAX_LOG_ENTRIES = 200,
	NVML_VGPU_SCHEDULER_ARR_DEFAULT = 0,
	NVML_VGPU_SCHEDULER_ARR_DISABLE = 1,
	NVML_VGPU_SCHEDULER_ARR_ENABLE = 2,
	NVML_VGPU_SCHEDULER_ENGINE_TYPE_GRAPHICS = 1,
	NVML_VGPU_SCHEDULER_ENGINE_TYPE_NVENC1 = 2,
	NVML_VGPU_SCHEDULER_ENGINE_TYPE_NVENC0 = 3,
};

struct nvmlVgpuSchedDataWithARR {
	uint32_t avgFactor;
	uint32_t timeslice;
};

struct nvmlVgpuSchedData {
	uint32_t timeslice;
};

union nvmlVgpuSchedulerParams {
	struct nvmlVgpuSchedDataWithARR vgpuSchedDataWithARR;
	struct nvmlVgpuSchedData vgpuSchedData;
};

struct nvmlVgpuSchedSetDataWithARR {
	uint32_t avgFactor;
	uint32_t frequency;
};

struct nvmlVgpuSchedSetData {
	uint32_t timeslice;
};

union nvmlVgpuSchedulerSetParams {
	struct nvmlVgpuSchedSetDataWithARR vgpuSchedDataWithARR;
	struct nvmlVgpuSchedSetData vgpuSchedData;
};

struct nvmlVgpuSchedulerCapabilities {
	uint32_t supportedSchedulers[NVML_SUPPORTED_VGPU_SCHEDULER_POLICY_COUNT];
	uint32_t maxTimeslice;
	uint32_t minTimeslice;
	uint32_t isArrModeSupported;
	uint32_t maxFrequencyForARR;
	uint32_t minFrequencyForARR;
	uint32_t maxAvgFactorForARR;
	uint32_t minAvgFactorForARR;
};

struct nvmlVgpuSchedulerGetState {
	uint32_t schedulerPolicy;
	uint32_t arrMode;
	union nvmlVgpuSchedulerParams schedulerParams;
};

struct nvmlVgpuSchedulerSetState {
	uint32_t schedulerPolicy;
	uint32_t enableARRMode;
	union nvmlVgpuSchedulerSetParams schedulerParams;
};

struct nvmlVgpuSchedulerState_v1 {
	uint32_t version;
	uint32_t engineId;
	uint32_t schedulerPolicy;
	uint32_t enableARRMode;
	union nvmlVgpuSchedulerSetParams schedulerParams;
};

enum { nvmlVgpuSchedulerState_v1 = VERSION_OF(nvmlVgpuSchedulerState_v1, 1) };

struct nvmlVgpuSchedulerStateInfo_v1 {
	uint32_t version;
	uint32_t engineId;
	uint32_t schedulerPolicy;
	uint32_t arrMode;
	union nvmlVgpuSchedulerParams schedulerParams;
};

enum { nvmlVgpuSchedulerStateInfo_v1 = VERSION_OF(nvmlVgpuSchedulerStateInfo_v1, 1) };

/* The v2 structures have no version field, and so no version number. */
struct nvmlVgpuSchedulerStateInfo_v2 {
	uint32_t engineId;
	uint32_t schedulerPolicy;
	uint32_t avgFactor;
	uint32_t timeslice;
};

struct nvmlVgpuSchedulerState_v2 {
	uint32_t engineId;
	uint32_t schedulerPolicy;
	uint32_t avgFactor;
	uint32_t frequency;
};

struct nvmlVgpuSchedulerLogEntry {
	uint64_t timestamp;
	uint64_t timeRunTotal;
	uint64_t timeRun;
	uint32_t swRunlistId;
	uint64_t targetTimeSlice;
	uint64_t cumulativePreemptionTime;
};

struct nvmlVgpuSchedulerLog {
	uint32_t engineId;
	uint32_t schedulerPolicy;
	uint32_t arrMode;
	union nvmlVgpuSchedulerParams schedulerParams;
	uint32_t entriesCount;
	struct nvmlVgpuSchedulerLogEntry logEntries[NVML_SCHEDULER_SW_MAX_LOG_ENTRIES];
};

struct nvmlVgpuSchedulerLogInfo_v1 {
	uint32_t version;
	uint32_t engineId;
	uint32_t schedulerPolicy;
	uint32_t arrMode;
	union nvmlVgpuSchedulerParams schedulerParams;
	uint32_t entriesCount;
	struct nvmlVgpuSchedulerLogEntry logEntries[NVML_SCHEDULER_SW_MAX_LOG_ENTRIES];
};

enum { nvmlVgpuSchedulerLogInfo_v1 = VERSION_OF(nvmlVgpuSchedulerLogInfo_v1, 1) };

struct nvmlVgpuSchedulerLogEntry_v2 {
	uint64_t timestamp;
	uint64_t timeRunTotal;
	uint64_t timeRun;
	uint32_t swRunlistId;
	uint64_t targetTimeSlice;
	uint64_t cumulativePreemptionTime;
	uint32_t weight;
};

struct nvmlVgpuSchedulerLogInfo_v2 {
	uint32_t engineId;
	uint32_t schedulerPolicy;
	uint32_t avgFactor;
	uint32_t timeslice;
	uint32_t entriesCount;
	struct nvmlVgpuSchedulerLogEntry_v2 logEntries[NVML_SCHEDULER_SW_MAX_LOG_ENTRIES];
};

#endif
