// SPDX-License-Identifier: Apache-2.0
/*
 * The vGPU scheduler of GPUs and of GPU instances.
 *
 * v1 gives equal and fixed share a time slice, or with ARR (adaptive round robin) a frequency and an averaging
 * factor; v2 knows no time slice, and no way to turn ARR off (docs/hardware.md 4).
 */
#include "abi_scheduler.h"
#include "library.h"
#include "scheduler.h"

#define MS_IN_NS	1000000u

/* Schedulers are the device's while MIG is off, and the GPU instances' while it is on. */
nvmlReturn_t scheduler_of_gpu(nvmlDevice_t device, struct gpu **gpu)
{
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;

	*gpu = gpu_of(device);
	REQUIRE(*gpu, NVML_ERROR_INVALID_ARGUMENT);
	model = facts_of_gpu(*gpu, &state, &code);
	REQUIRE(model, code);
	return model->schedulers && !state.mig_current ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t scheduler_of_gi(nvmlGpuInstance_t handle, struct gpu **gpu, uint32_t *id)
{
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	struct nvsim_gi gi;
	nvmlReturn_t code;

	*gpu = gpu_of_gi(handle, id);
	REQUIRE(*gpu, NVML_ERROR_INVALID_ARGUMENT);
	model = facts_of_gpu(*gpu, &state, &code);
	REQUIRE(model, code);
	TRY(find_gi(*gpu, *id, &gi));
	return model->mig_timesliced ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t scheduler_state(struct gpu *gpu, uint32_t gi, uint32_t engine, struct nvsim_sched *sched)
{
	REQUIRE(engine >= NVML_VGPU_SCHEDULER_ENGINE_TYPE_GRAPHICS &&
		engine <= NVML_VGPU_SCHEDULER_ENGINE_TYPE_NVENC0, NVML_ERROR_INVALID_ARGUMENT);
	*sched = (struct nvsim_sched){ .gi = gi, .engine = engine };
	return gpu_ask(gpu, NVSIM_IOC_SCHED_GET, sched);
}

union nvmlVgpuSchedulerParams scheduler_params(const struct nvsim_sched *sched)
{
	union nvmlVgpuSchedulerParams params = { .vgpuSchedData.timeslice = sched->timeslice_ns };

	if (sched->arr != NVML_VGPU_SCHEDULER_ARR_DISABLE)
		params.vgpuSchedDataWithARR = (struct nvmlVgpuSchedDataWithARR){
			.avgFactor = sched->avg_factor,
			.timeslice = sched->timeslice_ns,
		};
	return params;
}

/* That a vGPU is in the way is "not supported" to NVML's scheduler functions. */
static nvmlReturn_t set(struct gpu *gpu, struct nvsim_sched *sched)
{
	nvmlReturn_t code;

	REQUIRE(sched->policy >= NVML_VGPU_SCHEDULER_POLICY_BEST_EFFORT &&
		sched->policy <= NVML_VGPU_SCHEDULER_POLICY_FIXED_SHARE &&
		sched->arr <= NVML_VGPU_SCHEDULER_ARR_ENABLE, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	code = gpu_ask(gpu, NVSIM_IOC_SCHED_SET, sched);
	return code == NVML_ERROR_IN_USE ? NVML_ERROR_NOT_SUPPORTED : code;
}

static void take_params(struct nvsim_sched *sched, const union nvmlVgpuSchedulerSetParams *params)
{
	if (sched->arr == NVML_VGPU_SCHEDULER_ARR_DISABLE) {
		sched->timeslice_ns = params->vgpuSchedData.timeslice;
	} else {
		sched->avg_factor = params->vgpuSchedDataWithARR.avgFactor;
		sched->frequency = params->vgpuSchedDataWithARR.frequency;
	}
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuSchedulerCapabilities(nvmlDevice_t device,
							   struct nvmlVgpuSchedulerCapabilities *pCapabilities)
{
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && pCapabilities, NVML_ERROR_INVALID_ARGUMENT);
	model = facts_of_gpu(gpu, &state, &code);
	REQUIRE(model, code);
	REQUIRE(model->schedulers, NVML_ERROR_NOT_SUPPORTED);
	*pCapabilities = (struct nvmlVgpuSchedulerCapabilities){
		.supportedSchedulers = { NVML_VGPU_SCHEDULER_POLICY_BEST_EFFORT,
					 NVML_VGPU_SCHEDULER_POLICY_EQUAL_SHARE,
					 /* not in mixed-size mode */
					 state.mixed ? 0 : NVML_VGPU_SCHEDULER_POLICY_FIXED_SHARE },
		.maxTimeslice = 30 * MS_IN_NS,
		.minTimeslice = 1 * MS_IN_NS,
		.isArrModeSupported = 1,
		.maxFrequencyForARR = 960,
		.minFrequencyForARR = 63,
		.maxAvgFactorForARR = 60,
		.minAvgFactorForARR = 1,
	};
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuSchedulerState(nvmlDevice_t device, struct nvmlVgpuSchedulerGetState *pSchedulerState)
{
	struct nvsim_sched sched;
	struct gpu *gpu;

	CALL();
	REQUIRE(pSchedulerState, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gpu(device, &gpu));
	TRY(scheduler_state(gpu, NVSIM_NONE, NVML_VGPU_SCHEDULER_ENGINE_TYPE_GRAPHICS, &sched));
	*pSchedulerState = (struct nvmlVgpuSchedulerGetState){
		.schedulerPolicy = sched.policy,
		.arrMode = sched.arr,
		.schedulerParams = scheduler_params(&sched),
	};
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceSetVgpuSchedulerState(nvmlDevice_t device, struct nvmlVgpuSchedulerSetState *pSchedulerState)
{
	struct nvsim_sched sched;
	struct gpu *gpu;

	CALL();
	REQUIRE(pSchedulerState, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gpu(device, &gpu));
	sched = (struct nvsim_sched){
		.gi = NVSIM_NONE,
		.engine = NVML_VGPU_SCHEDULER_ENGINE_TYPE_GRAPHICS,
		.policy = pSchedulerState->schedulerPolicy,
		.arr = pSchedulerState->enableARRMode,
	};
	take_params(&sched, &pSchedulerState->schedulerParams);
	return set(gpu, &sched);
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetVgpuSchedulerState(nvmlGpuInstance_t gpuInstance,
							 struct nvmlVgpuSchedulerStateInfo_v1 *pSchedulerStateInfo)
{
	struct nvsim_sched sched;
	struct gpu *gpu;
	uint32_t gi;

	CALL();
	REQUIRE(pSchedulerStateInfo, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pSchedulerStateInfo->version == nvmlVgpuSchedulerStateInfo_v1,
		NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(scheduler_of_gi(gpuInstance, &gpu, &gi));
	TRY(scheduler_state(gpu, gi, pSchedulerStateInfo->engineId, &sched));
	pSchedulerStateInfo->schedulerPolicy = sched.policy;
	pSchedulerStateInfo->arrMode = sched.arr;
	pSchedulerStateInfo->schedulerParams = scheduler_params(&sched);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceSetVgpuSchedulerState(nvmlGpuInstance_t gpuInstance,
							 struct nvmlVgpuSchedulerState_v1 *pScheduler)
{
	struct nvsim_sched sched;
	struct gpu *gpu;
	uint32_t gi;

	CALL();
	REQUIRE(pScheduler, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pScheduler->version == nvmlVgpuSchedulerState_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(scheduler_of_gi(gpuInstance, &gpu, &gi));
	TRY(scheduler_state(gpu, gi, pScheduler->engineId, &sched));
	sched.policy = pScheduler->schedulerPolicy;
	sched.arr = pScheduler->enableARRMode;
	take_params(&sched, &pScheduler->schedulerParams);
	return set(gpu, &sched);
}

static nvmlReturn_t get_v2(struct gpu *gpu, uint32_t gi, struct nvmlVgpuSchedulerStateInfo_v2 *info)
{
	struct nvsim_sched sched;

	TRY(scheduler_state(gpu, gi, info->engineId, &sched));
	info->schedulerPolicy = sched.policy;
	info->avgFactor = sched.avg_factor;
	info->timeslice = sched.timeslice_ns;
	return NVML_SUCCESS;
}

static nvmlReturn_t set_v2(struct gpu *gpu, uint32_t gi, const struct nvmlVgpuSchedulerState_v2 *state)
{
	struct nvsim_sched sched;

	TRY(scheduler_state(gpu, gi, state->engineId, &sched));
	sched.policy = state->schedulerPolicy;
	sched.arr = NVML_VGPU_SCHEDULER_ARR_DEFAULT;
	sched.avg_factor = state->avgFactor;
	sched.frequency = state->frequency;
	return set(gpu, &sched);
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuSchedulerState_v2(nvmlDevice_t device,
						       struct nvmlVgpuSchedulerStateInfo_v2 *pSchedulerStateInfo)
{
	struct gpu *gpu;

	CALL();
	REQUIRE(pSchedulerStateInfo, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gpu(device, &gpu));
	return get_v2(gpu, NVSIM_NONE, pSchedulerStateInfo);
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetVgpuSchedulerState_v2(nvmlGpuInstance_t gpuInstance,
							    struct nvmlVgpuSchedulerStateInfo_v2 *pSchedulerStateInfo)
{
	struct gpu *gpu;
	uint32_t gi;

	CALL();
	REQUIRE(pSchedulerStateInfo, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gi(gpuInstance, &gpu, &gi));
	return get_v2(gpu, gi, pSchedulerStateInfo);
}

EXPORT nvmlReturn_t nvmlDeviceSetVgpuSchedulerState_v2(nvmlDevice_t device,
						       struct nvmlVgpuSchedulerState_v2 *pSchedulerState)
{
	struct gpu *gpu;

	CALL();
	REQUIRE(pSchedulerState, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gpu(device, &gpu));
	return set_v2(gpu, NVSIM_NONE, pSchedulerState);
}

EXPORT nvmlReturn_t nvmlGpuInstanceSetVgpuSchedulerState_v2(nvmlGpuInstance_t gpuInstance,
							    struct nvmlVgpuSchedulerState_v2 *pSchedulerState)
{
	struct gpu *gpu;
	uint32_t gi;

	CALL();
	REQUIRE(pSchedulerState, NVML_ERROR_INVALID_ARGUMENT);
	TRY(scheduler_of_gi(gpuInstance, &gpu, &gi));
	return set_v2(gpu, gi, pSchedulerState);
}
