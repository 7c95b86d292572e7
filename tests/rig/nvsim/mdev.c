// SPDX-License-Identifier: GPL-2.0-only
/* vGPUs as mediated devices, on a PF or on VFs. */
#include <linux/module.h>
#include <linux/slab.h>
#include "nvsim.h"

struct parent_type {
	struct mdev_type mdev;
	const struct nvsim_type *type;
	struct parent *parent;
	char number[12];
};

struct parent {
	struct mdev_parent mdev;
	struct gpu *gpu;
	struct pci_dev *pdev;
	bool leaving;
	struct mdev_type **pointers;
	struct parent_type types[];
};

/* What an mdev has for its life. */
struct mediated {
	struct vgpu *vgpu;
	struct device_vfio *vfio;
	struct parent *parent;
};

static struct parent_type *type_of(struct mdev_type *mdev)
{
	return container_of(mdev, struct parent_type, mdev);
}

static int nvsim_mdev_probe(struct mdev_device *mdev)
{
	struct parent_type *type = type_of(mdev->type);
	struct parent *parent = type->parent;
	int ret = vgpu_begins(parent->gpu, parent->pdev, true);
	struct mediated *mediated;

	if (ret)
		return ret;
	mediated = kzalloc(sizeof(*mediated), GFP_KERNEL);
	if (!mediated)
		return -ENOMEM;
	mediated->parent = parent;
	mediated->vgpu = vgpu_create(parent->gpu, parent->pdev, type->type, dev_name(&mdev->dev));
	if (IS_ERR(mediated->vgpu)) {
		ret = PTR_ERR(mediated->vgpu);
		goto free;
	}
	mediated->vfio = vfio_add(&mdev->dev, parent->gpu, mediated->vgpu);
	if (IS_ERR(mediated->vfio)) {
		ret = PTR_ERR(mediated->vfio);
		vgpu_destroy(mediated->vgpu);
		goto free;
	}
	dev_set_drvdata(&mdev->dev, mediated);
	return 0;
free:
	kfree(mediated);
	return ret;
}

static void nvsim_mdev_remove(struct mdev_device *mdev)
{
	struct mediated *mediated = dev_get_drvdata(&mdev->dev);

	/* The kernel has begun; a fault can only delay it. */
	if (!READ_ONCE(mediated->parent->leaving))
		deed_begins(DEED_REMOVE, mediated->parent->gpu->card, NULL);
	vfio_remove(mediated->vfio);
	vgpu_destroy(mediated->vgpu);
	kfree(mediated);
}

static unsigned int nvsim_mdev_available(struct mdev_type *mdev)
{
	struct parent_type *type = type_of(mdev);
	struct gpu *gpu = type->parent->gpu;
	unsigned int count;

	if (deed_begins(DEED_READ, gpu->card, NULL))
		return 0;
	mutex_lock(&gpu->lock);
	count = rules_available(gpu, parent_of(type->parent->pdev), type->type);
	mutex_unlock(&gpu->lock);
	return count;
}

static ssize_t nvsim_mdev_description(struct mdev_type *mdev, char *buffer)
{
	const struct nvsim_type *type = type_of(mdev)->type;

	return sysfs_emit(buffer, "num_heads=%u, frl_config=%u, framebuffer=%uM, max_resolution=%ux%u, "
			  "max_instance=%u\n", type->heads, type->frl_fps, type->fb_mib, type->width,
			  type->height, type->max_per_gpu);
}

static struct vgpu *vgpu_of(struct device *dev)
{
	return ((struct mediated *)dev_get_drvdata(dev))->vgpu;
}

static ssize_t vgpu_params_show_mdev(struct device *dev, struct device_attribute *attr, char *buffer)
{
	struct vgpu *vgpu = vgpu_of(dev);
	ssize_t ret = deed_begins(DEED_READ, vgpu->gpu->card, NULL);

	if (ret)
		return ret;
	mutex_lock(&vgpu->gpu->lock);
	ret = vgpu_params_show(vgpu, buffer);
	mutex_unlock(&vgpu->gpu->lock);
	return ret;
}

