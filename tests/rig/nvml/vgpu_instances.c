// SPDX-License-Identifier: Apache-2.0
/*
 * vGPUs whose VM runs; one that was merely created is not there for NVML (docs/hardware.md 5).
 *
 * `licensed` of a vGPU, which a test sets, stands for its guest: 0, no NVIDIA driver runs in it; 1, it has a
 * licence; 2 to 4, NVML's numbers of the unlicensed states.
 */
#include <stdio.h>
#include <string.h>

#include "abi_scheduler.h"
#include "abi_vgpu.h"
#include "library.h"

static nvmlReturn_t list_active(struct gpu *gpu, uint32_t gi, uint32_t *ids, uint32_t *size)
{
	struct nvsim_vgpus vgpus = { .gi = gi };
	uint32_t handles[NVSIM_MAX_VGPUS], count = 0;

	TRY(gpu_ask(gpu, NVSIM_IOC_VGPUS, &vgpus));
	for (uint32_t index = 0; index < vgpus.count && index < NVSIM_MAX_VGPUS; index++)
		if (vgpus.list[index].pid)
			handles[count++] = vgpus.list[index].handle;
	return answer_ids(handles, count, ids, size);
}

EXPORT nvmlReturn_t nvmlDeviceGetActiveVgpus(nvmlDevice_t device, uint32_t *vgpuCount,
					     nvmlVgpuInstance_t *vgpuInstances)
{
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && vgpuCount, NVML_ERROR_INVALID_ARGUMENT);
	return list_active(gpu, NVSIM_NONE, vgpuInstances, vgpuCount);
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetActiveVgpus(nvmlGpuInstance_t gpuInstance,
						  struct nvmlActiveVgpuInstanceInfo_v1 *pVgpuInstanceInfo)
{
	struct nvsim_gi gi;
	struct gpu *gpu;
	uint32_t id;

