// SPDX-License-Identifier: GPL-2.0-only
/* /dev/nvidiactl and /dev/nvidia<N>, and what is asked through them (nvsim_uapi.h). */
#include <linux/capability.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include "nvsim.h"

#define MAJOR_OF_NVIDIA	195
#define MINORS		256
#define CONTROL		255

static dev_t first;
static struct cdev cdev;
static struct class *class;

/* What the driver keeps for itself of the frame buffer, and what is used while no VM runs. */
static u64 visible_bytes(const struct nvsim_model *model)
{
	return ((u64)model->fb_mib * 15 / 16) << 20;
}

#define IDLE_BYTES	(96ULL << 20)

static long host(void __user *user)
{
	struct nvsim_host host = { };
	unsigned int i;

	for (i = 0; i < NVSIM_CARDS; i++) {
		struct gpu *gpu = gpu_get(i);

		if (!gpu)
			continue;
		if (!gpu_is_lost(gpu) && !gpu->gone)
			host.minors[host.count++] = i;
		gpu_put(gpu);
	}
	strscpy(host.driver_version, nvsim_driver_version, sizeof(host.driver_version));
	return copy_to_user(user, &host, sizeof(host)) ? -EFAULT : 0;
}

static int gpu_info(struct gpu *gpu, void *data)
{
	struct nvsim_gpu *info = data;
	const struct nvsim_model *model = gpu->model;
	struct vgpu *vgpu;

	memset(info, 0, sizeof(*info));
	mutex_lock(&gpu->lock);
	info->domain = pci_domain_nr(gpu->pdev->bus);
	info->bus = gpu->card->bus;
	info->vendor_device = model->device << 16 | model->vendor;
	info->subsystem = model->subsystem << 16 | model->vendor;
	info->vfs = pci_num_vf(gpu->pdev);
	info->mig_capable = model->mig;
	info->mig_current = gpu->mig;
	info->mig_pending = gpu->card->mig;
	info->mixed_capable = model->mixed && gpu->card->framework != NVSIM_MDEV;
	info->mixed = gpu->mixed;
	info->sriov = gpu->card->framework != NVSIM_MDEV;
	info->clients = gpu->clients;
	info->fb_bytes = visible_bytes(model);
	info->fb_used_bytes = IDLE_BYTES;
	list_for_each_entry(vgpu, &gpu->vgpus, node)
		if (vgpu->open)
			info->fb_used_bytes += (u64)vgpu->type->fb_mib << 20;
	strscpy(info->key, model->key, sizeof(info->key));
	strscpy(info->name, model->name, sizeof(info->name));
	strscpy(info->uuid, gpu->card->uuid, sizeof(info->uuid));
	mutex_unlock(&gpu->lock);
	return 0;
}

/* Whether some parent takes one more: a legacy PF, or a VF that is free. */
static bool is_creatable(struct gpu *gpu, const struct nvsim_type *type, struct instance *gi)
{
	unsigned int vfs = gpu->card->framework == NVSIM_MDEV ? UINT_MAX : pci_num_vf(gpu->pdev);

	if (gpu->count >= vfs || !rules_available(gpu, NONE, type))
		return false;
	return !gi || rules_creatable_in(gpu, type, gi);
}

static int types(struct gpu *gpu, void *data)
{
	struct nvsim_types *list = data;
	struct instance *gi = NULL;
	unsigned int i;
	int ret = 0;

	list->count = 0;
	mutex_lock(&gpu->lock);
	if (list->gi != NONE) {
		gi = instance_by_id(gpu, list->gi);
		if (!gi) {
			ret = -ENOENT;
			goto out;
		}
	}
	for (i = 0; i < gpu->model->ntypes && list->count < NVSIM_MAX_TYPES; i++) {
		const struct nvsim_type *type = &gpu->model->types[i];

		if (list->creatable ? is_creatable(gpu, type, gi) :
				      !gi || type->gi_profile == gi->profile->id)
			list->ids[list->count++] = type->id;
	}
out:
	mutex_unlock(&gpu->lock);
	return ret;
}

