// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where vGPUs of different sizes lie, in GB from the start of the GPU's frame buffer or of a GPU instance
 * (docs/hardware.md 3.4).  The catalogue's tables are the driver's first-fit order; where no table is
 * public, multiples of the size.
 */
#include "nvsim.h"

unsigned int size_gb(unsigned int mib)
{
	return DIV_ROUND_UP(mib, 1024);
}

/* Whether different sizes may stand there, so that each has a placement. */
bool placement_is_mixed(struct gpu *gpu, u32 gi)
{
	struct instance *instance;

	if (gi == NONE)
		return gpu->mixed;
	instance = instance_by_id(gpu, gi);
	return instance && instance->mixed;
}

static unsigned int region_gb(struct gpu *gpu, u32 gi)
{
	struct instance *instance = gi == NONE ? NULL : instance_by_id(gpu, gi);

	return size_gb(instance ? instance->profile->fb_mib : gpu->model->fb_mib);
}

static unsigned int start_count(struct gpu *gpu, const struct nvsim_type *type, u32 gi)
{
	unsigned int limit = gi == NONE ? type->max_per_gpu_mixed : type->max_per_gi;
	unsigned int region = region_gb(gpu, gi), size = size_gb(type->fb_mib);

	if (type->nstarts)
		return type->nstarts;
	/* never more than instances: NVML's callers make room for those */
	return min(region / size, limit ? limit : type->max_per_gpu);
}

static unsigned int start_at(const struct nvsim_type *type, unsigned int i)
{
	return type->nstarts ? type->starts[i] : i * size_gb(type->fb_mib);
}

static bool overlaps(struct gpu *gpu, const struct vgpu *except, const struct nvsim_type *type, u32 gi,
		     u32 start)
{
	struct vgpu *vgpu;

	list_for_each_entry(vgpu, &gpu->vgpus, node) {
		if (vgpu == except || vgpu->gi != gi || vgpu->placement == NONE)
			continue;
		if (start < vgpu->placement + size_gb(vgpu->type->fb_mib) &&
		    vgpu->placement < start + size_gb(type->fb_mib))
			return true;
	}
	return false;
}

/* Whether that is a placement of the type, and nobody but `except` has any of it. */
bool placement_is_free(struct gpu *gpu, const struct vgpu *except, const struct nvsim_type *type, u32 gi,
		       u32 start)
{
	unsigned int i, count = start_count(gpu, type, gi);

	for (i = 0; i < count; i++)
		if (start_at(type, i) == start)
			return !overlaps(gpu, except, type, gi, start);
	return false;
}

u32 placement_first(struct gpu *gpu, const struct nvsim_type *type, u32 gi)
{
	unsigned int i, count = start_count(gpu, type, gi);

	for (i = 0; i < count; i++)
		if (!overlaps(gpu, NULL, type, gi, start_at(type, i)))
			return start_at(type, i);
	return NONE;
}

/* Of one size: one after the other.  None are taken there, for any of them will do. */
static void list_equal(struct gpu *gpu, const struct nvsim_type *type, struct nvsim_placements *list)
{
	unsigned int region = region_gb(gpu, list->gi), limit, i;

	limit = list->gi == NONE || !type->max_per_gi ? type->max_per_gpu : type->max_per_gi;
	for (i = 0; i < limit && (i + 1) * list->size <= region && i < NVSIM_MAX_PLACEMENTS; i++)
		list->starts[list->count++] = i * list->size;
}

int placement_list(struct gpu *gpu, struct nvsim_placements *list)
{
	const struct nvsim_type *type = rules_type(gpu, list->type);
	struct place place;
	unsigned int i, count;

	if (!type)
		return -EINVAL;
	if (list->gi != NONE && !instance_by_id(gpu, list->gi))
		return -ENOENT;
	list->size = size_gb(type->fb_mib);
	list->count = 0;
	if (gpu->card->framework == NVSIM_MDEV || (!list->homogeneous && !gpu->model->mixed))
		return -EOPNOTSUPP;
	if (list->creatable && rules_refusal(gpu, NONE, type, &place) != NVRM_OK)
		return 0;
	if (list->homogeneous) {
		list_equal(gpu, type, list);
		return 0;
	}
	count = start_count(gpu, type, list->gi);
	for (i = 0; i < count && list->count < NVSIM_MAX_PLACEMENTS; i++)
		if (!list->creatable || !overlaps(gpu, NULL, type, list->gi, start_at(type, i)))
			list->starts[list->count++] = start_at(type, i);
	return 0;
}

/* A number where different sizes may stand, else the words (docs/hardware.md 1.2.3). */
ssize_t placement_show(struct vgpu *vgpu, char *buffer)
{
	if (vgpu->placement == NONE)
		return sysfs_emit(buffer, "Not Applicable\n");
	return sysfs_emit(buffer, "%u\n", vgpu->placement);
}

/* A vGPU may be moved until its VM starts (docs/hardware.md 1.2.4). */
int placement_move(struct vgpu *vgpu, u32 start)
{
	struct gpu *gpu = vgpu->gpu;

	if (vgpu->open || !placement_is_mixed(gpu, vgpu->gi) ||
	    !placement_is_free(gpu, vgpu, vgpu->type, vgpu->gi, start))
		return -EIO;
	vgpu->placement = start;
	return 0;
}
