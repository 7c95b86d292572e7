/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's ABI: vGPU types, running vGPUs, placements and mixed-size mode. */
#ifndef ABI_VGPU_H
#define ABI_VGPU_H

#include "abi.h"

/* These three are in NVIDIA's header and not in the binding. */
#define INVALID_GPU_INSTANCE_PROFILE_ID	0xffffffffu
#define INVALID_GPU_INSTANCE_ID		0xffffffffu
#define INVALID_VGPU_PLACEMENT_ID	0xffffu

enum {
	NVML_VGPU_VM_ID_DOMAIN_ID = 0,
	NVML_VGPU_VM_ID_UUID = 1,
	NVML_VGPU_PGPU_HETEROGENEOUS_MODE = 0,
	NVML_VGPU_PGPU_HOMOGENEOUS_MODE = 1,
	NVML_VALUE_TYPE_UNSIGNED_INT = 1,
};

enum {
	NVML_VGPU_CAP_NVLINK_P2P = 0,
	NVML_VGPU_CAP_GPUDIRECT = 1,
	NVML_VGPU_CAP_MULTI_VGPU_EXCLUSIVE = 2,
	NVML_VGPU_CAP_EXCLUSIVE_TYPE = 3,
	NVML_VGPU_CAP_EXCLUSIVE_SIZE = 4,
	NVML_VGPU_CAP_COUNT = 5,
	NVML_VGPU_DRIVER_CAP_HETEROGENEOUS_MULTI_VGPU = 0,
	NVML_VGPU_DRIVER_CAP_WARM_UPDATE = 1,
	NVML_VGPU_DRIVER_CAP_COUNT = 2,
	NVML_DEVICE_VGPU_CAP_FRACTIONAL_MULTI_VGPU = 0,
	NVML_DEVICE_VGPU_CAP_HETEROGENEOUS_TIMESLICE_PROFILES = 1,
	NVML_DEVICE_VGPU_CAP_HETEROGENEOUS_TIMESLICE_SIZES = 2,
	NVML_DEVICE_VGPU_CAP_READ_DEVICE_BUFFER_BW = 3,
	NVML_DEVICE_VGPU_CAP_WRITE_DEVICE_BUFFER_BW = 4,
	NVML_DEVICE_VGPU_CAP_DEVICE_STREAMING = 5,
	NVML_DEVICE_VGPU_CAP_MINI_QUARTER_GPU = 6,
	NVML_DEVICE_VGPU_CAP_COMPUTE_MEDIA_ENGINE_GPU = 7,
	NVML_DEVICE_VGPU_CAP_WARM_UPDATE = 8,
	NVML_DEVICE_VGPU_CAP_HOMOGENEOUS_PLACEMENTS = 9,
	NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_SUPPORTED = 10,
	NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_ENABLED = 11,
	NVML_DEVICE_VGPU_CAP_COUNT = 12,
};

enum {
	NVML_GRID_LICENSE_STATE_UNKNOWN = 0,
	NVML_GRID_LICENSE_STATE_UNINITIALIZED = 1,
	NVML_GRID_LICENSE_STATE_UNLICENSED_UNRESTRICTED = 2,
	NVML_GRID_LICENSE_STATE_UNLICENSED_RESTRICTED = 3,
	NVML_GRID_LICENSE_STATE_UNLICENSED = 4,
	NVML_GRID_LICENSE_STATE_LICENSED = 5,
	/* The binding has the expiry codes as tuples, by a stray comma. */
	NVML_GRID_LICENSE_EXPIRY_NOT_AVAILABLE = 0,
	NVML_GRID_LICENSE_EXPIRY_PERMANENT = 4,
};

struct nvmlVgpuTypeBar1Info_v1 {
	uint32_t version;
	uint64_t bar1Size;	/* MiB */
};

enum { VgpuTypeBar1Info_v1 = VERSION_OF(nvmlVgpuTypeBar1Info_v1, 1) };

struct nvmlVgpuTypeMaxInstance_v1 {
	uint32_t version;
	uint32_t vgpuTypeId;
	uint32_t maxInstancePerGI;
};

enum { nvmlVgpuTypeMaxInstance_v1 = VERSION_OF(nvmlVgpuTypeMaxInstance_v1, 1) };

struct nvmlVgpuTypeIdInfo_v1 {
	uint32_t version;
	uint32_t vgpuCount;
	uint32_t *vgpuTypeIds;
};

