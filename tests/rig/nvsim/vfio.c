// SPDX-License-Identifier: GPL-2.0-only
/* The VFIO device by which a VM has a vGPU. */
#include <linux/eventfd.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include "guest.h"
#include "nvsim.h"

#define REGION_SHIFT	40

struct device_vfio {
	struct vfio_device vdev;	/* first: vfio_alloc_device() wants it so */
	struct gpu *gpu;
	struct vgpu *vgpu;		/* NULL on a VF without a type; with gpu->lock */
	struct mutex lock;		/* the guest's side of it */
	struct guest *guest;
	struct eventfd_ctx *let_go;	/* who has it open is asked by this */
};

static struct device_vfio *of(struct vfio_device *vdev)
{
	return container_of(vdev, struct device_vfio, vdev);
}

static int nvsim_vfio_init(struct vfio_device *vdev)
{
	struct device_vfio *vfio = of(vdev);

	mutex_init(&vfio->lock);
	vfio->guest = guest_alloc();
	return vfio->guest ? 0 : -ENOMEM;
}

static void nvsim_vfio_release(struct vfio_device *vdev)
{
	guest_free(of(vdev)->guest);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	vfio_free_device(vdev);
#endif
}

/* EIO while the VF has no type: QEMU says "error getting device from group" (docs/hardware.md 6.3). */
static int nvsim_vfio_open(struct vfio_device *vdev)
{
	struct device_vfio *vfio = of(vdev);
	struct gpu *gpu = vfio->gpu;
	int ret = deed_begins(DEED_OPEN, gpu->card, NULL);

	if (ret)
		return ret;
	mutex_lock(&gpu->lock);
	ret = vfio->vgpu ? vgpu_open(vfio->vgpu) : -EIO;
	if (!ret)
		guest_reset(vfio->guest, gpu->model, vfio->vgpu->type);
	mutex_unlock(&gpu->lock);
	return ret;
}

static void nvsim_vfio_close(struct vfio_device *vdev)
{
	struct device_vfio *vfio = of(vdev);

	mutex_lock(&vfio->lock);
	if (vfio->let_go)
		eventfd_ctx_put(vfio->let_go);
	vfio->let_go = NULL;
	mutex_unlock(&vfio->lock);
	vgpu_close(vfio->vgpu);
}

static ssize_t rw(struct device_vfio *vfio, char __user *buffer, size_t count, loff_t *position, bool write)
{
	unsigned int region = *position >> REGION_SHIFT;
	u64 offset = *position & ((1ULL << REGION_SHIFT) - 1);
	int ret;

	if (gpu_is_lost(vfio->gpu)) {
		if (!write && count <= sizeof(u64)) {
			u64 nothing = ~0ULL;

			return copy_to_user(buffer, &nothing, count) ? -EFAULT : count;
		}
		return -EIO;
	}
	mutex_lock(&vfio->lock);
	ret = guest_rw(vfio->guest, region, offset, buffer, count, write);
	mutex_unlock(&vfio->lock);
	if (ret)
		return ret;
	*position += count;
	return count;
}

static ssize_t nvsim_vfio_read(struct vfio_device *vdev, char __user *buffer, size_t count, loff_t *position)
{
	return rw(of(vdev), buffer, count, position, false);
}

static ssize_t nvsim_vfio_write(struct vfio_device *vdev, const char __user *buffer, size_t count,
				loff_t *position)
{
	return rw(of(vdev), (char __user *)buffer, count, position, true);
}

static long get_info(void __user *argument)
{
	struct vfio_device_info info;
	size_t size = offsetofend(struct vfio_device_info, num_irqs);

	if (copy_from_user(&info, argument, size))
		return -EFAULT;
	if (info.argsz < size)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user(argument, &info, size) ? -EFAULT : 0;
}

