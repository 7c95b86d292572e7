/* SPDX-License-Identifier: Apache-2.0 */
/* NVML's ABI: MIG mode, GPU instances and compute instances. */
#ifndef ABI_MIG_H
#define ABI_MIG_H

#include "abi.h"

enum {
	NVML_DEVICE_MIG_DISABLE = 0,
	NVML_DEVICE_MIG_ENABLE = 1,
};

/* What a profile is asked by; its id is another number (docs/hardware.md 3.1). */
enum {
	NVML_GPU_INSTANCE_PROFILE_1_SLICE = 0x0,
	NVML_GPU_INSTANCE_PROFILE_2_SLICE = 0x1,
	NVML_GPU_INSTANCE_PROFILE_3_SLICE = 0x2,
	NVML_GPU_INSTANCE_PROFILE_4_SLICE = 0x3,
	NVML_GPU_INSTANCE_PROFILE_7_SLICE = 0x4,
	NVML_GPU_INSTANCE_PROFILE_8_SLICE = 0x5,
	NVML_GPU_INSTANCE_PROFILE_6_SLICE = 0x6,
	NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1 = 0x7,
	NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1 = 0x8,
	NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2 = 0x9,
	NVML_GPU_INSTANCE_PROFILE_1_SLICE_GFX = 0xA,
	NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX = 0xB,
	NVML_GPU_INSTANCE_PROFILE_4_SLICE_GFX = 0xC,
	NVML_GPU_INSTANCE_PROFILE_1_SLICE_NO_ME = 0xD,
	NVML_GPU_INSTANCE_PROFILE_2_SLICE_NO_ME = 0xE,
	NVML_GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME = 0xF,
	NVML_GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME = 0x10,
	NVML_GPU_INSTANCE_PROFILE_3_SLICE_GFX = 0x11,
	NVML_GPU_INSTANCE_PROFILE_COUNT = 0x12,
};

enum {
	NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE = 0x0,
	NVML_COMPUTE_INSTANCE_PROFILE_2_SLICE = 0x1,
	NVML_COMPUTE_INSTANCE_PROFILE_3_SLICE = 0x2,
	NVML_COMPUTE_INSTANCE_PROFILE_4_SLICE = 0x3,
	NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE = 0x4,
	NVML_COMPUTE_INSTANCE_PROFILE_8_SLICE = 0x5,
	NVML_COMPUTE_INSTANCE_PROFILE_6_SLICE = 0x6,
	NVML_COMPUTE_INSTANCE_PROFILE_COUNT = 0x9,
	NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED = 0x0,
};

struct nvmlGpuInstancePlacement {
	uint32_t start;
	uint32_t size;
};

struct nvmlGpuInstanceProfileInfo {
	uint32_t id;
	uint32_t isP2pSupported;
	uint32_t sliceCount;
	uint32_t instanceCount;
	uint32_t multiprocessorCount;
	uint32_t copyEngineCount;
	uint32_t decoderCount;
	uint32_t encoderCount;
	uint32_t jpegCount;
	uint32_t ofaCount;
	uint64_t memorySizeMB;
};

struct nvmlGpuInstanceProfileInfo_v2 {
	uint32_t version;
	uint32_t id;
	uint32_t isP2pSupported;
	uint32_t sliceCount;
	uint32_t instanceCount;
	uint32_t multiprocessorCount;
	uint32_t copyEngineCount;
	uint32_t decoderCount;
	uint32_t encoderCount;
	uint32_t jpegCount;
	uint32_t ofaCount;
	uint64_t memorySizeMB;
	char name[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
};

enum { nvmlGpuInstanceProfileInfo_v2 = VERSION_OF(nvmlGpuInstanceProfileInfo_v2, 2) };

struct nvmlGpuInstanceInfo {
	nvmlDevice_t device;
	uint32_t id;
	uint32_t profileId;
	struct nvmlGpuInstancePlacement placement;
};

struct nvmlComputeInstancePlacement {
	uint32_t start;
	uint32_t size;
};

struct nvmlComputeInstanceProfileInfo {
	uint32_t id;
	uint32_t sliceCount;
	uint32_t instanceCount;
	uint32_t multiprocessorCount;
	uint32_t sharedCopyEngineCount;
	uint32_t sharedDecoderCount;
	uint32_t sharedEncoderCount;
	uint32_t sharedJpegCount;
	uint32_t sharedOfaCount;
};

struct nvmlComputeInstanceProfileInfo_v2 {
	uint32_t version;
	uint32_t id;
	uint32_t sliceCount;
	uint32_t instanceCount;
	uint32_t multiprocessorCount;
	uint32_t sharedCopyEngineCount;
	uint32_t sharedDecoderCount;
	uint32_t sharedEncoderCount;
	uint32_t sharedJpegCount;
	uint32_t sharedOfaCount;
	char name[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
};

enum { nvmlComputeInstanceProfileInfo_v2 = VERSION_OF(nvmlComputeInstanceProfileInfo_v2, 2) };

struct nvmlComputeInstanceInfo {
	nvmlDevice_t device;
	nvmlGpuInstance_t gpuInstance;
	uint32_t id;
	uint32_t profileId;
	struct nvmlComputeInstancePlacement placement;
};

#endif
