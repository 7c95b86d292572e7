// SPDX-License-Identifier: Apache-2.0
/* What driver, GPU and vGPU type can do; a capability that is not simulated is none. */
#include "abi_vgpu.h"
#include "library.h"

EXPORT nvmlReturn_t nvmlGetVgpuDriverCapabilities(uint32_t capability, uint32_t *capResult)
{
	CALL();
	REQUIRE(capResult && capability < NVML_VGPU_DRIVER_CAP_COUNT, NVML_ERROR_INVALID_ARGUMENT);
	*capResult = capability == NVML_VGPU_DRIVER_CAP_HETEROGENEOUS_MULTI_VGPU;
	return NVML_SUCCESS;
}

/* Whether the driver tells placements of equal-size vGPUs: asked for a type that is not MIG-backed. */
static bool has_homogeneous_placements(struct gpu *gpu, const struct nvsim_model *model)
{
	for (unsigned int index = 0; index < model->ntypes; index++) {
		struct nvsim_placements placements = {
			.type = model->types[index].id, .gi = NVSIM_NONE, .homogeneous = 1,
		};

		if (model->types[index].gi_profile == NVSIM_NO_PROFILE)
			return !gpu_ask(gpu, NVSIM_IOC_PLACEMENTS, &placements) && placements.count;
	}
	return false;
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuCapabilities(nvmlDevice_t device, uint32_t capability, uint32_t *capResult)
{
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && capResult && capability < NVML_DEVICE_VGPU_CAP_COUNT, NVML_ERROR_INVALID_ARGUMENT);
	model = facts_of_gpu(gpu, &state, &code);
	REQUIRE(model, code);
	switch (capability) {
	case NVML_DEVICE_VGPU_CAP_FRACTIONAL_MULTI_VGPU:
	case NVML_DEVICE_VGPU_CAP_HETEROGENEOUS_TIMESLICE_PROFILES:
		*capResult = 1;
		break;
	case NVML_DEVICE_VGPU_CAP_HETEROGENEOUS_TIMESLICE_SIZES:
		*capResult = state.mixed_capable;
		break;
	case NVML_DEVICE_VGPU_CAP_HOMOGENEOUS_PLACEMENTS:
		*capResult = has_homogeneous_placements(gpu, model);
		break;
	case NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_SUPPORTED:
	case NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_ENABLED:
		*capResult = model->mig_timesliced;
		break;
	default:
		*capResult = 0;
	}
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetCapabilities(uint32_t vgpuTypeId, uint32_t capability, uint32_t *capResult)
{
	const struct nvsim_model *model;

	CALL();
	REQUIRE(capResult && capability < NVML_VGPU_CAP_COUNT && facts_of_type(vgpuTypeId, &model),
		NVML_ERROR_INVALID_ARGUMENT);
	*capResult = capability == NVML_VGPU_CAP_EXCLUSIVE_SIZE && !model->mixed;
	return NVML_SUCCESS;
}