static int vgpus(struct gpu *gpu, void *data)
{
	struct nvsim_vgpus *list = data;
	u32 gi = list->gi;
	struct vgpu *vgpu;

	list->count = 0;
	memset(list->list, 0, sizeof(list->list));
	mutex_lock(&gpu->lock);
	list_for_each_entry(vgpu, &gpu->vgpus, node) {
		struct nvsim_vgpu *entry = &list->list[list->count];

		if (gi != NONE && vgpu->gi != gi)
			continue;
		if (list->count == NVSIM_MAX_VGPUS)
			break;
		list->count++;
		entry->handle = vgpu->handle;
		entry->type = vgpu->type->id;
		entry->vf_bdf = vgpu->parent;
		entry->gi = vgpu->gi;
		entry->placement = vgpu->placement;
		entry->pid = vgpu->pid;
		entry->licensed = vgpu->licensed;
		entry->sm_util = vgpu->sm;
		entry->mem_util = vgpu->mem;
		entry->enc_util = vgpu->enc;
		entry->dec_util = vgpu->dec;
		entry->fb_used_bytes = vgpu->open ? (u64)vgpu->type->fb_mib << 20 : 0;
		strscpy(entry->mdev_uuid, vgpu->mdev_uuid, sizeof(entry->mdev_uuid));
		strscpy(entry->params, vgpu->params, sizeof(entry->params));
	}
	mutex_unlock(&gpu->lock);
	return 0;
}

static int gis(struct gpu *gpu, void *data)
{
	memset(data, 0, sizeof(struct nvsim_gis));
	return instance_list(gpu, data);
}

static int gi_create(struct gpu *gpu, void *data)
{
	return instance_create(gpu, data);
}

static int gi_destroy(struct gpu *gpu, void *data)
{
	return instance_destroy(gpu, *(u32 *)data);
}

static int gi_room(struct gpu *gpu, void *data)
{
	return instance_room(gpu, data);
}

static int make_ci(struct gpu *gpu, void *data)
{
	return ci_create(gpu, data);
}

static int unmake_ci(struct gpu *gpu, void *data)
{
	return ci_destroy(gpu, data);
}

static int mig(struct gpu *gpu, void *data)
{
	return mig_set(gpu, data);
}

static int mixed(struct gpu *gpu, void *data)
{
	return mixed_set(gpu, data);
}

static int placements(struct gpu *gpu, void *data)
{
	int ret;

	mutex_lock(&gpu->lock);
	ret = placement_list(gpu, data);
	mutex_unlock(&gpu->lock);
	return ret;
}

static int sched_get(struct gpu *gpu, void *data)
{
	return scheduler_get(gpu, data);
}

static int sched_set(struct gpu *gpu, void *data)
{
	return scheduler_set(gpu, data);
}

static int sched_log(struct gpu *gpu, void *data)
{
	return scheduler_log(gpu, data);
}

/* What changes something is a deed, and root's. */
static const struct request {
	unsigned int command;
	size_t size;
	int (*act)(struct gpu *gpu, void *data);
	bool changes;
	enum deed deed;
} requests[] = {
	{ NVSIM_IOC_GPU, sizeof(struct nvsim_gpu), gpu_info },
	{ NVSIM_IOC_TYPES, sizeof(struct nvsim_types), types },
	{ NVSIM_IOC_VGPUS, sizeof(struct nvsim_vgpus), vgpus },
	{ NVSIM_IOC_GIS, sizeof(struct nvsim_gis), gis },
	{ NVSIM_IOC_GI_CREATE, sizeof(struct nvsim_gi_create), gi_create, true, DEED_GI },
	{ NVSIM_IOC_GI_DESTROY, sizeof(u32), gi_destroy, true, DEED_GI },
	{ NVSIM_IOC_GI_ROOM, sizeof(struct nvsim_gi_room), gi_room },
	{ NVSIM_IOC_CI_CREATE, sizeof(struct nvsim_ci), make_ci, true, DEED_CI },
	{ NVSIM_IOC_CI_DESTROY, sizeof(struct nvsim_ci), unmake_ci, true, DEED_CI },
	{ NVSIM_IOC_MIG, sizeof(struct nvsim_mig), mig, true, DEED_MIG },
	{ NVSIM_IOC_MIXED, sizeof(struct nvsim_mixed), mixed, true, DEED_MIXED },
	{ NVSIM_IOC_PLACEMENTS, sizeof(struct nvsim_placements), placements },
	{ NVSIM_IOC_SCHED_GET, sizeof(struct nvsim_sched), sched_get },
	{ NVSIM_IOC_SCHED_SET, sizeof(struct nvsim_sched), sched_set, true, DEED_SCHEDULER },
	{ NVSIM_IOC_SCHED_LOG, sizeof(struct nvsim_log), sched_log },
};

