// SPDX-License-Identifier: GPL-2.0-only
/* Simulated GPUs: the hardware.  Its driver is another module. */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include "card.h"

static int domain;
module_param(domain, int, 0444);
MODULE_PARM_DESC(domain, "PCI domain of the cards");
static char *gpus = "t4:mdev@41,a100-40:sriov-mdev@61,l40s:vendor-vfio@81";
module_param(gpus, charp, 0444);
MODULE_PARM_DESC(gpus, "KEY:FRAMEWORK@BUS[+mig],... with the bus in hex");

static struct slot *slots[NVSIM_CARDS];
static unsigned int count;
static struct dentry *debugfs;

/* The card of a PCI function; NULL for a real one. */
struct nvsim_card *nvsim_card_of(struct pci_dev *pdev)
{
	if (pdev->bus->ops != &slot_pci_ops)
		return NULL;
	return &container_of((struct pci_sysdata *)pdev->bus->sysdata, struct slot, sysdata)->card;
}
EXPORT_SYMBOL_GPL(nvsim_card_of);

struct nvsim_card *nvsim_card_at(unsigned int index)
{
	return index < count ? &slots[index]->card : NULL;
}
EXPORT_SYMBOL_GPL(nvsim_card_at);

struct dentry *nvsim_debugfs(void)
{
	return debugfs;
}
EXPORT_SYMBOL_GPL(nvsim_debugfs);

static void remove_all(void)
{
	debugfs_remove_recursive(debugfs);
	while (count)
		slot_remove(slots[--count]);
}

static int __init nvsim_cards_init(void)
{
	char *copy = kstrdup(gpus, GFP_KERNEL), *rest = copy, *spec;
	int ret = 0;

	if (!copy)
		return -ENOMEM;
	debugfs = debugfs_create_dir("nvsim", NULL);
	while (!ret && (spec = strsep(&rest, ","))) {
		struct slot *slot;

		if (!*spec)
			continue;
		slot = count < NVSIM_CARDS ? slot_add(spec, count, domain) : ERR_PTR(-ENOSPC);
		ret = PTR_ERR_OR_ZERO(slot);
		if (ret)
			break;
		slot_debugfs(slot, debugfs);
		slots[count++] = slot;
	}
	if (ret)
		remove_all();
	kfree(copy);
	return ret;
}

static void __exit nvsim_cards_exit(void)
{
	remove_all();
}

module_init(nvsim_cards_init);
module_exit(nvsim_cards_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Simulated NVIDIA GPUs (for tests only)");
