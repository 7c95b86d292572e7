// SPDX-License-Identifier: GPL-2.0-only
/* What a test sees and sets of the vGPUs of one GPU. */
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include "nvsim.h"

static int vgpus_show(struct seq_file *file, void *unused)
{
	struct gpu *gpu = file->private;
	struct vgpu *vgpu;

	mutex_lock(&gpu->lock);
	list_for_each_entry(vgpu, &gpu->vgpus, node)
		seq_printf(file, "handle=%u type=%u parent=%.5s%02x:%02x.%u gi=%d placement=%d open=%d "
			   "licensed=%u sm=%u mem=%u enc=%u dec=%u uuid=%s\n",
			   vgpu->handle, vgpu->type->id, gpu->card->bdf, vgpu->parent >> 8,
			   PCI_SLOT(vgpu->parent & 0xff), PCI_FUNC(vgpu->parent), (int)vgpu->gi, (int)vgpu->placement, vgpu->pid,
			   vgpu->licensed, vgpu->sm, vgpu->mem, vgpu->enc, vgpu->dec, vgpu->mdev_uuid);
	mutex_unlock(&gpu->lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(vgpus);

/* "HANDLE sm mem enc dec licensed" */
static ssize_t activity_write(struct file *file, const char __user *user, size_t count, loff_t *position)
{
	struct gpu *gpu = file->private_data;
	u32 handle, sm, mem, enc, dec, licensed;
	struct vgpu *vgpu;
	char line[80];
	int ret = -ENOENT;

	if (count >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, user, count))
		return -EFAULT;
	line[count] = 0;
	if (sscanf(line, "%u %u %u %u %u %u", &handle, &sm, &mem, &enc, &dec, &licensed) != 6)
		return -EINVAL;
	mutex_lock(&gpu->lock);
	scheduler_advance(gpu);
	list_for_each_entry(vgpu, &gpu->vgpus, node) {
		if (vgpu->handle != handle)
			continue;
		vgpu->sm = sm;
		vgpu->mem = mem;
		vgpu->enc = enc;
		vgpu->dec = dec;
		vgpu->licensed = licensed;
		ret = 0;
	}
	mutex_unlock(&gpu->lock);
	return ret ? ret : count;
}

static const struct file_operations activity_ops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = activity_write,
};

void debug_add(struct gpu *gpu)
{
	struct dentry *card = gpu->card->debugfs;

	gpu->vgpus_file = debugfs_create_file("vgpus", 0400, card, gpu, &vgpus_fops);
	gpu->activity_file = debugfs_create_file("activity", 0200, card, gpu, &activity_ops);
}

void debug_remove(struct gpu *gpu)
{
	debugfs_remove(gpu->vgpus_file);
	debugfs_remove(gpu->activity_file);
}