enum { nvmlVgpuTypeIdInfo_v1 = VERSION_OF(nvmlVgpuTypeIdInfo_v1, 1) };

struct nvmlActiveVgpuInstanceInfo_v1 {
	uint32_t version;
	uint32_t vgpuCount;
	uint32_t *vgpuInstances;
};

enum { nvmlActiveVgpuInstanceInfo_v1 = VERSION_OF(nvmlActiveVgpuInstanceInfo_v1, 1) };

struct nvmlVgpuHeterogeneousMode_v1 {
	uint32_t version;
	uint32_t mode;
};

enum { VgpuHeterogeneousMode_v1 = VERSION_OF(nvmlVgpuHeterogeneousMode_v1, 1) };

struct nvmlVgpuPlacementId_v1 {
	uint32_t version;
	uint32_t placementId;
};

enum { VgpuPlacementId_v1 = VERSION_OF(nvmlVgpuPlacementId_v1, 1) };

struct nvmlVgpuPlacementList_v1 {
	uint32_t version;
	uint32_t placementSize;
	uint32_t count;		/* out only: the buffer holds as many as the type has instances */
	uint32_t *placementIds;
};

enum { VgpuPlacementList_v1 = VERSION_OF(nvmlVgpuPlacementList_v1, 1) };

struct nvmlVgpuPlacementList_v2 {
	uint32_t version;
	uint32_t placementSize;
	uint32_t count;		/* in and out */
	uint32_t *placementIds;
	uint32_t mode;
};

enum { VgpuPlacementList_v2 = VERSION_OF(nvmlVgpuPlacementList_v2, 2) };

struct nvmlVgpuCreatablePlacementInfo_v1 {
	uint32_t version;
	uint32_t vgpuTypeId;
	uint32_t count;
	uint32_t *placementIds;
	uint32_t placementSize;
};

enum { nvmlVgpuCreatablePlacementInfo_v1 = VERSION_OF(nvmlVgpuCreatablePlacementInfo_v1, 1) };

struct nvmlVgpuLicenseExpiry {
	uint32_t year;
	uint16_t month;
	uint16_t day;
	uint16_t hour;
	uint16_t min;
	uint16_t sec;
	uint8_t status;
};

struct nvmlVgpuLicenseInfo {
	uint8_t isLicensed;
	struct nvmlVgpuLicenseExpiry licenseExpiry;
	uint32_t currentState;
};

union nvmlValue {
	double dVal;
	uint32_t uiVal;
	uint64_t ulVal;
	uint64_t ullVal;
	int64_t sllVal;
	int32_t siVal;
	uint16_t usVal;
};

struct nvmlVgpuInstanceUtilizationInfo_v1 {
	uint64_t timeStamp;
	uint32_t vgpuInstance;
	union nvmlValue smUtil;
	union nvmlValue memUtil;
	union nvmlValue encUtil;
	union nvmlValue decUtil;
	union nvmlValue jpgUtil;
	union nvmlValue ofaUtil;
};

struct nvmlVgpuInstancesUtilizationInfo_v1 {
	uint32_t version;
	uint32_t sampleValType;
	uint32_t vgpuInstanceCount;
	uint64_t lastSeenTimeStamp;
	struct nvmlVgpuInstanceUtilizationInfo_v1 *vgpuUtilArray;
};

enum { VgpuInstancesUtilizationInfo_v1 = VERSION_OF(nvmlVgpuInstancesUtilizationInfo_v1, 1) };

struct nvmlVgpuProcessUtilizationInfo_v1 {
	char processName[NVML_VGPU_NAME_BUFFER_SIZE];
	uint64_t timeStamp;
	uint32_t vgpuInstance;
	uint32_t pid;
	uint32_t smUtil;
	uint32_t memUtil;
	uint32_t encUtil;
	uint32_t decUtil;
	uint32_t jpgUtil;
	uint32_t ofaUtil;
};

struct nvmlVgpuProcessesUtilizationInfo_v1 {
	uint32_t version;
	uint32_t vgpuProcessCount;
	uint64_t lastSeenTimeStamp;
	struct nvmlVgpuProcessUtilizationInfo_v1 *vgpuProcUtilArray;
};

enum { VgpuProcessesUtilizationInfo_v1 = VERSION_OF(nvmlVgpuProcessesUtilizationInfo_v1, 1) };

#endif
