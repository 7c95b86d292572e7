// SPDX-License-Identifier: Apache-2.0
/*
 * Handles.  To the caller they are pointers; here they are numbers that say what they stand for and are
 * never followed, so that garbage is an invalid argument and nothing worse.
 *
 * They end with the session (nvmlShutdown), and those of an instance with the instance.
 */
#include <stdatomic.h>

#include "library.h"

#define MAGIC		0x6e76ull
#define MAX_IDS		64

enum kind { GPU = 1, GI, CI };

struct handle {
	unsigned int kind, session, generation, gpu, gi, ci;
};

static atomic_uint session;
static atomic_uint gi_generations[NVSIM_MAX_GPUS][MAX_IDS];
static atomic_uint ci_generations[NVSIM_MAX_GPUS][MAX_IDS][MAX_IDS];

static uintptr_t pack(struct handle handle)
{
	return MAGIC << 48 | (uint64_t)(handle.kind & 0xf) << 44 | (uint64_t)(handle.session & 0xff) << 36 |
	       (uint64_t)(handle.generation & 0xfff) << 24 | handle.gpu << 16 | handle.gi << 8 | handle.ci;
}

static struct gpu *unpack(uintptr_t value, enum kind kind, struct handle *handle)
{
	*handle = (struct handle){
		.kind = value >> 44 & 0xf,
		.session = value >> 36 & 0xff,
		.generation = value >> 24 & 0xfff,
		.gpu = value >> 16 & 0xff,
		.gi = value >> 8 & 0xff,
		.ci = value & 0xff,
	};
	if (value >> 48 != MAGIC || handle->kind != kind || handle->session != (session & 0xff))
		return NULL;
	if (handle->gi >= MAX_IDS || handle->ci >= MAX_IDS)
		return NULL;
	return driver_gpu(handle->gpu);
}

nvmlDevice_t handle_of_gpu(const struct gpu *gpu)
{
	return (nvmlDevice_t)pack((struct handle){ .kind = GPU, .session = session, .gpu = gpu_index(gpu) });
}

struct gpu *gpu_of(nvmlDevice_t value)
{
	struct handle handle;
	struct gpu *gpu = unpack((uintptr_t)value, GPU, &handle);

	return gpu && gpu_attached(gpu) ? gpu : NULL;
}

nvmlGpuInstance_t handle_of_gi(const struct gpu *gpu, uint32_t gi)
{
	struct handle handle = { .kind = GI, .session = session, .gpu = gpu_index(gpu), .gi = gi };

	handle.generation = gi_generations[handle.gpu][gi % MAX_IDS];
	return (nvmlGpuInstance_t)pack(handle);
}

struct gpu *gpu_of_gi(nvmlGpuInstance_t value, uint32_t *gi)
{
	struct handle handle;
	struct gpu *gpu = unpack((uintptr_t)value, GI, &handle);

	if (!gpu || !gpu_attached(gpu) || handle.generation != (gi_generations[handle.gpu][handle.gi] & 0xfff))
		return NULL;
	*gi = handle.gi;
	return gpu;
}

nvmlComputeInstance_t handle_of_ci(const struct gpu *gpu, uint32_t gi, uint32_t ci)
{
	struct handle handle = { .kind = CI, .session = session, .gpu = gpu_index(gpu), .gi = gi, .ci = ci };

	handle.generation = ci_generations[handle.gpu][gi % MAX_IDS][ci % MAX_IDS];
	return (nvmlComputeInstance_t)pack(handle);
}

struct gpu *gpu_of_ci(nvmlComputeInstance_t value, uint32_t *gi, uint32_t *ci)
{
	struct handle handle;
	struct gpu *gpu = unpack((uintptr_t)value, CI, &handle);

	if (!gpu || !gpu_attached(gpu))
		return NULL;
	if (handle.generation != (ci_generations[handle.gpu][handle.gi][handle.ci] & 0xfff))
		return NULL;
	*gi = handle.gi;
	*ci = handle.ci;
	return gpu;
}

void handles_forget_all(void)
{
	session++;
}

void handles_forget_gi(const struct gpu *gpu, uint32_t gi)
{
	gi_generations[gpu_index(gpu)][gi % MAX_IDS]++;
	for (unsigned int ci = 0; ci < MAX_IDS; ci++)
		handles_forget_ci(gpu, gi, ci);
}

void handles_forget_ci(const struct gpu *gpu, uint32_t gi, uint32_t ci)
{
	ci_generations[gpu_index(gpu)][gi % MAX_IDS][ci % MAX_IDS]++;
}
