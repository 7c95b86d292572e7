// SPDX-License-Identifier: Apache-2.0
/* Where on a GPU, or on a GPU instance, a vGPU of a type may be. */
#include "abi_vgpu.h"
#include "library.h"

/* Both versions of the caller's list, one as the other. */
struct list {
	uint32_t *size, *count, *ids;
	uint32_t room, homogeneous;
};

/* Version 1 has no room of its own: as many as the type has instances, by its contract. */
static nvmlReturn_t open_list(void *given, const struct nvsim_type *type, struct list *list)
{
	struct nvmlVgpuPlacementList_v1 *v1 = given;
	struct nvmlVgpuPlacementList_v2 *v2 = given;

	if (v1->version == VgpuPlacementList_v1) {
		*list = (struct list){ &v1->placementSize, &v1->count, v1->placementIds,
				       .room = type->max_per_gpu };
		return NVML_SUCCESS;
	}
	REQUIRE(v2->version == VgpuPlacementList_v2, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	REQUIRE(v2->mode <= NVML_VGPU_PGPU_HOMOGENEOUS_MODE, NVML_ERROR_INVALID_ARGUMENT);
	*list = (struct list){ &v2->placementSize, &v2->count, v2->placementIds, v2->count, v2->mode };
	return NVML_SUCCESS;
}

static nvmlReturn_t list_placements(nvmlDevice_t device, uint32_t id, void *given, bool creatable)
{
	struct nvsim_placements placements = { .type = id, .gi = NVSIM_NONE, .creatable = creatable };
	const struct nvsim_model *model;
	const struct nvsim_type *type;
	struct gpu *gpu = gpu_of(device);
	struct nvsim_gpu state;
	struct list list;
	nvmlReturn_t code;

	REQUIRE(gpu && given, NVML_ERROR_INVALID_ARGUMENT);
	model = facts_of_gpu(gpu, &state, &code);
	REQUIRE(model, code);
	type = facts_of_type_on(model, id);
	REQUIRE(type, NVML_ERROR_INVALID_ARGUMENT);
	TRY(open_list(given, type, &list));
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	REQUIRE(!creatable || !state.mig_current, NVML_ERROR_NOT_SUPPORTED);
	placements.homogeneous = list.homogeneous;
	TRY(gpu_ask(gpu, NVSIM_IOC_PLACEMENTS, &placements));
	*list.size = placements.size;
	*list.count = list.room;
	return answer_ids(placements.starts, placements.count, list.ids, list.count);
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuTypeSupportedPlacements(nvmlDevice_t device, uint32_t vgpuTypeId,
							     void *pPlacementList)
{
	CALL();
	return list_placements(device, vgpuTypeId, pPlacementList, false);
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuTypeCreatablePlacements(nvmlDevice_t device, uint32_t vgpuTypeId,
							     void *pPlacementList)
{
	CALL();
	return list_placements(device, vgpuTypeId, pPlacementList, true);
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetVgpuTypeCreatablePlacements(nvmlGpuInstance_t gpuInstance,
								  struct nvmlVgpuCreatablePlacementInfo_v1 *pCreatablePlacementInfo)
{
	struct nvsim_placements placements = { .creatable = 1 };
	const struct nvsim_model *model;
	struct nvsim_gpu state;
	struct nvsim_gi gi;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &placements.gi);
	REQUIRE(gpu && pCreatablePlacementInfo, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pCreatablePlacementInfo->version == nvmlVgpuCreatablePlacementInfo_v1,
		NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	REQUIRE(is_root(), NVML_ERROR_NO_PERMISSION);
	model = facts_of_gpu(gpu, &state, &code);
	REQUIRE(model, code);
	TRY(find_gi(gpu, placements.gi, &gi));
	REQUIRE(facts_of_type_on(model, pCreatablePlacementInfo->vgpuTypeId), NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(gi.mixed, NVML_ERROR_NOT_SUPPORTED);
	placements.type = pCreatablePlacementInfo->vgpuTypeId;
	TRY(gpu_ask(gpu, NVSIM_IOC_PLACEMENTS, &placements));
	pCreatablePlacementInfo->placementSize = placements.size;
	return answer_ids(placements.starts, placements.count, pCreatablePlacementInfo->placementIds,
			  &pCreatablePlacementInfo->count);
}