	CALL();
	gpu = gpu_of_gi(gpuInstance, &id);
	REQUIRE(gpu && pVgpuInstanceInfo, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pVgpuInstanceInfo->version == nvmlActiveVgpuInstanceInfo_v1,
		NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(find_gi(gpu, id, &gi));
	return list_active(gpu, id, pVgpuInstanceInfo->vgpuInstances, &pVgpuInstanceInfo->vgpuCount);
}

/* On the GPUs that this session has a handle of; without one it cannot know the vGPU either. */
nvmlReturn_t find_active_vgpu(uint32_t handle, struct nvsim_vgpu *vgpu, struct gpu **gpu)
{
	REQUIRE(handle, NVML_ERROR_INVALID_ARGUMENT);
	for (unsigned int each = 0; each < driver_gpus(); each++) {
		struct nvsim_vgpus vgpus = { .gi = NVSIM_NONE };

		*gpu = driver_gpu(each);
		if (!gpu_attached(*gpu) || gpu_ask(*gpu, NVSIM_IOC_VGPUS, &vgpus))
			continue;
		for (uint32_t index = 0; index < vgpus.count && index < NVSIM_MAX_VGPUS; index++) {
			*vgpu = vgpus.list[index];
			if (vgpu->handle == handle)
				return vgpu->pid ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlVgpuInstanceGetType(nvmlVgpuInstance_t vgpuInstance, uint32_t *vgpuTypeId)
{
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;

	CALL();
	REQUIRE(vgpuTypeId, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	*vgpuTypeId = vgpu.type;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuInstanceGetVmID(nvmlVgpuInstance_t vgpuInstance, char *vmId, uint32_t size,
					    uint32_t *vmIdType)
{
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;
	char uuid[37];

	CALL();
	REQUIRE(vmId && vmIdType, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	REQUIRE(guest_uuid(vgpu.pid, uuid), NVML_ERROR_UNKNOWN);
	*vmIdType = NVML_VGPU_VM_ID_UUID;
	return answer_text(uuid, vmId, size);
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t length)
{
	for (const unsigned char *each = bytes; length--; each++)
		hash = (hash ^ *each) * 0x100000001b3ull;
	return hash;
}

/* NVIDIA gives every vGPU a UUID of its own, which is neither the VM's nor the mdev's. */
EXPORT nvmlReturn_t nvmlVgpuInstanceGetUUID(nvmlVgpuInstance_t vgpuInstance, char *uuid, uint32_t size)
{
	struct nvsim_gpu state;
	struct nvsim_vgpu vgpu;
	uint64_t high, low;
	struct gpu *gpu;
	char text[37];

	CALL();
	REQUIRE(uuid, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	high = mix(0xcbf29ce484222325ull, state.uuid, strnlen(state.uuid, sizeof(state.uuid)));
	high = mix(high, &vgpu.handle, sizeof(vgpu.handle));
	low = mix(high, &vgpu.pid, sizeof(vgpu.pid));
	snprintf(text, sizeof(text), "%08x-%04x-4%03x-%04x-%012llx", (uint32_t)(high >> 32),
		 (uint32_t)(high >> 16 & 0xffff), (uint32_t)(high & 0xfff),
		 (uint32_t)(0x8000 | (low >> 48 & 0x3fff)), (unsigned long long)(low & 0xffffffffffffull));
	return answer_text(text, uuid, size);
}

EXPORT nvmlReturn_t nvmlVgpuInstanceGetMdevUUID(nvmlVgpuInstance_t vgpuInstance, char *mdevUuid, uint32_t size)
{
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;

	CALL();
	REQUIRE(mdevUuid, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	REQUIRE(vgpu.mdev_uuid[0], NVML_ERROR_NOT_SUPPORTED);
	return answer_text(vgpu.mdev_uuid, mdevUuid, size);
}

/* The address in the guest, not of the VF; all zeros until a driver runs there. */
EXPORT nvmlReturn_t nvmlVgpuInstanceGetGpuPciId(nvmlVgpuInstance_t vgpuInstance, char *vgpuPciId, uint32_t *length)
{
	char address[NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE] = "00000000:00:00.0", vf[16];
	struct nvsim_gpu state;
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;

	CALL();
	REQUIRE(vgpuPciId && length, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	snprintf(vf, sizeof(vf), "%04x:%02x:%02x.%x", state.domain & 0xffff, vgpu.vf_bdf >> 8 & 0xff,
		 vgpu.vf_bdf >> 3 & 0x1f, vgpu.vf_bdf & 7);
	if (vgpu.licensed)
		guest_address(vgpu.pid, vf, vgpu.mdev_uuid, address);
	return answer_sized_text(address, vgpuPciId, length);
}

EXPORT nvmlReturn_t nvmlVgpuInstanceGetFbUsage(nvmlVgpuInstance_t vgpuInstance, uint64_t *fbUsage)
{
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;

	CALL();
	REQUIRE(fbUsage, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	*fbUsage = vgpu.fb_used_bytes;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuInstanceGetVmDriverVersion(nvmlVgpuInstance_t vgpuInstance, char *version, uint32_t length)
{
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;

	CALL();
	REQUIRE(version, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	return answer_text(vgpu.licensed ? driver_version() : "Not Available", version, length);
}

EXPORT nvmlReturn_t nvmlVgpuInstanceGetLicenseInfo_v2(nvmlVgpuInstance_t vgpuInstance,
						      struct nvmlVgpuLicenseInfo *licenseInfo)
{
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;
	bool licensed;

	CALL();
	REQUIRE(licenseInfo, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	REQUIRE(vgpu.licensed, NVML_ERROR_DRIVER_NOT_LOADED);
	licensed = vgpu.licensed == 1;
	*licenseInfo = (struct nvmlVgpuLicenseInfo){
		.isLicensed = licensed,
		.licenseExpiry.status = licensed ? NVML_GRID_LICENSE_EXPIRY_PERMANENT :
						   NVML_GRID_LICENSE_EXPIRY_NOT_AVAILABLE,
		.currentState = licensed ? NVML_GRID_LICENSE_STATE_LICENSED : vgpu.licensed,
	};
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuInstanceGetGpuInstanceId(nvmlVgpuInstance_t vgpuInstance, uint32_t *gpuInstanceId)
{
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;

	CALL();
	REQUIRE(gpuInstanceId, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	*gpuInstanceId = vgpu.gi == NVSIM_NONE ? INVALID_GPU_INSTANCE_ID : vgpu.gi;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlVgpuInstanceGetPlacementId(nvmlVgpuInstance_t vgpuInstance,
						   struct nvmlVgpuPlacementId_v1 *pPlacement)
{
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;

	CALL();
	REQUIRE(pPlacement, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(pPlacement->version == VgpuPlacementId_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	pPlacement->placementId = vgpu.placement == NVSIM_NONE ? INVALID_VGPU_PLACEMENT_ID : vgpu.placement;
	return NVML_SUCCESS;
}

/* Off by the vGPU's own parameter, or by a scheduler that shares by time (docs/hardware.md 4). */
EXPORT nvmlReturn_t nvmlVgpuInstanceGetFrameRateLimit(nvmlVgpuInstance_t vgpuInstance, uint32_t *frameRateLimit)
{
	struct nvsim_sched sched = { .gi = NVSIM_NONE, .engine = NVML_VGPU_SCHEDULER_ENGINE_TYPE_GRAPHICS };
	const struct nvsim_model *model;
	const struct nvsim_type *type;
	struct nvsim_vgpu vgpu;
	struct gpu *gpu;

	CALL();
	REQUIRE(frameRateLimit, NVML_ERROR_INVALID_ARGUMENT);
	TRY(find_active_vgpu(vgpuInstance, &vgpu, &gpu));
	type = facts_of_type(vgpu.type, &model);
	REQUIRE(type, NVML_ERROR_UNKNOWN);
	REQUIRE(!strstr(vgpu.params, "frame_rate_limiter=0"), NVML_ERROR_NOT_SUPPORTED);
	if (!gpu_ask(gpu, NVSIM_IOC_SCHED_GET, &sched) &&
	    sched.policy != NVML_VGPU_SCHEDULER_POLICY_BEST_EFFORT)
		return NVML_ERROR_NOT_SUPPORTED;
	*frameRateLimit = type->frl_fps;
	return NVML_SUCCESS;
}