static long get_region(void __user *argument)
{
	struct vfio_region_info info;
	size_t size = offsetofend(struct vfio_region_info, offset);

	if (copy_from_user(&info, argument, size))
		return -EFAULT;
	if (info.argsz < size || info.index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info.size = guest_region_size(info.index);
	info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
	info.cap_offset = 0;
	info.offset = (u64)info.index << REGION_SHIFT;
	return copy_to_user(argument, &info, size) ? -EFAULT : 0;
}

static long get_irq(void __user *argument)
{
	struct vfio_irq_info info;
	size_t size = offsetofend(struct vfio_irq_info, count);

	if (copy_from_user(&info, argument, size))
		return -EFAULT;
	if (info.argsz < size || info.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	info.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
	info.count = info.index == VFIO_PCI_MSI_IRQ_INDEX ||
		     (info.index == VFIO_PCI_REQ_IRQ_INDEX && nvsim_req_irq);
	return copy_to_user(argument, &info, size) ? -EFAULT : 0;
}

static long set_irqs(struct device_vfio *vfio, void __user *argument)
{
	struct eventfd_ctx *let_go = NULL;
	struct vfio_irq_set set;
	s32 fd = -1;

	if (copy_from_user(&set, argument, sizeof(set)))
		return -EFAULT;
	if (set.argsz < sizeof(set) || set.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	if (set.index != VFIO_PCI_REQ_IRQ_INDEX)
		return 0;	/* interrupts are accepted and never raised */
	if ((set.flags & VFIO_IRQ_SET_DATA_EVENTFD) && set.count) {
		if (set.argsz < sizeof(set) + sizeof(fd) ||
		    copy_from_user(&fd, argument + sizeof(set), sizeof(fd)))
			return -EFAULT;
	}
	if (fd >= 0) {
		let_go = eventfd_ctx_fdget(fd);
		if (IS_ERR(let_go))
			return PTR_ERR(let_go);
	}
	mutex_lock(&vfio->lock);
	swap(vfio->let_go, let_go);
	mutex_unlock(&vfio->lock);
	if (let_go)
		eventfd_ctx_put(let_go);
	return 0;
}

static long nvsim_vfio_ioctl(struct vfio_device *vdev, unsigned int command, unsigned long argument)
{
	struct device_vfio *vfio = of(vdev);
	void __user *user = (void __user *)argument;

	switch (command) {
	case VFIO_DEVICE_GET_INFO:
		return get_info(user);
	case VFIO_DEVICE_GET_REGION_INFO:
		return get_region(user);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return get_irq(user);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(vfio, user);
	case VFIO_DEVICE_RESET:
		mutex_lock(&vfio->lock);
		guest_reset(vfio->guest, vfio->gpu->model, vfio->vgpu->type);
		mutex_unlock(&vfio->lock);
		return 0;
	}
	return -ENOTTY;
}

/* The kernel waits for whoever has it open, and calls this again and again. */
static void nvsim_vfio_request(struct vfio_device *vdev, unsigned int count)
{
	struct device_vfio *vfio = of(vdev);

	mutex_lock(&vfio->lock);
	if (vfio->let_go) {
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
		eventfd_signal(vfio->let_go, 1);
#else
		eventfd_signal(vfio->let_go);
#endif
	}
	mutex_unlock(&vfio->lock);
}

static const struct vfio_device_ops nvsim_vfio_ops = {
	.name = "nvidia-vgpu-vfio",
	.init = nvsim_vfio_init,
	.release = nvsim_vfio_release,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
#endif
	.open_device = nvsim_vfio_open,
	.close_device = nvsim_vfio_close,
	.read = nvsim_vfio_read,
	.write = nvsim_vfio_write,
	.ioctl = nvsim_vfio_ioctl,
	.request = nvsim_vfio_request,
};

/* The device of a vGPU, or of a VF that has none yet. */
struct device_vfio *vfio_add(struct device *dev, struct gpu *gpu, struct vgpu *vgpu)
{
	struct device_vfio *vfio = vfio_alloc_device(device_vfio, vdev, dev, &nvsim_vfio_ops);
	int ret;

	if (IS_ERR(vfio))
		return vfio;
	vfio->gpu = gpu;
	vfio->vgpu = vgpu;
	ret = vfio_register_emulated_iommu_dev(&vfio->vdev);
	if (!ret)
		return vfio;
	vfio_put_device(&vfio->vdev);
	return ERR_PTR(ret);
}

/* Waits, without limit, until nobody has it open (docs/hardware.md 1.6.1). */
void vfio_remove(struct device_vfio *vfio)
{
	vfio_unregister_group_dev(&vfio->vdev);
	vfio_put_device(&vfio->vdev);
}

struct vgpu *vfio_vgpu(struct device_vfio *vfio)
{
	return vfio->vgpu;
}

void vfio_set_vgpu(struct device_vfio *vfio, struct vgpu *vgpu)
{
	vfio->vgpu = vgpu;
}
