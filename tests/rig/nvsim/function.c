// SPDX-License-Identifier: GPL-2.0-only
/* The pci_driver: what happens when a PF or VF is bound and unbound. */
#include <linux/slab.h>
#include "nvsim.h"

static int probe_pf(struct function *fn, struct nvsim_card *card)
{
	struct gpu *gpu;
	int ret = pci_enable_device(fn->pdev);

	if (ret)
		return ret;
	gpu = gpu_add(fn->pdev, card);
	if (IS_ERR(gpu)) {
		ret = PTR_ERR(gpu);
		goto disable;
	}
	fn->gpu = gpu;
	if (card->framework == NVSIM_MDEV && !nvsim_no_mdev_tree) {
		fn->parent = parent_add(gpu, fn->pdev);
		ret = PTR_ERR_OR_ZERO(fn->parent);
	}
	if (!ret)
		return 0;
	gpu_remove(gpu);
	gpu_put(gpu);
disable:
	pci_disable_device(fn->pdev);
	return ret;
}

static int probe_vf(struct function *fn, struct nvsim_card *card)
{
	struct gpu *gpu = gpu_get(card->index);
	int ret = -ENODEV;

	if (!gpu)
		return ret;
	fn->gpu = gpu;
	mutex_lock(&gpu->lock);
	if (!gpu->gone)
		ret = gpu->ready ? 0 : -EAGAIN;
	mutex_unlock(&gpu->lock);
	if (ret)
		goto put;
	if (card->framework == NVSIM_SRIOV_MDEV) {
		fn->parent = parent_add(gpu, fn->pdev);
		ret = PTR_ERR_OR_ZERO(fn->parent);
	} else {
		ret = vendor_add(fn);
	}
	if (ret)
		goto put;
	mutex_lock(&gpu->lock);
	list_add_tail(&fn->node, &gpu->functions);
	mutex_unlock(&gpu->lock);
	return 0;
put:
	gpu_put(gpu);
	return ret;
}

static int nvsim_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct nvsim_card *card = nvsim_card_of(pdev);
	struct function *fn;
	int ret;

	if (!card)		/* never touch a real device */
		return -ENODEV;
	fn = kzalloc(sizeof(*fn), GFP_KERNEL);
	if (!fn)
		return -ENOMEM;
	INIT_LIST_HEAD(&fn->node);
	mutex_init(&fn->writer);
	fn->pdev = pdev;
	fn->vf = nvsim_vf(pdev);
	pci_set_drvdata(pdev, fn);
	ret = fn->vf < 0 ? probe_pf(fn, card) : probe_vf(fn, card);
	if (ret)
		kfree(fn);
	return ret;
}

static void nvsim_remove(struct pci_dev *pdev)
{
	struct function *fn = pci_get_drvdata(pdev);
	struct gpu *gpu = fn->gpu;

	if (fn->vf < 0) {
		gpu_remove(gpu);
		if (fn->parent)
			parent_remove(fn->parent);
		pci_disable_device(pdev);
	} else {
		mutex_lock(&gpu->lock);
		list_del_init(&fn->node);
		mutex_unlock(&gpu->lock);
		if (fn->parent)
			parent_remove(fn->parent);
		else
			vendor_remove(fn);
	}
	gpu_put(gpu);
	kfree(fn);
}

/* A raw write to sriov_numvfs: refused (docs/hardware.md 1.5.1). */
static int nvsim_sriov_configure(struct pci_dev *pdev, int number)
{
	struct function *fn = pci_get_drvdata(pdev);
	int ret = deed_begins(DEED_NUMVFS, fn->gpu->card, NULL);

	return ret ? ret : nvsim_numvfs_errno;
}

static const struct pci_device_id nvsim_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_NVIDIA, PCI_ANY_ID) },
	{ }
};

struct pci_driver nvsim_pci_driver = {
	.name = "nvidia",
	.id_table = nvsim_ids,
	.probe = nvsim_probe,
	.remove = nvsim_remove,
	.sriov_configure = nvsim_sriov_configure,
};
