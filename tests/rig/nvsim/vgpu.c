// SPDX-License-Identifier: GPL-2.0-only
/* A vGPU from its creation to its end. */
#include <linux/ctype.h>
#include <linux/delay.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "nvsim.h"

/*
 * Say why, as the real driver does: the code in the log is the only detail, user space gets EIO
 * (docs/hardware.md 1.1.8, 1.4.10).
 */
int vgpu_refused(u32 parent, unsigned int code, bool is_mdev)
{
	pr_err("NVRM: Failed to add vgpu create request: 0x%x\n", code);
	if (is_mdev) {
		pr_err("vGPU creation failed on device 0x%x. %d\n", parent, -EIO);
		pr_err("nvidia-vgpu-vfio: probe failed with error %d\n", -ENOMEM);
	}
	return -EIO;
}

/* Somebody asks for one: counted, and refused when a fault was asked for. */
int vgpu_begins(struct gpu *gpu, struct pci_dev *parent, bool is_mdev)
{
	unsigned int code = 0;
	int ret = deed_begins(is_mdev ? DEED_CREATE : DEED_TYPE, gpu->card, &code);

	return code ? vgpu_refused(parent_of(parent), code, is_mdev) : ret;
}

/* Create one on a PF or VF; a vendor-VFIO vGPU has no UUID. */
struct vgpu *vgpu_create(struct gpu *gpu, struct pci_dev *parent, const struct nvsim_type *type,
			 const char *mdev_uuid)
{
	static atomic_t handles = ATOMIC_INIT(0);
	struct vgpu *vgpu = kzalloc(sizeof(*vgpu), GFP_KERNEL);
	struct place place;
	enum nvrm code;

	if (!vgpu)
		return ERR_PTR(-ENOMEM);
	mutex_lock(&gpu->lock);
	code = rules_refusal(gpu, parent_of(parent), type, &place);
	if (code == NVRM_OK) {
		vgpu->gpu = gpu;
		vgpu->type = type;
		vgpu->handle = atomic_inc_return(&handles);
		vgpu->parent = parent_of(parent);
		vgpu->gi = place.gi;
		vgpu->placement = place.placement;
		if (mdev_uuid)
			strscpy(vgpu->mdev_uuid, mdev_uuid, sizeof(vgpu->mdev_uuid));
		kref_get(&gpu->ref);
		list_add_tail(&vgpu->node, &gpu->vgpus);
		gpu->count++;
	}
	mutex_unlock(&gpu->lock);
	if (code != NVRM_OK) {
		kfree(vgpu);
		return ERR_PTR(vgpu_refused(parent_of(parent), code, mdev_uuid));
	}
	return vgpu;
}

void vgpu_destroy(struct vgpu *vgpu)
{
	struct gpu *gpu = vgpu->gpu;

	mutex_lock(&gpu->lock);
	list_del(&vgpu->node);
	gpu->count--;
	mutex_unlock(&gpu->lock);
	kfree(vgpu);
	gpu_put(gpu);
}

/* "vgpu-placement-id=N" among the parameters: where its VM wants it. */
static int placed_by_params(struct vgpu *vgpu)
{
	static const char key[] = "vgpu-placement-id=";
	const char *found = strstr(vgpu->params, key);
	unsigned int start;

	if (!found)
		return 0;
	if (sscanf(found + strlen(key), "%u", &start) != 1 || placement_move(vgpu, start)) {
		pr_err("[nvidia-vgpu-vfio] %s: start failed. status: 0x1\n",
		       vgpu->mdev_uuid[0] ? vgpu->mdev_uuid : "VF");
		return -EIO;
	}
	return 0;
}

/* Its VM starts; with gpu->lock. */
int vgpu_open(struct vgpu *vgpu)
{
	struct gpu *gpu = vgpu->gpu;
	int ret;

	if (gpu->gone || gpu_is_lost(gpu))
		return -ENODEV;
	if (gpu->unbind_locked)
		return -EBUSY;
	ret = placed_by_params(vgpu);
	if (ret)
		return ret;
	scheduler_advance(gpu);
	vgpu->open = true;
	vgpu->pid = current->tgid;
	vgpu->ran_ns = 0;
	vgpu->preempted_ns = 0;
	gpu->opened++;
	return 0;
}

/* Its VM is gone. */
void vgpu_close(struct vgpu *vgpu)
{
	struct gpu *gpu = vgpu->gpu;

	mutex_lock(&gpu->lock);
	scheduler_advance(gpu);
	vgpu->open = false;
	vgpu->pid = 0;
	gpu->opened--;
	mutex_unlock(&gpu->lock);
	wake_up_all(&gpu->changed);
}

ssize_t vgpu_params_show(struct vgpu *vgpu, char *buffer)
{
	return sysfs_emit(buffer, "%s\n", vgpu->params);
}

static bool is_params(char *text)
{
	char *each;

	while ((each = strsep(&text, ",")))
		if (!strchr(each, '='))
			return false;
	return true;
}

/* What is written replaces everything, a single space clears it; with gpu->lock. */
int vgpu_params_store(struct vgpu *vgpu, const char *buffer, size_t count)
{
	char *copy, *text;
	int ret = 0;

	if (count > PARAMS_MAX)
		return -EINVAL;
	if (vgpu->open)
		return -EBUSY;
	copy = kmemdup_nul(buffer, count, GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	text = strim(copy);
	if (strlen(text) > 0) {
		char *check = kstrdup(text, GFP_KERNEL);

		if (!check)
			ret = -ENOMEM;
		else if (!is_params(check))
			ret = -EINVAL;
		kfree(check);
	}
	if (!ret)
		strscpy(vgpu->params, text, sizeof(vgpu->params));
	kfree(copy);
	return ret;
}