static ssize_t vgpu_params_store_mdev(struct device *dev, struct device_attribute *attr, const char *buffer,
				      size_t count)
{
	struct vgpu *vgpu = vgpu_of(dev);
	int ret = deed_begins(DEED_PARAMS, vgpu->gpu->card, NULL);

	if (ret)
		return ret;
	mutex_lock(&vgpu->gpu->lock);
	ret = vgpu_params_store(vgpu, buffer, count);
	mutex_unlock(&vgpu->gpu->lock);
	return ret ? ret : count;
}

static ssize_t placement_id_show(struct device *dev, struct device_attribute *attr, char *buffer)
{
	struct vgpu *vgpu = vgpu_of(dev);
	ssize_t ret = deed_begins(DEED_READ, vgpu->gpu->card, NULL);

	if (ret)
		return ret;
	mutex_lock(&vgpu->gpu->lock);
	ret = placement_show(vgpu, buffer);
	mutex_unlock(&vgpu->gpu->lock);
	return ret;
}

static ssize_t placement_id_store(struct device *dev, struct device_attribute *attr, const char *buffer,
				  size_t count)
{
	struct vgpu *vgpu = vgpu_of(dev);
	u32 start;
	int ret = deed_begins(DEED_PLACEMENT, vgpu->gpu->card, NULL);

	if (!ret)
		ret = kstrtou32(buffer, 10, &start);
	if (ret)
		return ret;
	mutex_lock(&vgpu->gpu->lock);
	ret = placement_move(vgpu, start);
	mutex_unlock(&vgpu->gpu->lock);
	return ret ? ret : count;
}

static struct device_attribute attr_params =
	__ATTR(vgpu_params, 0644, vgpu_params_show_mdev, vgpu_params_store_mdev);
static DEVICE_ATTR_RW(placement_id);

static umode_t is_visible(struct kobject *kobj, struct attribute *attr, int n)
{
	return attr == &dev_attr_placement_id.attr && !nvsim_placement_writable ? 0444 : attr->mode;
}

static struct attribute *attributes[] = { &attr_params.attr, &dev_attr_placement_id.attr, NULL };
static const struct attribute_group group = {
	.name = "nvidia", .attrs = attributes, .is_visible = is_visible,
};
static const struct attribute_group *groups[] = { &group, NULL };

static struct mdev_driver nvsim_mdev_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.driver = {
		.name = "nvidia-vgpu-vfio",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
		.dev_groups = groups,
	},
	.probe = nvsim_mdev_probe,
	.remove = nvsim_mdev_remove,
	.get_available = nvsim_mdev_available,
	.show_description = nvsim_mdev_description,
};

/* Offer all types of the model there; their directories are named after the driver, or `pci` without. */
struct parent *parent_add(struct gpu *gpu, struct pci_dev *pdev)
{
	unsigned int i, count = gpu->model->ntypes;
	struct parent *parent = kzalloc(struct_size(parent, types, count), GFP_KERNEL);
	int ret = -ENOMEM;

	if (!parent)
		return ERR_PTR(ret);
	parent->pointers = kcalloc(count, sizeof(*parent->pointers), GFP_KERNEL);
	if (!parent->pointers)
		goto free;
	parent->gpu = gpu;
	parent->pdev = pdev;
	for (i = 0; i < count; i++) {
		struct parent_type *type = &parent->types[i];

		type->type = &gpu->model->types[i];
		type->parent = parent;
		snprintf(type->number, sizeof(type->number), "%u", type->type->id);
		type->mdev.sysfs_name = type->number;
		type->mdev.pretty_name = type->type->name;
		parent->pointers[i] = &type->mdev;
	}
	ret = mdev_register_parent(&parent->mdev, &pdev->dev, &nvsim_mdev_driver, parent->pointers, count);
	if (!ret)
		return parent;
	kfree(parent->pointers);
free:
	kfree(parent);
	return ERR_PTR(ret);
}

void parent_remove(struct parent *parent)
{
	WRITE_ONCE(parent->leaving, true);
	mdev_unregister_parent(&parent->mdev);
	kfree(parent->pointers);
	kfree(parent);
}

int mdev_init(void)
{
	return mdev_register_driver(&nvsim_mdev_driver);
}

void mdev_exit(void)
{
	mdev_unregister_driver(&nvsim_mdev_driver);
}
