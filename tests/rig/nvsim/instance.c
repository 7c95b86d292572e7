// SPDX-License-Identifier: GPL-2.0-only
/* MIG: its mode, GPU instances on the memory-slice axis, compute instances (docs/hardware.md 3). */
#include <linux/bitops.h>
#include "nvsim.h"

#define NVML_IN_USE	19	/* of nvmlReturn_t: the activation waits */

struct instance *instance_by_id(struct gpu *gpu, u32 id)
{
	unsigned int i;

	for (i = 0; i < NVSIM_MAX_GIS; i++)
		if (gpu->instances[i].exists && gpu->instances[i].id == id)
			return &gpu->instances[i];
	return NULL;
}

unsigned int instance_count(struct gpu *gpu)
{
	unsigned int i, count = 0;

	for (i = 0; i < NVSIM_MAX_GIS; i++)
		count += gpu->instances[i].exists;
	return count;
}

unsigned int instance_vgpus(struct gpu *gpu, u32 id)
{
	unsigned int count = 0;
	struct vgpu *vgpu;

	list_for_each_entry(vgpu, &gpu->vgpus, node)
		count += vgpu->gi == id;
	return count;
}

/*
 * Ampere resets the GPU, and while anything uses it the mode stays pending until the PF is bound again;
 * later families switch at once or not at all (docs/hardware.md 3.2, 1.6.7).
 */
int mig_set(struct gpu *gpu, struct nvsim_mig *mig)
{
	bool enable = mig->enable, used, has_vfs = pci_num_vf(gpu->pdev) > 0;
	int ret = 0;

	mig->status = 0;
	if (!gpu->model->mig)
		return -EOPNOTSUPP;
	mutex_lock(&gpu->lock);
	/* whoever asks is a client himself */
	used = gpu->count || has_vfs || instance_count(gpu);
	if (gpu->model->mig_kept && enable)
		used = used || gpu->clients > 1;
	if (enable == gpu->mig) {
		gpu->card->mig = enable;
	} else if (!used) {
		gpu->card->mig = enable;
		gpu->mig = enable;
		gpu->mixed = false;
		scheduler_reset(gpu->schedulers);
	} else if (gpu->model->mig_kept && enable) {
		gpu->card->mig = enable;
		mig->status = NVML_IN_USE;
	} else {
		ret = -EBUSY;
	}
	mutex_unlock(&gpu->lock);
	return ret;
}

static bool is_taken(struct gpu *gpu, unsigned int start, unsigned int size)
{
	unsigned int i;

	for (i = 0; i < NVSIM_MAX_GIS; i++) {
		struct instance *gi = &gpu->instances[i];

		if (gi->exists && start < gi->start + gi->profile->size && gi->start < start + size)
			return true;
	}
	return false;
}

static unsigned int of_profile(struct gpu *gpu, const struct nvsim_profile *profile)
{
	unsigned int i, count = 0;

	for (i = 0; i < NVSIM_MAX_GIS; i++)
		count += gpu->instances[i].exists && gpu->instances[i].profile == profile;
	return count;
}

static const struct nvsim_profile *profile_by_id(struct gpu *gpu, u32 id)
{
	unsigned int i;

	for (i = 0; i < gpu->model->nprofiles; i++)
		if (gpu->model->profiles[i].id == id)
			return &gpu->model->profiles[i];
	return NULL;
}

/* The whole GPU is 0, its halves 1 and 2, quarters 3 to 6, eighths from 7 on. */
static u32 id_of(struct gpu *gpu, const struct nvsim_profile *profile, u32 start)
{
	return gpu->model->mig_slices / profile->size - 1 + start / profile->size;
}

/* From the top, so that the large profiles, which begin at 0, stay possible. */
static u32 choose(struct gpu *gpu, const struct nvsim_profile *profile)
{
	unsigned int i;

	for (i = profile->nstarts; i--;)
		if (!is_taken(gpu, profile->starts[i], profile->size))
			return profile->starts[i];
	return NONE;
}

static int check_start(struct gpu *gpu, const struct nvsim_profile *profile, u32 start)
{
	unsigned int i;

	for (i = 0; i < profile->nstarts; i++)
		if (profile->starts[i] == start)
			return is_taken(gpu, start, profile->size) ? -ENOSPC : 0;
	return -EINVAL;
}

static struct instance *unused(struct gpu *gpu)
{
	unsigned int i;

	for (i = 0; i < NVSIM_MAX_GIS; i++)
		if (!gpu->instances[i].exists)
			return &gpu->instances[i];
	return NULL;
}

static int create(struct gpu *gpu, struct nvsim_gi_create *request)
{
	const struct nvsim_profile *profile = profile_by_id(gpu, request->profile);
	struct instance *gi = unused(gpu);
	u32 start = request->start;
	int ret;

	if (!gpu->mig)
		return -EOPNOTSUPP;
	if (!profile)
		return -EINVAL;
	if (!gi || of_profile(gpu, profile) >= profile->max)
		return -ENOSPC;
	if (start == NONE) {
		start = choose(gpu, profile);
		if (start == NONE)
			return -ENOSPC;
	}
	ret = check_start(gpu, profile, start);
	if (ret)
		return ret;
	*gi = (struct instance) {
		.exists = true, .profile = profile, .start = start, .id = id_of(gpu, profile, start),
	};
	scheduler_reset(gi->schedulers);
	request->start = start;
	request->id = gi->id;
	return 0;
}

