// SPDX-License-Identifier: Apache-2.0
/* Modes of a GPU: virtualisation, MIG, and the mixed-size mode of GPUs and GPU instances. */
#include "abi_mig.h"
#include "abi_vgpu.h"
#include "library.h"

EXPORT nvmlReturn_t nvmlDeviceGetVirtualizationMode(nvmlDevice_t device, uint32_t *pVirtualMode)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && pVirtualMode, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	*pVirtualMode = NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU;
	return NVML_SUCCESS;
}

/* The vGPU host driver has but one mode. */
EXPORT nvmlReturn_t nvmlDeviceSetVirtualizationMode(nvmlDevice_t device, uint32_t virtualMode)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && virtualMode <= NVML_GPU_VIRTUALIZATION_MODE_HOST_VSGA, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	return virtualMode == NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetHostVgpuMode(nvmlDevice_t device, uint32_t *pHostVgpuMode)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && pHostVgpuMode, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	*pHostVgpuMode = state.sriov ? NVML_HOST_VGPU_MODE_SRIOV : NVML_HOST_VGPU_MODE_NON_SRIOV;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, uint32_t *currentMode, uint32_t *pendingMode)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && currentMode && pendingMode, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	REQUIRE(state.mig_capable, NVML_ERROR_NOT_SUPPORTED);
	*currentMode = state.mig_current;
	*pendingMode = state.mig_pending;
	return NVML_SUCCESS;
}

/* Success says that the mode is pending; whether it is in force is the second answer. */
EXPORT nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, uint32_t mode, nvmlReturn_t *activationStatus)
{
	struct nvsim_mig mig = { .enable = mode };
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && activationStatus && mode <= NVML_DEVICE_MIG_ENABLE, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	REQUIRE(state.mig_capable, NVML_ERROR_NOT_SUPPORTED);
	TRY(gpu_ask(gpu, NVSIM_IOC_MIG, &mig));
	*activationStatus = (nvmlReturn_t)mig.status;
	return NVML_SUCCESS;
}

static nvmlReturn_t require_mixed_gpu(struct gpu *gpu, struct nvsim_gpu *state)
{
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, state));
	return state->mixed_capable && !state->mig_current ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuHeterogeneousMode(nvmlDevice_t device,
						       struct nvmlVgpuHeterogeneousMode_v1 *pHeterogeneousMode)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && pHeterogeneousMode, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pHeterogeneousMode->version == VgpuHeterogeneousMode_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(require_mixed_gpu(gpu, &state));
	pHeterogeneousMode->mode = state.mixed;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceSetVgpuHeterogeneousMode(nvmlDevice_t device,
						       const struct nvmlVgpuHeterogeneousMode_v1 *pHeterogeneousMode)
{
	struct nvsim_mixed mixed = { .gi = NVSIM_NONE };
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && pHeterogeneousMode, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pHeterogeneousMode->version == VgpuHeterogeneousMode_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	REQUIRE(pHeterogeneousMode->mode <= NVML_FEATURE_ENABLED, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(require_mixed_gpu(gpu, &state));
	mixed.enable = pHeterogeneousMode->mode;
	return gpu_ask(gpu, NVSIM_IOC_MIXED, &mixed);
}

/* Only GPUs that share an instance between several vGPUs have a mode per instance. */
static nvmlReturn_t require_timesliced_gi(struct gpu *gpu, uint32_t id, struct nvsim_gi *gi)
{
	struct nvsim_gpu state;
	nvmlReturn_t code;
	const struct nvsim_model *model = facts_of_gpu(gpu, &state, &code);

	REQUIRE(model, code);
	TRY(find_gi(gpu, id, gi));
	return model->mig_timesliced ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetVgpuHeterogeneousMode(nvmlGpuInstance_t gpuInstance,
							    struct nvmlVgpuHeterogeneousMode_v1 *pHeterogeneousMode)
{
	struct nvsim_gi gi;
	struct gpu *gpu;
	uint32_t id;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &id);
	REQUIRE(gpu && pHeterogeneousMode, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pHeterogeneousMode->version == VgpuHeterogeneousMode_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(require_timesliced_gi(gpu, id, &gi));
	pHeterogeneousMode->mode = gi.mixed;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceSetVgpuHeterogeneousMode(nvmlGpuInstance_t gpuInstance,
							    const struct nvmlVgpuHeterogeneousMode_v1 *pHeterogeneousMode)
{
	struct nvsim_mixed mixed;
	struct nvsim_gi gi;
	struct gpu *gpu;
	uint32_t id;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &id);
	REQUIRE(gpu && pHeterogeneousMode, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pHeterogeneousMode->version == VgpuHeterogeneousMode_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	REQUIRE(pHeterogeneousMode->mode <= NVML_FEATURE_ENABLED, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(require_timesliced_gi(gpu, id, &gi));
	mixed = (struct nvsim_mixed){ .gi = id, .enable = pHeterogeneousMode->mode };
	return gpu_ask(gpu, NVSIM_IOC_MIXED, &mixed);
}
