// SPDX-License-Identifier: GPL-2.0-only
/* vGPUs by vendor-specific VFIO: a VF with a type, set in <VF>/nvidia/ (docs/hardware.md 1.4). */
#include <linux/ctype.h>
#include <linux/string.h>
#include "nvsim.h"

static struct function *function_of(struct device *dev)
{
	return dev_get_drvdata(dev);
}

static ssize_t creatable_vgpu_types_show(struct device *dev, struct device_attribute *attr, char *buffer)
{
	struct function *fn = function_of(dev);
	struct gpu *gpu = fn->gpu;
	unsigned int i;
	ssize_t ret = deed_begins(DEED_READ, gpu->card, NULL);

	if (ret)
		return ret;
	if (nvsim_creatable_header)
		ret = sysfs_emit(buffer, "ID    : vGPU Name\n");
	mutex_lock(&gpu->lock);
	for (i = 0; i < gpu->model->ntypes; i++) {
		const struct nvsim_type *type = &gpu->model->types[i];

		if (rules_available(gpu, parent_of(fn->pdev), type))
			ret += sysfs_emit_at(buffer, ret, "%-5u : %s\n", type->id, type->name);
	}
	mutex_unlock(&gpu->lock);
	return ret;
}
static DEVICE_ATTR_RO(creatable_vgpu_types);

static ssize_t current_vgpu_type_show(struct device *dev, struct device_attribute *attr, char *buffer)
{
	struct function *fn = function_of(dev);
	struct vgpu *vgpu;
	u32 id;
	ssize_t ret = deed_begins(DEED_READ, fn->gpu->card, NULL);

	if (ret)
		return ret;
	mutex_lock(&fn->gpu->lock);
	vgpu = vfio_vgpu(fn->vfio);
	id = vgpu ? vgpu->type->id : 0;
	mutex_unlock(&fn->gpu->lock);
	return sysfs_emit(buffer, "%u\n", id);
}

/* Take the type from the VF.  What it does while somebody has the VF open is not known (8.3). */
static int clear_type(struct function *fn)
{
	static const int errnos[] = { [HELD_EPERM] = -EPERM, [HELD_EBUSY] = -EBUSY };
	struct gpu *gpu = fn->gpu;
	struct vgpu *vgpu = NULL;
	int ret = deed_begins(DEED_REMOVE, gpu->card, NULL);

	if (ret)
		return ret;
	for (;;) {
		mutex_lock(&gpu->lock);
		vgpu = vfio_vgpu(fn->vfio);
		if (!vgpu || !vgpu->open)
			break;
		mutex_unlock(&gpu->lock);
		if (nvsim_clear_held != HELD_BLOCK)
			return errnos[nvsim_clear_held];
		/* fn->writer is held: nobody else frees it */
		wait_event(gpu->changed, !READ_ONCE(vgpu->open));
	}
	vfio_set_vgpu(fn->vfio, NULL);
	mutex_unlock(&gpu->lock);
	if (vgpu)
		vgpu_destroy(vgpu);
	return 0;
}

static int set_type(struct function *fn, u32 id)
{
	const struct nvsim_type *type = rules_type(fn->gpu, id);
	int ret = vgpu_begins(fn->gpu, fn->pdev, false);
	struct vgpu *vgpu;

	if (ret)
		return ret;
	if (vfio_vgpu(fn->vfio))
		return -EPERM;	/* the same type too (docs/hardware.md T17) */
	if (!type)
		return vgpu_refused(parent_of(fn->pdev), NVRM_OBJECT_NOT_FOUND, false);
	vgpu = vgpu_create(fn->gpu, fn->pdev, type, NULL);
	if (IS_ERR(vgpu))
		return PTR_ERR(vgpu);
	mutex_lock(&fn->gpu->lock);
	vfio_set_vgpu(fn->vfio, vgpu);
	mutex_unlock(&fn->gpu->lock);
	return 0;
}

static ssize_t current_vgpu_type_store(struct device *dev, struct device_attribute *attr, const char *buffer,
				       size_t count)
{
	struct function *fn = function_of(dev);
	int ret;
	u32 id;

	if (!isdigit(buffer[0]) || kstrtou32(buffer, 10, &id))
		return -EINVAL;
	mutex_lock(&fn->writer);
	ret = id ? set_type(fn, id) : clear_type(fn);
	mutex_unlock(&fn->writer);
	return ret ? ret : count;
}
static DEVICE_ATTR_RW(current_vgpu_type);

/* What a vGPU shows; ENXIO while there is none. */
static ssize_t show(struct device *dev, char *buffer, ssize_t (*text)(struct vgpu *vgpu, char *buffer))
{
	struct function *fn = function_of(dev);
	struct vgpu *vgpu;
	ssize_t ret = deed_begins(DEED_READ, fn->gpu->card, NULL);

	if (ret)
		return ret;
	mutex_lock(&fn->gpu->lock);
	vgpu = vfio_vgpu(fn->vfio);
	ret = vgpu ? text(vgpu, buffer) : -ENXIO;
	mutex_unlock(&fn->gpu->lock);
	return ret;
}