int instance_create(struct gpu *gpu, struct nvsim_gi_create *request)
{
	int ret;

	mutex_lock(&gpu->lock);
	ret = create(gpu, request);
	mutex_unlock(&gpu->lock);
	return ret;
}

int instance_destroy(struct gpu *gpu, u32 id)
{
	struct instance *gi;
	int ret = 0;

	mutex_lock(&gpu->lock);
	gi = instance_by_id(gpu, id);
	if (!gi)
		ret = -ENOENT;
	else if (gi->cis || instance_vgpus(gpu, id))
		ret = -EBUSY;
	else
		gi->exists = false;
	mutex_unlock(&gpu->lock);
	return ret;
}

int instance_list(struct gpu *gpu, struct nvsim_gis *list)
{
	unsigned int i, ci;

	mutex_lock(&gpu->lock);
	for (i = 0; i < NVSIM_MAX_GIS; i++) {
		struct instance *gi = &gpu->instances[i];
		struct nvsim_gi *entry = &list->list[list->count];

		if (!gi->exists)
			continue;
		*entry = (struct nvsim_gi) {
			.id = gi->id, .profile = gi->profile->id, .start = gi->start,
			.size = gi->profile->size, .vgpus = instance_vgpus(gpu, gi->id),
			.cis = gi->cis, .mixed = gi->mixed,
		};
		for (ci = 0; ci < ARRAY_SIZE(gi->ci_slices); ci++)
			entry->ci_profiles[ci] = gi->ci_slices[ci];
		list->count++;
	}
	mutex_unlock(&gpu->lock);
	return 0;
}

/* How many more of a profile: instances of one profile do not overlap each other. */
int instance_room(struct gpu *gpu, struct nvsim_gi_room *room)
{
	const struct nvsim_profile *profile = profile_by_id(gpu, room->profile);
	unsigned int i, free = 0, made;

	if (!profile)
		return -EINVAL;
	mutex_lock(&gpu->lock);
	if (gpu->mig)
		for (i = 0; i < profile->nstarts; i++)
			free += !is_taken(gpu, profile->starts[i], profile->size);
	made = of_profile(gpu, profile);
	mutex_unlock(&gpu->lock);
	room->remaining = min(free, profile->max > made ? profile->max - made : 0);
	return 0;
}

static bool is_running(struct gpu *gpu, u32 id)
{
	struct vgpu *vgpu;

	list_for_each_entry(vgpu, &gpu->vgpus, node)
		if (vgpu->gi == id && vgpu->open)
			return true;
	return false;
}

/* Not on a GPU instance whose guest runs: it has cut its own (docs/hardware.md 3.3). */
int ci_create(struct gpu *gpu, struct nvsim_ci *request)
{
	unsigned int i, used = 0;
	struct instance *gi;
	int ret = 0;

	mutex_lock(&gpu->lock);
	gi = instance_by_id(gpu, request->gi);
	if (!gi) {
		ret = -ENOENT;
		goto out;
	}
	for (i = 0; i < ARRAY_SIZE(gi->ci_slices); i++)
		used += gi->ci_slices[i];
	if (!request->slices || request->slices > gi->profile->slices)
		ret = -EINVAL;
	else if (is_running(gpu, gi->id))
		ret = -EBUSY;
	else if (used + request->slices > gi->profile->slices)
		ret = -ENOSPC;
	if (ret)
		goto out;
	request->id = ffz(gi->cis);
	gi->cis |= BIT(request->id);
	gi->ci_slices[request->id] = request->slices;
out:
	mutex_unlock(&gpu->lock);
	return ret;
}

int ci_destroy(struct gpu *gpu, struct nvsim_ci *request)
{
	struct instance *gi;
	int ret = 0;

	mutex_lock(&gpu->lock);
	gi = instance_by_id(gpu, request->gi);
	if (!gi || request->id >= ARRAY_SIZE(gi->ci_slices) || !(gi->cis & BIT(request->id))) {
		ret = -ENOENT;
	} else if (is_running(gpu, gi->id)) {
		ret = -EBUSY;
	} else {
		gi->cis &= ~BIT(request->id);
		gi->ci_slices[request->id] = 0;
	}
	mutex_unlock(&gpu->lock);
	return ret;
}

static int set_on_instance(struct gpu *gpu, struct instance *gi, bool enable)
{
	if (!gi)
		return -ENOENT;
	if (!gpu->model->mig_timesliced)
		return -EOPNOTSUPP;
	if (gi->mixed == enable)
		return 0;
	if (instance_vgpus(gpu, gi->id))
		return -EBUSY;
	gi->mixed = enable;
	return 0;
}

static int set_on_gpu(struct gpu *gpu, bool enable)
{
	if (!gpu->model->mixed || gpu->card->framework == NVSIM_MDEV || gpu->mig)
		return -EOPNOTSUPP;
	if (gpu->mixed == enable)
		return 0;
	if (gpu->count)
		return -EBUSY;
	/* fixed shares are of one size (docs/hardware.md 4) */
	if (enable && gpu->schedulers[0].policy == 3)
		return -EOPNOTSUPP;
	gpu->mixed = enable;
	return 0;
}

/* Mixed-size mode, of the GPU or of one instance: only while no vGPU is there (docs/hardware.md 3.4). */
int mixed_set(struct gpu *gpu, struct nvsim_mixed *request)
{
	int ret;

	mutex_lock(&gpu->lock);
	if (request->gi == NONE)
		ret = set_on_gpu(gpu, request->enable);
	else
		ret = set_on_instance(gpu, instance_by_id(gpu, request->gi), request->enable);
	mutex_unlock(&gpu->lock);
	return ret;
}
