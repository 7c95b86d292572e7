// SPDX-License-Identifier: Apache-2.0
/*
 * Compute instances: shares of a GPU instance's compute slices.  Where in it a share lies is not simulated:
 * they stand in the order of their ids, and cannot be placed.
 */
#include <stdio.h>

#include "abi_mig.h"
#include "library.h"

#define MAX_CIS		8

static const unsigned int slices_of_profile[] = {
	[NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE] = 1, [NVML_COMPUTE_INSTANCE_PROFILE_2_SLICE] = 2,
	[NVML_COMPUTE_INSTANCE_PROFILE_3_SLICE] = 3, [NVML_COMPUTE_INSTANCE_PROFILE_4_SLICE] = 4,
	[NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE] = 7, [NVML_COMPUTE_INSTANCE_PROFILE_8_SLICE] = 8,
	[NVML_COMPUTE_INSTANCE_PROFILE_6_SLICE] = 6,
};

#define PROFILES	(sizeof(slices_of_profile) / sizeof(slices_of_profile[0]))

static uint32_t profile_of_slices(uint32_t slices)
{
	uint32_t profile = 0;

	while (profile < PROFILES - 1 && slices_of_profile[profile] != slices)
		profile++;
	return profile;
}

/* A GPU instance, its profile, and how many of its compute slices are taken. */
struct parent {
	struct gpu *gpu;
	struct nvsim_gi gi;
	const struct nvsim_profile *profile;
	uint32_t taken;
};

static nvmlReturn_t find_parent(struct gpu *gpu, uint32_t id, struct parent *parent)
{
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	nvmlReturn_t code;

	*parent = (struct parent){ .gpu = gpu };
	model = facts_of_gpu(gpu, &state, &code);
	REQUIRE(model, code);
	TRY(find_gi(gpu, id, &parent->gi));
	parent->profile = facts_of_profile(model, parent->gi.profile);
	REQUIRE(parent->profile, NVML_ERROR_UNKNOWN);
	for (unsigned int ci = 0; ci < MAX_CIS; ci++)
		if (parent->gi.cis >> ci & 1)
			parent->taken += parent->gi.ci_profiles[ci];
	return NVML_SUCCESS;
}

static bool fits(const struct parent *parent, uint32_t profile)
{
	return profile < PROFILES && slices_of_profile[profile] <= parent->profile->slices;
}

static nvmlReturn_t describe(nvmlGpuInstance_t gpuInstance, uint32_t profile, uint32_t engProfile,
			     struct nvmlComputeInstanceProfileInfo_v2 *info)
{
	struct parent parent;
	struct gpu *gpu;
	uint32_t id;

	gpu = gpu_of_gi(gpuInstance, &id);
	REQUIRE(gpu && profile < NVML_COMPUTE_INSTANCE_PROFILE_COUNT &&
		engProfile == NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(find_parent(gpu, id, &parent));
	REQUIRE(fits(&parent, profile), NVML_ERROR_NOT_SUPPORTED);
	*info = (struct nvmlComputeInstanceProfileInfo_v2){
		.version = nvmlComputeInstanceProfileInfo_v2,
		.id = profile,
		.sliceCount = slices_of_profile[profile],
		.instanceCount = parent.profile->slices / slices_of_profile[profile],
		.sharedCopyEngineCount = parent.profile->slices,
	};
	if (info->sliceCount == parent.profile->slices)
		snprintf(info->name, sizeof(info->name), "MIG %s", parent.profile->name);
	else
		snprintf(info->name, sizeof(info->name), "MIG %uc.%s", info->sliceCount, parent.profile->name);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t gpuInstance, uint32_t profile,
								  uint32_t engProfile,
								  struct nvmlComputeInstanceProfileInfo_v2 *info)
{
	CALL();
	REQUIRE(info && info->version == nvmlComputeInstanceProfileInfo_v2, NVML_ERROR_INVALID_ARGUMENT);
	return describe(gpuInstance, profile, engProfile, info);
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t gpuInstance, uint32_t profile,
								 uint32_t engProfile,
								 struct nvmlComputeInstanceProfileInfo *info)
{
	struct nvmlComputeInstanceProfileInfo_v2 whole;

