// SPDX-License-Identifier: Apache-2.0
/* How busy vGPUs are; a test says so through debugfs. */
#include <time.h>

#include "abi_vgpu.h"
#include "library.h"

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000000ull + now.tv_nsec / 1000;
}

/* MIG-backed vGPUs cannot be watched (docs/hardware.md 3.3). */
static nvmlReturn_t require_watched(struct gpu *gpu)
{
	struct nvsim_gpu state;

	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	return state.mig_current ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetVgpuInstancesUtilizationInfo(nvmlDevice_t device,
							      struct nvmlVgpuInstancesUtilizationInfo_v1 *vgpuUtilInfo)
{
	struct nvsim_vgpus vgpus = { .gi = NVSIM_NONE };
	uint64_t now = now_us();
	uint32_t count = 0, room;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && vgpuUtilInfo, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(vgpuUtilInfo->version == VgpuInstancesUtilizationInfo_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(require_watched(gpu));
	TRY(gpu_ask(gpu, NVSIM_IOC_VGPUS, &vgpus));
	for (uint32_t index = 0; index < vgpus.count && index < NVSIM_MAX_VGPUS; index++)
		if (vgpus.list[index].pid)
			vgpus.list[count++] = vgpus.list[index];
	room = vgpuUtilInfo->vgpuInstanceCount;
	vgpuUtilInfo->sampleValType = NVML_VALUE_TYPE_UNSIGNED_INT;
	vgpuUtilInfo->vgpuInstanceCount = count;
	REQUIRE(count, NVML_SUCCESS);
	REQUIRE(vgpuUtilInfo->vgpuUtilArray && room >= count, NVML_ERROR_INSUFFICIENT_SIZE);
	REQUIRE(vgpuUtilInfo->lastSeenTimeStamp < now, NVML_ERROR_NOT_FOUND);
	for (uint32_t index = 0; index < count; index++)
		vgpuUtilInfo->vgpuUtilArray[index] = (struct nvmlVgpuInstanceUtilizationInfo_v1){
			.timeStamp = now,
			.vgpuInstance = vgpus.list[index].handle,
			.smUtil.uiVal = vgpus.list[index].sm_util,
			.memUtil.uiVal = vgpus.list[index].mem_util,
			.encUtil.uiVal = vgpus.list[index].enc_util,
			.decUtil.uiVal = vgpus.list[index].dec_util,
		};
	vgpuUtilInfo->lastSeenTimeStamp = now;
	return NVML_SUCCESS;
}

/* Processes are told by the guest's driver, which no guest of the rig has. */
EXPORT nvmlReturn_t nvmlDeviceGetVgpuProcessesUtilizationInfo(nvmlDevice_t device,
							      struct nvmlVgpuProcessesUtilizationInfo_v1 *vgpuProcUtilInfo)
{
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && vgpuProcUtilInfo, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(vgpuProcUtilInfo->version == VgpuProcessesUtilizationInfo_v1,
		NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(require_watched(gpu));
	vgpuProcUtilInfo->vgpuProcessCount = 0;
	return NVML_SUCCESS;
}
