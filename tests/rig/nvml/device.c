// SPDX-License-Identifier: Apache-2.0
/* GPUs: handles, and what never changes of them. */
#include <stdio.h>
#include <string.h>

#include "library.h"

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(uint32_t *deviceCount)
{
	CALL();
	REQUIRE(deviceCount, NVML_ERROR_INVALID_ARGUMENT);
	*deviceCount = driver_gpus();
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(uint32_t index, nvmlDevice_t *device)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = driver_gpu(index);
	REQUIRE(gpu && device, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_attach(gpu));
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	*device = handle_of_gpu(gpu);
	return NVML_SUCCESS;
}

/* All three forms that NVML takes; a missing domain and function are 0. */
static bool parse_bus_id(const char *text, struct nvsim_gpu *wanted)
{
	int end = 0;

	memset(wanted, 0, sizeof(*wanted));
	if (sscanf(text, "%x:%x:%x.%x%n", &wanted->domain, &wanted->bus, &wanted->device, &wanted->function,
		   &end) == 4 && !text[end])
		return true;
	wanted->function = 0;
	if (sscanf(text, "%x:%x:%x%n", &wanted->domain, &wanted->bus, &wanted->device, &end) == 3 && !text[end])
		return true;
	wanted->domain = 0;
	return sscanf(text, "%x:%x.%x%n", &wanted->bus, &wanted->device, &wanted->function, &end) == 3 &&
	       !text[end];
}

/* On its way to the GPU that is looked for, NVML attaches those that it meets, and they stay so. */
EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
	struct nvsim_gpu wanted, state;

	CALL();
	REQUIRE(pciBusId && device && parse_bus_id(pciBusId, &wanted), NVML_ERROR_INVALID_ARGUMENT);
	for (unsigned int index = 0; index < driver_gpus(); index++) {
		struct gpu *gpu = driver_gpu(index);

		if (gpu_attach(gpu) || gpu_ask(gpu, NVSIM_IOC_GPU, &state))
			continue;
		if (state.domain == wanted.domain && state.bus == wanted.bus &&
		    state.device == wanted.device && state.function == wanted.function) {
			*device = handle_of_gpu(gpu);
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	struct nvsim_gpu state;

	CALL();
	REQUIRE(uuid && device, NVML_ERROR_INVALID_ARGUMENT);
	for (unsigned int index = 0; index < driver_gpus(); index++) {
		struct gpu *gpu = driver_gpu(index);

		TRY(gpu_attach(gpu));
		TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
		if (!strncmp(state.uuid, uuid, sizeof(state.uuid))) {
			*device = handle_of_gpu(gpu);
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, uint32_t *index)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && index, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	*index = gpu_index(gpu);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, uint32_t *minorNumber)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && minorNumber, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	*minorNumber = gpu->minor;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, uint32_t length)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && name, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	return answer_text(state.name, name, length);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, uint32_t length)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && uuid, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	return answer_text(state.uuid, uuid, length);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, struct nvmlPciInfo *pci)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && pci, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	*pci = (struct nvmlPciInfo){
		.domain = state.domain,
		.bus = state.bus,
		.device = state.device,
		.pciDeviceId = state.vendor_device,
		.pciSubSystemId = state.subsystem,
	};
	snprintf(pci->busIdLegacy, sizeof(pci->busIdLegacy), "%04X:%02X:%02X.%X", state.domain & 0xffff,
		 state.bus & 0xff, state.device & 0x1f, state.function & 7);
	snprintf(pci->busId, sizeof(pci->busId), "%08X:%02X:%02X.%X", state.domain, state.bus & 0xff,
		 state.device & 0x1f, state.function & 7);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, struct nvmlMemory *memory)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && memory, NVML_ERROR_INVALID_ARGUMENT);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	*memory = (struct nvmlMemory){
		.total = state.fb_bytes,
		.free = state.fb_bytes - state.fb_used_bytes,
		.used = state.fb_used_bytes,
	};
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, struct nvmlMemory_v2 *memory)
{
	struct nvsim_gpu state;
	struct gpu *gpu;

	CALL();
	gpu = gpu_of(device);
	REQUIRE(gpu && memory, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(memory->version == nvmlMemory_v2, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	TRY(gpu_ask(gpu, NVSIM_IOC_GPU, &state));
	memory->total = state.fb_bytes;
	memory->reserved = 0;
	memory->free = state.fb_bytes - state.fb_used_bytes;
	memory->used = state.fb_used_bytes;
	return NVML_SUCCESS;
}
