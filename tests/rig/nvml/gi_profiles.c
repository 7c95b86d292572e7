// SPDX-License-Identifier: Apache-2.0
/* GPU-instance profiles and their places.  For root, and also while MIG is off. */
#include <stdio.h>

#include "abi_mig.h"
#include "library.h"

/* A GPU with MIG, asked by root. */
const struct nvsim_model *mig_model(struct gpu *gpu, struct nvsim_gpu *state, nvmlReturn_t *error)
{
	const struct nvsim_model *model = NULL;

	*error = NVML_ERROR_NO_PERMISSION;
	if (is_root())
		model = facts_of_gpu(gpu, state, error);
	if (model && !state->mig_capable) {
		*error = NVML_ERROR_NOT_SUPPORTED;
		return NULL;
	}
	return model;
}

static void describe(const struct nvsim_profile *profile, struct nvmlGpuInstanceProfileInfo_v2 *info)
{
	*info = (struct nvmlGpuInstanceProfileInfo_v2){
		.version = info->version,
		.id = profile->id,
		.sliceCount = profile->slices,
		.instanceCount = profile->max,
		.copyEngineCount = profile->slices,
		.memorySizeMB = profile->fb_mib,
	};
	snprintf(info->name, sizeof(info->name), "MIG %s", profile->name);
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, uint32_t profile,
							 struct nvmlGpuInstanceProfileInfo_v2 *info)
{
	const struct nvsim_profile *found;
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && info && profile < NVML_GPU_INSTANCE_PROFILE_COUNT, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(info->version == nvmlGpuInstanceProfileInfo_v2, NVML_ERROR_INVALID_ARGUMENT);
	model = mig_model(gpu, &state, &code);
	REQUIRE(model, code);
	found = facts_of_profile_number(model, profile);
	REQUIRE(found, NVML_ERROR_NOT_SUPPORTED);
	describe(found, info);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, uint32_t profileId,
							     struct nvmlGpuInstanceProfileInfo_v2 *info)
{
	const struct nvsim_profile *found;
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && info, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(info->version == nvmlGpuInstanceProfileInfo_v2, NVML_ERROR_INVALID_ARGUMENT);
	model = mig_model(gpu, &state, &code);
	REQUIRE(model, code);
	found = facts_of_profile(model, profileId);
	REQUIRE(found, NVML_ERROR_NOT_SUPPORTED);
	describe(found, info);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, uint32_t profile,
							struct nvmlGpuInstanceProfileInfo *info)
{
	struct nvmlGpuInstanceProfileInfo_v2 whole;
	const struct nvsim_profile *found;
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && info && profile < NVML_GPU_INSTANCE_PROFILE_COUNT, NVML_ERROR_INVALID_ARGUMENT);
	model = mig_model(gpu, &state, &code);
	REQUIRE(model, code);
	found = facts_of_profile_number(model, profile);
	REQUIRE(found, NVML_ERROR_NOT_SUPPORTED);
	describe(found, &whole);
	*info = (struct nvmlGpuInstanceProfileInfo){
		.id = whole.id,
		.sliceCount = whole.sliceCount,
		.instanceCount = whole.instanceCount,
		.copyEngineCount = whole.copyEngineCount,
		.memorySizeMB = whole.memorySizeMB,
	};
	return NVML_SUCCESS;
}

/* Also with MIG off; without a buffer it tells how many there are. */
EXPORT nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, uint32_t profileId,
								  struct nvmlGpuInstancePlacement *placements,
								  uint32_t *count)
{
	const struct nvsim_profile *profile;
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && count, NVML_ERROR_INVALID_ARGUMENT);
	model = mig_model(gpu, &state, &code);
	REQUIRE(model, code);
	profile = facts_of_profile(model, profileId);
	REQUIRE(profile, NVML_ERROR_NOT_SUPPORTED);
	*count = profile->nstarts;
	for (unsigned int index = 0; placements && index < profile->nstarts; index++)
		placements[index] = (struct nvmlGpuInstancePlacement){ profile->starts[index], profile->size };
	return NVML_SUCCESS;
}