static int act(struct gpu *gpu, const struct request *request, void *data)
{
	int ret;

	if (gpu_is_lost(gpu) || READ_ONCE(gpu->gone))
		return -ENODEV;
	if (request->changes && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	ret = deed_begins(request->changes ? request->deed : DEED_READ, gpu->card, NULL);
	return ret ? ret : request->act(gpu, data);
}

static long gpu_ioctl(struct gpu *gpu, unsigned int command, void __user *user)
{
	const struct request *request;
	void *data;
	long ret;

	for (request = requests; request < requests + ARRAY_SIZE(requests); request++)
		if (request->command == command)
			break;
	if (request == requests + ARRAY_SIZE(requests))
		return -ENOTTY;
	data = kvzalloc(request->size, GFP_KERNEL);
	if (!data)
		return -ENOMEM;
	ret = -EFAULT;
	if (copy_from_user(data, user, request->size))
		goto free;
	ret = act(gpu, request, data);
	if (!ret && copy_to_user(user, data, request->size))
		ret = -EFAULT;
free:
	kvfree(data);
	return ret;
}

/* A file of nvidiactl has no GPU. */
static long node_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	void __user *user = (void __user *)argument;

	if (file->private_data)
		return gpu_ioctl(file->private_data, command, user);
	return command == NVSIM_IOC_HOST ? host(user) : -ENOTTY;
}

static int node_open(struct inode *inode, struct file *file)
{
	unsigned int minor = iminor(inode);
	struct gpu *gpu;
	int ret;

	file->private_data = NULL;
	if (minor == CONTROL)
		return 0;
	gpu = gpu_get(minor);
	if (!gpu)
		return -ENXIO;
	ret = deed_begins(DEED_NODE, gpu->card, NULL);
	if (!ret)
		ret = gpu_enter(gpu);
	if (ret)
		gpu_put(gpu);
	else
		file->private_data = gpu;
	return ret;
}

static int node_close(struct inode *inode, struct file *file)
{
	struct gpu *gpu = file->private_data;

	if (gpu) {
		gpu_leave(gpu);
		gpu_put(gpu);
	}
	return 0;
}

static const struct file_operations node_fops = {
	.owner = THIS_MODULE,
	.open = node_open,
	.release = node_close,
	.unlocked_ioctl = node_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

void node_add(struct gpu *gpu)
{
	unsigned int minor = gpu->card->index;
	struct device *dev = device_create(class, NULL, MKDEV(MAJOR(first), minor), NULL, "nvidia%u", minor);

	if (IS_ERR(dev))
		pci_err(gpu->pdev, "no device node: %ld\n", PTR_ERR(dev));
}

void node_remove(struct gpu *gpu)
{
	device_destroy(class, MKDEV(MAJOR(first), gpu->card->index));
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
static char *node_mode(const struct device *dev, umode_t *mode)
#else
static char *node_mode(struct device *dev, umode_t *mode)
#endif
{
	if (mode)
		*mode = 0666;
	return NULL;
}

int node_init(void)
{
	struct device *dev;
	int ret;

	first = MKDEV(MAJOR_OF_NVIDIA, 0);
	ret = register_chrdev_region(first, MINORS, "nvidia");
	if (ret)
		ret = alloc_chrdev_region(&first, 0, MINORS, "nvidia");
	if (ret)
		return ret;
	cdev_init(&cdev, &node_fops);
	cdev.owner = THIS_MODULE;
	ret = cdev_add(&cdev, first, MINORS);
	if (ret)
		goto region;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	class = class_create("nvidia");
#else
	class = class_create(THIS_MODULE, "nvidia");
#endif
	if (IS_ERR(class)) {
		ret = PTR_ERR(class);
		goto cdev;
	}
	class->devnode = node_mode;
	dev = device_create(class, NULL, MKDEV(MAJOR(first), CONTROL), NULL, "nvidiactl");
	if (!IS_ERR(dev))
		return 0;
	ret = PTR_ERR(dev);
	class_destroy(class);
cdev:
	cdev_del(&cdev);
region:
	unregister_chrdev_region(first, MINORS);
	return ret;
}

void node_exit(void)
{
	device_destroy(class, MKDEV(MAJOR(first), CONTROL));
	class_destroy(class);
	cdev_del(&cdev);
	unregister_chrdev_region(first, MINORS);
}
