// SPDX-License-Identifier: GPL-2.0-only
/* /proc/driver/nvidia: the version, and of each GPU what it is and its unbindLock. */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include "nvsim.h"

static struct proc_dir_entry *root, *gpus;

static int version_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  %s  simulated\n",
		   nvsim_driver_version);
	return 0;
}

static void field(struct seq_file *file, const char *name, const char *value)
{
	seq_printf(file, "%-16s %s\n", name, value);
}

static int information_show(struct seq_file *file, void *unused)
{
	struct gpu *gpu = file->private;
	char minor[12];

	snprintf(minor, sizeof(minor), "%u", gpu->card->index);
	field(file, "Model:", gpu->model->name);
	field(file, "IRQ:", "0");
	field(file, "GPU UUID:", nvsim_uuid_late && !gpu->touched ?
	      "GPU-????????-????-????-????-????????????" : gpu->card->uuid);
	field(file, "Bus Type:", "PCIe");
	field(file, "Bus Location:", gpu->card->bdf);
	field(file, "Device Minor:", minor);
	field(file, "GPU Excluded:", "No");
	return 0;
}

static int lock_show(struct seq_file *file, void *unused)
{
	struct gpu *gpu = file->private;

	seq_printf(file, "%u\n", READ_ONCE(gpu->unbind_locked));
	return 0;
}

static int lock_open(struct inode *inode, struct file *file)
{
	return single_open(file, lock_show, pde_data(inode));
}

/* 1 asks for the lock: it is granted only while nobody uses the GPU, which reading tells. */
static ssize_t lock_write(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	struct gpu *gpu = pde_data(file_inode(file));
	bool lock;
	int ret = kstrtobool_from_user(buffer, count, &lock);

	if (ret)
		return ret;
	mutex_lock(&gpu->lock);
	if (!lock)
		gpu->unbind_locked = false;
	else if (!gpu->clients && !gpu->opened)
		gpu->unbind_locked = true;
	mutex_unlock(&gpu->lock);
	return count;
}

static const struct proc_ops lock_ops = {
	.proc_open = lock_open,
	.proc_read = seq_read,
	.proc_write = lock_write,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

void procfs_add(struct gpu *gpu)
{
	gpu->proc = proc_mkdir(gpu->card->bdf, gpus);
	if (!gpu->proc)
		return;
	proc_create_single_data("information", 0444, gpu->proc, information_show, gpu);
	proc_create_data("unbindLock", 0644, gpu->proc, &lock_ops, gpu);
}

void procfs_remove(struct gpu *gpu)
{
	proc_remove(gpu->proc);
}

int procfs_init(void)
{
	root = proc_mkdir("driver/nvidia", NULL);
	if (!root)
		return -ENOMEM;
	gpus = proc_mkdir("gpus", root);
	proc_create_single("version", 0444, root, version_show);
	return 0;
}

void procfs_exit(void)
{
	proc_remove(root);
}
