// SPDX-License-Identifier: GPL-2.0-only
/* What may be created on a GPU now, and where it would lie (docs/hardware.md 0.2, 0.3, 1.4.10, 2.9, 3.3). */
#include "nvsim.h"

const struct nvsim_type *rules_type(struct gpu *gpu, u32 id)
{
	unsigned int i;

	for (i = 0; i < gpu->model->ntypes; i++)
		if (gpu->model->types[i].id == id)
			return &gpu->model->types[i];
	return NULL;
}

struct vgpu *rules_vgpu_on(struct gpu *gpu, u32 parent)
{
	struct vgpu *vgpu;

	list_for_each_entry(vgpu, &gpu->vgpus, node)
		if (vgpu->parent == parent)
			return vgpu;
	return NULL;
}

/* Those of one frame-buffer size: types of one size may be mixed. */
static unsigned int same_size(struct gpu *gpu, const struct nvsim_type *type)
{
	struct vgpu *vgpu;
	unsigned int count = 0;

	list_for_each_entry(vgpu, &gpu->vgpus, node)
		count += vgpu->type->fb_mib == type->fb_mib;
	return count;
}

static unsigned int used_mib(struct gpu *gpu)
{
	struct vgpu *vgpu;
	unsigned int mib = 0;

	list_for_each_entry(vgpu, &gpu->vgpus, node)
		mib += vgpu->type->fb_mib;
	return mib;
}

/* How many more of a time-sliced type there is room for. */
static unsigned int room(struct gpu *gpu, const struct nvsim_type *type)
{
	unsigned int same = same_size(gpu, type), limit = type->max_per_gpu, left;
	unsigned int fitting = (gpu->model->fb_mib - min(used_mib(gpu), gpu->model->fb_mib)) / type->fb_mib;

	if (gpu->mixed && type->max_per_gpu_mixed)
		limit = type->max_per_gpu_mixed;
	left = limit > same ? limit - same : 0;
	if (gpu->mixed)
		left = min(left, fitting);
	return gpu->count >= MAX_TIMESLICED ? 0 : min(left, MAX_TIMESLICED - gpu->count);
}

static enum nvrm refuse_timesliced(struct gpu *gpu, const struct nvsim_type *type, struct place *place)
{
	if (!gpu->mixed && gpu->count != same_size(gpu, type))
		return NVRM_NOT_SUPPORTED;
	if (!room(gpu, type))
		return NVRM_INSUFFICIENT_RESOURCES;
	if (gpu->mixed) {
		place->placement = placement_first(gpu, type, NONE);
		if (place->placement == NONE)
			return NVRM_INVALID_STATE;
	}
	return NVRM_OK;
}

/* Whether one more fits on that GPU instance: a free one, or a time-sliced one of that size. */
bool rules_creatable_in(struct gpu *gpu, const struct nvsim_type *type, const struct instance *gi)
{
	unsigned int same = 0, all = 0;
	struct vgpu *vgpu;

	if (gi->profile->id != type->gi_profile)
		return false;
	list_for_each_entry(vgpu, &gpu->vgpus, node) {
		if (vgpu->gi != gi->id)
			continue;
		all++;
		same += vgpu->type->fb_mib == type->fb_mib;
	}
	if (!all)
		return true;
	if (!gpu->model->mig_timesliced || all >= MAX_PER_GI)
		return false;
	if (gi->mixed)
		return same < type->max_per_gi && placement_first(gpu, type, gi->id) != NONE;
	return same == all && same < type->max_per_gi;
}

/* The driver takes the first instance, by id, of exactly the type's profile that has room. */
static enum nvrm refuse_mig(struct gpu *gpu, const struct nvsim_type *type, struct place *place)
{
	struct instance *found = NULL;
	unsigned int i;

	if (!instance_count(gpu))
		return NVRM_INVALID_OPERATION;
	for (i = 0; i < NVSIM_MAX_GIS; i++) {
		struct instance *gi = &gpu->instances[i];

		if (gi->exists && rules_creatable_in(gpu, type, gi) && (!found || gi->id < found->id))
			found = gi;
	}
	if (!found)
		return NVRM_INVALID_STATE;
	if (gpu->count >= MAX_GPU_VGPUS)
		return NVRM_INSUFFICIENT_RESOURCES;
	place->gi = found->id;
	if (found->mixed)
		place->placement = placement_first(gpu, type, found->id);
	return NVRM_OK;
}

/* Why the driver would not create that type there; what is being removed still counts. */
enum nvrm rules_refusal(struct gpu *gpu, u32 parent, const struct nvsim_type *type, struct place *place)
{
	*place = (struct place) { NONE, NONE };
	if (gpu->gone || gpu_is_lost(gpu) || gpu->unbind_locked || !gpu->ready)
		return NVRM_NOT_READY;
	if (gpu->card->framework != NVSIM_MDEV && rules_vgpu_on(gpu, parent))
		return NVRM_INVALID_OPERATION;
	if (gpu->mig != is_mig_type(type))
		return NVRM_INVALID_OPERATION;
	return gpu->mig ? refuse_mig(gpu, type, place) : refuse_timesliced(gpu, type, place);
}

/* How many more on a PF, 0 or 1 on a VF. */
unsigned int rules_available(struct gpu *gpu, u32 parent, const struct nvsim_type *type)
{
	struct place place;

	if (rules_refusal(gpu, parent, type, &place) != NVRM_OK)
		return 0;
	return gpu->card->framework == NVSIM_MDEV ? room(gpu, type) : 1;
}
