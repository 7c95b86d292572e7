/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVML's ABI as nvidia-ml-py's ctypes structures have it: numbers, and what is asked of a GPU.
 *
 * Structures and constants bear the binding's names, so that test_nvml_abi.py can compare every size,
 * offset and value with the binding's own.
 */
#ifndef ABI_H
#define ABI_H

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

/* Of a structure with a `version`: its size, and the version in the top byte. */
#define VERSION_OF(type, number) (sizeof(struct type) | (number) << 24)

typedef enum {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4,
	NVML_ERROR_ALREADY_INITIALIZED = 5,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7,
	NVML_ERROR_INSUFFICIENT_POWER = 8,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_TIMEOUT = 10,
	NVML_ERROR_IRQ_ISSUE = 11,
	NVML_ERROR_LIBRARY_NOT_FOUND = 12,
	NVML_ERROR_FUNCTION_NOT_FOUND = 13,
	NVML_ERROR_CORRUPTED_INFOROM = 14,
	NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_RESET_REQUIRED = 16,
	NVML_ERROR_OPERATING_SYSTEM = 17,
	NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
	NVML_ERROR_IN_USE = 19,
	NVML_ERROR_MEMORY = 20,
	NVML_ERROR_NO_DATA = 21,
	NVML_ERROR_VGPU_ECC_NOT_SUPPORTED = 22,
	NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
	NVML_ERROR_FREQ_NOT_SUPPORTED = 24,
	NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
	NVML_ERROR_DEPRECATED = 26,
	NVML_ERROR_NOT_READY = 27,
	NVML_ERROR_GPU_NOT_FOUND = 28,
	NVML_ERROR_INVALID_STATE = 29,
	NVML_ERROR_RESET_TYPE_NOT_SUPPORTED = 30,
	NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

enum {
	NVML_DEVICE_UUID_BUFFER_SIZE = 80,
	NVML_DEVICE_NAME_BUFFER_SIZE = 64,
	NVML_DEVICE_NAME_V2_BUFFER_SIZE = 96,
	NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE = 32,
	NVML_DEVICE_PCI_BUS_ID_BUFFER_V2_SIZE = 16,
	NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE = 80,
	NVML_GRID_LICENSE_BUFFER_SIZE = 128,
	NVML_VGPU_NAME_BUFFER_SIZE = 64,
};

enum {
	NVML_FEATURE_DISABLED = 0,
	NVML_FEATURE_ENABLED = 1,
	NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU = 3,
	NVML_GPU_VIRTUALIZATION_MODE_HOST_VSGA = 4,
	NVML_HOST_VGPU_MODE_NON_SRIOV = 0,
	NVML_HOST_VGPU_MODE_SRIOV = 1,
	NVML_INIT_FLAG_NO_GPUS = 1,
};

/* Handles are opaque to the caller and never dereferenced here: see handles.c. */
typedef struct nvmlDevice *nvmlDevice_t;
typedef struct nvmlGpuInstance *nvmlGpuInstance_t;
typedef struct nvmlComputeInstance *nvmlComputeInstance_t;
typedef uint32_t nvmlVgpuInstance_t;

struct nvmlPciInfo {
	char busIdLegacy[NVML_DEVICE_PCI_BUS_ID_BUFFER_V2_SIZE];
	uint32_t domain;
	uint32_t bus;
	uint32_t device;
	uint32_t pciDeviceId;
	uint32_t pciSubSystemId;
	char busId[NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE];
};

struct nvmlMemory {
	uint64_t total;
	uint64_t free;
	uint64_t used;
};

struct nvmlMemory_v2 {
	uint32_t version;
	uint64_t total;
	uint64_t reserved;
	uint64_t free;
	uint64_t used;
};

enum { nvmlMemory_v2 = VERSION_OF(nvmlMemory_v2, 2) };

#endif
