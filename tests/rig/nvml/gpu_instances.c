// SPDX-License-Identifier: Apache-2.0
/* GPU instances.  For root, all but their description (docs/hardware.md 5). */
#include "abi_mig.h"
#include "library.h"

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, uint32_t profileId, uint32_t *count)
{
	struct nvsim_gi_room room = { .profile = profileId };
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && count, NVML_ERROR_INVALID_ARGUMENT);
	model = mig_model(gpu, &state, &code);
	REQUIRE(model, code);
	REQUIRE(state.mig_current && facts_of_profile(model, profileId), NVML_ERROR_NOT_SUPPORTED);
	TRY(gpu_ask(gpu, NVSIM_IOC_GI_ROOM, &room));
	*count = room.remaining;
	return NVML_SUCCESS;
}

static nvmlReturn_t create(nvmlDevice_t device, uint32_t profileId, const struct nvmlGpuInstancePlacement *placement,
			   nvmlGpuInstance_t *gpuInstance)
{
	struct nvsim_gi_create wanted = { .profile = profileId, .start = NVSIM_NONE };
	const struct nvsim_profile *profile;
	const struct nvsim_model *model;
	struct gpu *gpu = gpu_of(device);
	struct nvsim_gpu state;
	nvmlReturn_t code;

	REQUIRE(gpu && gpuInstance, NVML_ERROR_INVALID_ARGUMENT);
	model = mig_model(gpu, &state, &code);
	REQUIRE(model, code);
	REQUIRE(state.mig_current, NVML_ERROR_NOT_SUPPORTED);
	profile = facts_of_profile(model, profileId);
	REQUIRE(profile, NVML_ERROR_INVALID_ARGUMENT);
	if (placement) {
		REQUIRE(placement->size == profile->size, NVML_ERROR_INVALID_ARGUMENT);
		wanted.start = placement->start;
	}
	TRY(gpu_ask(gpu, NVSIM_IOC_GI_CREATE, &wanted));
	*gpuInstance = handle_of_gi(gpu, wanted.id);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t device, uint32_t profileId, nvmlGpuInstance_t *gpuInstance)
{
	CALL();
	return create(device, profileId, NULL, gpuInstance);
}

EXPORT nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, uint32_t profileId,
							     const struct nvmlGpuInstancePlacement *placement,
							     nvmlGpuInstance_t *gpuInstance)
{
	CALL();
	REQUIRE(placement, NVML_ERROR_INVALID_ARGUMENT);
	return create(device, profileId, placement, gpuInstance);
}

/* A handle whose instance is gone by another hand is invalid. */
nvmlReturn_t find_gi(struct gpu *gpu, uint32_t id, struct nvsim_gi *found)
{
	struct nvsim_gis gis;

	TRY(gpu_ask(gpu, NVSIM_IOC_GIS, &gis));
	for (uint32_t index = 0; index < gis.count && index < NVSIM_MAX_GIS; index++) {
		*found = gis.list[index];
		if (found->id == id)
			return NVML_SUCCESS;
	}
	return NVML_ERROR_INVALID_ARGUMENT;
}

EXPORT nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t gpuInstance)
{
	struct nvsim_gi gi;
	struct gpu *gpu;
	uint32_t id;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &id);
	REQUIRE(gpu, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(find_gi(gpu, id, &gi));
	TRY(gpu_ask(gpu, NVSIM_IOC_GI_DESTROY, &id));
	handles_forget_gi(gpu, id);
	return NVML_SUCCESS;
}

/* The buffer has room for as many as the profile allows, by contract. */
EXPORT nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, uint32_t profileId, nvmlGpuInstance_t *gpuInstances,
					      uint32_t *count)
{
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	struct nvsim_gis gis;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && gpuInstances && count, NVML_ERROR_INVALID_ARGUMENT);
	model = mig_model(gpu, &state, &code);
	REQUIRE(model, code);
	REQUIRE(state.mig_current, NVML_ERROR_NOT_SUPPORTED);
	REQUIRE(facts_of_profile(model, profileId), NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GIS, &gis));
	*count = 0;
	for (uint32_t index = 0; index < gis.count && index < NVSIM_MAX_GIS; index++)
		if (gis.list[index].profile == profileId)
			gpuInstances[(*count)++] = handle_of_gi(gpu, gis.list[index].id);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, uint32_t id, nvmlGpuInstance_t *gpuInstance)
{
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	struct nvsim_gi gi;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && gpuInstance, NVML_ERROR_INVALID_ARGUMENT);
	model = mig_model(gpu, &state, &code);
	REQUIRE(model, code);
	REQUIRE(state.mig_current, NVML_ERROR_NOT_SUPPORTED);
	code = find_gi(gpu, id, &gi);
	REQUIRE(!code, code == NVML_ERROR_INVALID_ARGUMENT ? NVML_ERROR_NOT_FOUND : code);
	*gpuInstance = handle_of_gi(gpu, id);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t gpuInstance, struct nvmlGpuInstanceInfo *info)
{
	struct nvsim_gi gi;
	struct gpu *gpu;
	uint32_t id;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &id);
	REQUIRE(gpu && info, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_gi(gpu, id, &gi));
	*info = (struct nvmlGpuInstanceInfo){
		.device = handle_of_gpu(gpu),
		.id = id,
		.profileId = gi.profile,
		.placement = { gi.start, gi.size },
	};
	return NVML_SUCCESS;
}
