// SPDX-License-Identifier: GPL-2.0-only
/* A GPU from the binding of its PF to the unbinding, and who uses it. */
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "nvsim.h"

static DEFINE_MUTEX(gpus_lock);
static struct gpu *gpus[NVSIM_CARDS];

static void gpu_free(struct kref *ref)
{
	struct gpu *gpu = container_of(ref, struct gpu, ref);

	vfree(gpu);
}

/* The GPU of a card whose PF is bound, with a reference; or NULL. */
struct gpu *gpu_get(unsigned int index)
{
	struct gpu *gpu = NULL;

	if (index >= NVSIM_CARDS)
		return NULL;
	mutex_lock(&gpus_lock);
	gpu = gpus[index];
	if (gpu)
		kref_get(&gpu->ref);
	mutex_unlock(&gpus_lock);
	return gpu;
}

void gpu_put(struct gpu *gpu)
{
	kref_put(&gpu->ref, gpu_free);
}

bool gpu_is_lost(struct gpu *gpu)
{
	return !READ_ONCE(gpu->card->present);
}

/* Register the VFs' parents while no driver is bound to them: their types are called pci-NNN. */
static void fill_early(struct gpu *gpu)
{
	int i;

	for (i = 0; i < pci_num_vf(gpu->pdev) && i < NVSIM_VFS; i++) {
		struct pci_dev *vf = pci_get_slot(gpu->pdev->bus, NVSIM_VF_OFFSET + i);

		if (!vf)
			continue;
		gpu->early[i] = parent_add(gpu, vf);
		if (IS_ERR(gpu->early[i]))
			gpu->early[i] = NULL;
		pci_dev_put(vf);
	}
}

static void empty_early(struct gpu *gpu)
{
	int i;

	for (i = 0; i < NVSIM_VFS; i++) {
		if (gpu->early[i])
			parent_remove(gpu->early[i]);
		gpu->early[i] = NULL;
	}
}

/* The VFs are filled now: the driver binds those that nobody has bound. */
static void fill(struct work_struct *work)
{
	struct gpu *gpu = container_of(to_delayed_work(work), struct gpu, fill);
	int i;

	empty_early(gpu);
	mutex_lock(&gpu->lock);
	gpu->ready = true;
	mutex_unlock(&gpu->lock);
	for (i = 0; i < pci_num_vf(gpu->pdev); i++) {
		struct pci_dev *vf = pci_get_slot(gpu->pdev->bus, NVSIM_VF_OFFSET + i);

		if (!vf)
			continue;
		if (!vf->dev.driver && device_attach(&vf->dev) < 0)
			pci_warn(vf, "cannot be filled\n");
		pci_dev_put(vf);
	}
}

struct gpu *gpu_add(struct pci_dev *pdev, struct nvsim_card *card)
{
	struct gpu *gpu = vzalloc(sizeof(*gpu));

	if (!gpu)
		return ERR_PTR(-ENOMEM);
	kref_init(&gpu->ref);
	gpu->card = card;
	gpu->model = card->model;
	gpu->pdev = pdev;
	gpu->mig = card->mig;
	mutex_init(&gpu->lock);
	INIT_LIST_HEAD(&gpu->vgpus);
	INIT_LIST_HEAD(&gpu->functions);
	init_waitqueue_head(&gpu->changed);
	INIT_DELAYED_WORK(&gpu->fill, fill);
	scheduler_reset(gpu->schedulers);
	gpu->log.now_ns = ktime_get_real_ns();
	gpu->ready = !nvsim_ready_delay_ms || !pci_num_vf(pdev);
	if (!gpu->ready) {
		if (card->framework == NVSIM_SRIOV_MDEV)
			fill_early(gpu);
		schedule_delayed_work(&gpu->fill, msecs_to_jiffies(nvsim_ready_delay_ms));
	}
	mutex_lock(&gpus_lock);
	gpus[card->index] = gpu;
	mutex_unlock(&gpus_lock);
	node_add(gpu);
	procfs_add(gpu);
	debug_add(gpu);
	return gpu;
}

static bool seems_unused(struct gpu *gpu)
{
	return gpu_is_lost(gpu) || (!READ_ONCE(gpu->clients) && !READ_ONCE(gpu->opened));
}

/* Nobody gets in from here on, if nobody is in. */
static bool closed(struct gpu *gpu)
{
	mutex_lock(&gpu->lock);
	gpu->gone = seems_unused(gpu);
	mutex_unlock(&gpu->lock);
	return gpu->gone;
}

/*
 * Let go of the PF.  Like the real driver this waits for every client, uninterruptibly
 * (docs/hardware.md T9), unless the card is gone anyway.
 */
void gpu_remove(struct gpu *gpu)
{
	if (!closed(gpu)) {
		pci_err(gpu->pdev, "NVRM: Attempting to remove device with non-zero usage count!\n");
		do	/* a card that falls off wakes nobody */
			wait_event_timeout(gpu->changed, seems_unused(gpu), HZ);
		while (!closed(gpu));
	}
	cancel_delayed_work_sync(&gpu->fill);
	empty_early(gpu);
	pci_disable_sriov(gpu->pdev);
	debug_remove(gpu);
	procfs_remove(gpu);
	node_remove(gpu);
	mutex_lock(&gpus_lock);
	gpus[gpu->card->index] = NULL;
	mutex_unlock(&gpus_lock);
}

/* One more client of the node; fails while an unbindLock is held. */
int gpu_enter(struct gpu *gpu)
{
	int ret = 0;

	mutex_lock(&gpu->lock);
	if (gpu->gone || gpu_is_lost(gpu)) {
		ret = -ENODEV;
	} else if (gpu->unbind_locked) {
		ret = -EBUSY;
	} else {
		gpu->clients++;
		gpu->touched = true;
	}
	mutex_unlock(&gpu->lock);
	return ret;
}

void gpu_leave(struct gpu *gpu)
{
	mutex_lock(&gpu->lock);
	gpu->clients--;
	mutex_unlock(&gpu->lock);
	wake_up_all(&gpu->changed);
}

/* The module goes: what only the driver remembers is forgotten (docs/hardware.md 3.2). */
void gpu_forget_modes(void)
{
	struct nvsim_card *card;
	unsigned int i;

	for (i = 0; (card = nvsim_card_at(i)); i++)
		if (!card->model->mig_kept)
			card->mig = false;
}
