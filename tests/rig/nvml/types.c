// SPDX-License-Identifier: Apache-2.0
/* vGPU types: which a GPU has, and what is fixed of each. */
#include <stdio.h>
#include <string.h>

#include "abi_vgpu.h"
#include "library.h"

#define MIB		(1ull << 20)
#define GUEST_BAR1_MIB	256	/* the 64-bit BAR that nvsim shows to the guest */

static nvmlReturn_t list_types(nvmlDevice_t device, uint32_t creatable, uint32_t *vgpuCount, uint32_t *vgpuTypeIds)
{
	struct nvsim_types types = { .creatable = creatable, .gi = NVSIM_NONE };
	struct gpu *gpu = gpu_of(device);

	REQUIRE(gpu && vgpuCount, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_TYPES, &types));
	return answer_ids(types.ids, types.count, vgpuTypeIds, vgpuCount);
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedVgpus(nvmlDevice_t device, uint32_t *vgpuCount, uint32_t *vgpuTypeIds)
{
	CALL();
	return list_types(device, 0, vgpuCount, vgpuTypeIds);
}

EXPORT nvmlReturn_t nvmlDeviceGetCreatableVgpus(nvmlDevice_t device, uint32_t *vgpuCount, uint32_t *vgpuTypeIds)
{
	CALL();
	return list_types(device, 1, vgpuCount, vgpuTypeIds);
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetCreatableVgpus(nvmlGpuInstance_t gpuInstance,
						     struct nvmlVgpuTypeIdInfo_v1 *pVgpus)
{
	struct nvsim_types types = { .creatable = 1 };
	struct nvsim_gi gi;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &types.gi);
	REQUIRE(gpu && pVgpus, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pVgpus->version == nvmlVgpuTypeIdInfo_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(find_gi(gpu, types.gi, &gi));
	TRY(gpu_ask(gpu, NVSIM_IOC_TYPES, &types));
	return answer_ids(types.ids, types.count, pVgpus->vgpuTypeIds, &pVgpus->vgpuCount);
}

static const struct nvsim_type *type_of(uint32_t id)
{
	const struct nvsim_model *model;

	return facts_of_type(id, &model);
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetName(uint32_t vgpuTypeId, char *vgpuTypeName, uint32_t *size)
{
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type, NVML_ERROR_INVALID_ARGUMENT);
	return answer_sized_text(type->name, vgpuTypeName, size);
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetClass(uint32_t vgpuTypeId, char *vgpuTypeClass, uint32_t *size)
{
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type, NVML_ERROR_INVALID_ARGUMENT);
	return answer_sized_text(type->series == 'Q' ? "Quadro" : type->series == 'C' ? "Compute" : "NVS",
				 vgpuTypeClass, size);
}

/* Of each the NVML spelling; the catalogue has the words of vgpuConfig.xml. */
static const char *const licences[][2] = {
	{ "QVDWS", "Quadro-Virtual-DWS,5.0" },
	{ "VWS", "GRID-Virtual-WS,2.0" },
	{ "VWSExt", "GRID-Virtual-WS-Ext,2.0" },
	{ "VPC", "GRID-Virtual-PC,2.0" },
	{ "VApps", "GRID-Virtual-Apps,3.0" },
};

/* Where the catalogue has none: what types of this series need. */
static const char *licences_of(const struct nvsim_type *type)
{
	if (type->licence[0])
		return type->licence;
	return type->series == 'Q' ? "QVDWS;VWS;VWSExt" : type->series == 'B' ? "VPC;QVDWS;VWS;VWSExt" :
	       type->series == 'A' ? "VApps" : "";
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetLicense(uint32_t vgpuTypeId, char *vgpuTypeLicenseString, uint32_t size)
{
	char words[NVML_GRID_LICENSE_BUFFER_SIZE], text[NVML_GRID_LICENSE_BUFFER_SIZE] = "", *rest;
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type && vgpuTypeLicenseString, NVML_ERROR_INVALID_ARGUMENT);
	snprintf(words, sizeof(words), "%s", licences_of(type));
	for (char *word = strtok_r(words, ";", &rest); word; word = strtok_r(NULL, ";", &rest))
		for (size_t index = 0; index < sizeof(licences) / sizeof(licences[0]); index++)
			if (!strcmp(licences[index][0], word)) {
				size_t used = strlen(text);

				snprintf(text + used, sizeof(text) - used, "%s%s", used ? ";" : "",
					 licences[index][1]);
			}
	return answer_text(text[0] ? text : "NVIDIA-vComputeServer,9.0", vgpuTypeLicenseString, size);
}

/* The guest sees the ids of the physical GPU, and as the subsystem the type, as nvsim shows it. */
EXPORT nvmlReturn_t nvmlVgpuTypeGetDeviceID(uint32_t vgpuTypeId, uint64_t *deviceID, uint64_t *subsystemID)
{
	const struct nvsim_model *model;
	const struct nvsim_type *type;

	CALL();
	type = facts_of_type(vgpuTypeId, &model);
	REQUIRE(type && deviceID && subsystemID, NVML_ERROR_INVALID_ARGUMENT);
	*deviceID = (uint32_t)model->device << 16 | model->vendor;
	*subsystemID = (vgpuTypeId & 0xffff) << 16 | model->vendor;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetFramebufferSize(uint32_t vgpuTypeId, uint64_t *fbSize)
{
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type && fbSize, NVML_ERROR_INVALID_ARGUMENT);
	*fbSize = type->fb_mib * MIB;
	return NVML_SUCCESS;
}

/* 64 MiB and a sixteenth, as in every published vgpuConfig.xml. */
EXPORT nvmlReturn_t nvmlVgpuTypeGetFbReservation(uint32_t vgpuTypeId, uint64_t *fbReservation)
{
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type && fbReservation, NVML_ERROR_INVALID_ARGUMENT);
	*fbReservation = (64 + type->fb_mib / 16) * MIB;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetGpuInstanceProfileId(uint32_t vgpuTypeId, uint32_t *gpuInstanceProfileId)
{
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type && gpuInstanceProfileId, NVML_ERROR_INVALID_ARGUMENT);
	*gpuInstanceProfileId = type->gi_profile == NVSIM_NO_PROFILE ? INVALID_GPU_INSTANCE_PROFILE_ID :
								       type->gi_profile;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetNumDisplayHeads(uint32_t vgpuTypeId, uint32_t *numDisplayHeads)
{
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type && numDisplayHeads, NVML_ERROR_INVALID_ARGUMENT);
	*numDisplayHeads = type->heads;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetResolution(uint32_t vgpuTypeId, uint32_t displayIndex, uint32_t *xdim,
					      uint32_t *ydim)
{
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type && xdim && ydim && displayIndex < type->heads, NVML_ERROR_INVALID_ARGUMENT);
	*xdim = type->width;
	*ydim = type->height;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetFrameRateLimit(uint32_t vgpuTypeId, uint32_t *frameRateLimit)
{
	const struct nvsim_type *type;

	CALL();
	type = type_of(vgpuTypeId);
	REQUIRE(type && frameRateLimit, NVML_ERROR_INVALID_ARGUMENT);
	*frameRateLimit = type->frl_fps;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetMaxInstances(nvmlDevice_t device, uint32_t vgpuTypeId, uint32_t *vgpuInstanceCount)
{
	const struct nvsim_model *model;
	const struct nvsim_type *type;
	struct nvsim_gpu state;
	nvmlReturn_t code;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && vgpuInstanceCount, NVML_ERROR_INVALID_ARGUMENT);
	model = facts_of_gpu(gpu, &state, &code);
	REQUIRE(model, code);
	type = facts_of_type_on(model, vgpuTypeId);
	REQUIRE(type, NVML_ERROR_INVALID_ARGUMENT);
	*vgpuInstanceCount = type->max_per_gpu;
	return NVML_SUCCESS;
}

/* docs/hardware.md 2.9: up to 16 vGPUs in a VM. */
EXPORT nvmlReturn_t nvmlVgpuTypeGetMaxInstancesPerVm(uint32_t vgpuTypeId, uint32_t *vgpuInstanceCountPerVm)
{
	CALL();
	REQUIRE(type_of(vgpuTypeId) && vgpuInstanceCountPerVm, NVML_ERROR_INVALID_ARGUMENT);
	*vgpuInstanceCountPerVm = 16;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetMaxInstancesPerGpuInstance(struct nvmlVgpuTypeMaxInstance_v1 *pMaxInstance)
{
	const struct nvsim_type *type;

	CALL();
	REQUIRE(pMaxInstance, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pMaxInstance->version == nvmlVgpuTypeMaxInstance_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	type = type_of(pMaxInstance->vgpuTypeId);
	REQUIRE(type, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(type->gi_profile != NVSIM_NO_PROFILE, NVML_ERROR_NOT_SUPPORTED);
	pMaxInstance->maxInstancePerGI = type->max_per_gi;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuTypeGetBAR1Info(uint32_t vgpuTypeId, struct nvmlVgpuTypeBar1Info_v1 *bar1Info)
{
	CALL();
	REQUIRE(bar1Info, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(bar1Info->version == VgpuTypeBar1Info_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	REQUIRE(type_of(vgpuTypeId), NVML_ERROR_INVALID_ARGUMENT);
	bar1Info->bar1Size = GUEST_BAR1_MIB;
	return NVML_SUCCESS;
}