/* Change a vGPU that no VM has. */
static ssize_t store(struct device *dev, enum deed deed, const char *buffer, size_t count,
		     int (*change)(struct vgpu *vgpu, const char *buffer, size_t count))
{
	struct function *fn = function_of(dev);
	struct vgpu *vgpu;
	int ret = deed_begins(deed, fn->gpu->card, NULL);

	if (ret)
		return ret;
	mutex_lock(&fn->gpu->lock);
	vgpu = vfio_vgpu(fn->vfio);
	ret = vgpu ? change(vgpu, buffer, count) : -ENXIO;
	mutex_unlock(&fn->gpu->lock);
	return ret ? ret : count;
}

static ssize_t vgpu_params_show_vf(struct device *dev, struct device_attribute *attr, char *buffer)
{
	return show(dev, buffer, vgpu_params_show);
}

static ssize_t vgpu_params_store_vf(struct device *dev, struct device_attribute *attr, const char *buffer,
				    size_t count)
{
	return store(dev, DEED_PARAMS, buffer, count, vgpu_params_store);
}

static struct device_attribute attr_params =
	__ATTR(vgpu_params, 0644, vgpu_params_show_vf, vgpu_params_store_vf);

static ssize_t placement_id_show(struct device *dev, struct device_attribute *attr, char *buffer)
{
	return show(dev, buffer, placement_show);
}

static int move_to_placement(struct vgpu *vgpu, const char *buffer, size_t count)
{
	u32 start;

	if (kstrtou32(buffer, 10, &start))
		return -EINVAL;
	return placement_move(vgpu, start);
}

static ssize_t placement_id_store(struct device *dev, struct device_attribute *attr, const char *buffer,
				  size_t count)
{
	return store(dev, DEED_PLACEMENT, buffer, count, move_to_placement);
}
static DEVICE_ATTR_RW(placement_id);

static ssize_t gi_text(struct vgpu *vgpu, char *buffer)
{
	if (vgpu->gi == NONE)
		return sysfs_emit(buffer, "Not Applicable\n");
	return sysfs_emit(buffer, "%u\n", vgpu->gi);
}

static ssize_t gpu_instance_id_show(struct device *dev, struct device_attribute *attr, char *buffer)
{
	return show(dev, buffer, gi_text);
}

static int move_to_instance(struct vgpu *vgpu, const char *buffer, size_t count)
{
	struct gpu *gpu = vgpu->gpu;
	struct instance *gi;
	u32 id;

	if (kstrtou32(buffer, 10, &id))
		return -EINVAL;
	if (vgpu->gi == id)
		return 0;
	gi = instance_by_id(gpu, id);
	if (vgpu->open || vgpu->gi == NONE || !gi || !rules_creatable_in(gpu, vgpu->type, gi))
		return -EIO;
	vgpu->placement = gi->mixed ? placement_first(gpu, vgpu->type, id) : NONE;
	vgpu->gi = id;
	return 0;
}

static ssize_t gpu_instance_id_store(struct device *dev, struct device_attribute *attr, const char *buffer,
				     size_t count)
{
	return store(dev, DEED_GPU_INSTANCE, buffer, count, move_to_instance);
}
static DEVICE_ATTR_RW(gpu_instance_id);

static umode_t is_visible(struct kobject *kobj, struct attribute *attr, int n)
{
	if (attr == &dev_attr_placement_id.attr && !nvsim_placement_writable)
		return 0444;
	if (attr == &dev_attr_gpu_instance_id.attr && !nvsim_gi_writable)
		return 0444;
	return attr->mode;
}

static struct attribute *attributes[] = {
	&dev_attr_creatable_vgpu_types.attr, &dev_attr_current_vgpu_type.attr, &attr_params.attr,
	&dev_attr_gpu_instance_id.attr, &dev_attr_placement_id.attr, NULL
};
static const struct attribute_group group = {
	.name = "nvidia", .attrs = attributes, .is_visible = is_visible,
};

/* A VF has its VFIO device from the start; it cannot be opened without a type (docs/hardware.md 1.4.9). */
int vendor_add(struct function *fn)
{
	int ret;

	fn->vfio = vfio_add(&fn->pdev->dev, fn->gpu, NULL);
	if (IS_ERR(fn->vfio))
		return PTR_ERR(fn->vfio);
	ret = sysfs_create_group(&fn->pdev->dev.kobj, &group);
	if (ret)
		vfio_remove(fn->vfio);
	return ret;
}

void vendor_remove(struct function *fn)
{
	struct vgpu *vgpu;

	sysfs_remove_group(&fn->pdev->dev.kobj, &group);
	vfio_remove(fn->vfio);
	mutex_lock(&fn->gpu->lock);
	vgpu = rules_vgpu_on(fn->gpu, parent_of(fn->pdev));
	mutex_unlock(&fn->gpu->lock);
	if (vgpu)
		vgpu_destroy(vgpu);
}