	CALL();
	REQUIRE(info, NVML_ERROR_INVALID_ARGUMENT);
	TRY(describe(gpuInstance, profile, engProfile, &whole));
	*info = (struct nvmlComputeInstanceProfileInfo){
		.id = whole.id,
		.sliceCount = whole.sliceCount,
		.instanceCount = whole.instanceCount,
		.sharedCopyEngineCount = whole.sharedCopyEngineCount,
	};
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t gpuInstance, uint32_t profileId,
								       uint32_t *count)
{
	struct parent parent;
	struct gpu *gpu;
	uint32_t id;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &id);
	REQUIRE(gpu && count, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(find_parent(gpu, id, &parent));
	REQUIRE(fits(&parent, profileId), NVML_ERROR_NOT_SUPPORTED);
	*count = (parent.profile->slices - parent.taken) / slices_of_profile[profileId];
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t gpuInstance, uint32_t profileId,
							 nvmlComputeInstance_t *computeInstance)
{
	struct nvsim_ci ci = { 0 };
	struct parent parent;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &ci.gi);
	REQUIRE(gpu && computeInstance, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(find_parent(gpu, ci.gi, &parent));
	REQUIRE(fits(&parent, profileId), NVML_ERROR_NOT_SUPPORTED);
	ci.slices = slices_of_profile[profileId];
	TRY(gpu_ask(gpu, NVSIM_IOC_CI_CREATE, &ci));
	*computeInstance = handle_of_ci(gpu, ci.gi, ci.id);
	return NVML_SUCCESS;
}

static bool has_ci(const struct parent *parent, uint32_t id)
{
	return id < MAX_CIS && parent->gi.cis >> id & 1;
}

EXPORT nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t computeInstance)
{
	struct nvsim_ci ci = { 0 };
	struct parent parent;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of_ci(computeInstance, &ci.gi, &ci.id);
	REQUIRE(gpu, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(find_parent(gpu, ci.gi, &parent));
	REQUIRE(has_ci(&parent, ci.id), NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_CI_DESTROY, &ci));
	handles_forget_ci(gpu, ci.gi, ci.id);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t gpuInstance, uint32_t profileId,
						       nvmlComputeInstance_t *computeInstances, uint32_t *count)
{
	struct parent parent;
	struct gpu *gpu;
	uint32_t id;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &id);
	REQUIRE(gpu && computeInstances && count, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(find_parent(gpu, id, &parent));
	REQUIRE(fits(&parent, profileId), NVML_ERROR_NOT_SUPPORTED);
	*count = 0;
	for (uint32_t ci = 0; ci < MAX_CIS; ci++)
		if (has_ci(&parent, ci) && parent.gi.ci_profiles[ci] == slices_of_profile[profileId])
			computeInstances[(*count)++] = handle_of_ci(gpu, id, ci);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t gpuInstance, uint32_t id,
							  nvmlComputeInstance_t *computeInstance)
{
	struct parent parent;
	struct gpu *gpu;
	uint32_t gi;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &gi);
	REQUIRE(gpu && computeInstance, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	TRY(find_parent(gpu, gi, &parent));
	REQUIRE(has_ci(&parent, id), NVML_ERROR_NOT_FOUND);
	*computeInstance = handle_of_ci(gpu, gi, id);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t computeInstance,
						  struct nvmlComputeInstanceInfo *info)
{
	struct parent parent;
	struct gpu *gpu;
	uint32_t gi, id, start = 0;

	CALL();
	gpu = gpu_of_ci(computeInstance, &gi, &id);
	REQUIRE(gpu && info, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_parent(gpu, gi, &parent));
	REQUIRE(has_ci(&parent, id), NVML_ERROR_INVALID_ARGUMENT);
	for (uint32_t ci = 0; ci < id; ci++)
		start += has_ci(&parent, ci) ? parent.gi.ci_profiles[ci] : 0;
	*info = (struct nvmlComputeInstanceInfo){
		.device = handle_of_gpu(gpu),
		.gpuInstance = handle_of_gi(gpu, gi),
		.id = id,
		.profileId = profile_of_slices(parent.gi.ci_profiles[id]),
		.placement = { start, parent.gi.ci_profiles[id] },
	};
	return NVML_SUCCESS;
}
