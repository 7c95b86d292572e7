/* SPDX-License-Identifier: GPL-2.0-only */
/* A card on a root bus of its own. */
#ifndef NVSIM_CARD_H
#define NVSIM_CARD_H

#include <linux/ioport.h>
#include <linux/mutex.h>
#include <linux/workqueue.h>
#include "cards.h"
#include "config.h"

struct slot {
	struct nvsim_card card;
	struct pci_sysdata sysdata;
	struct resource bus_range, window;
	struct pci_bus *bus;
	struct config pf, vf[NVSIM_VFS];
	unsigned int swaps;
	struct mutex lock;		/* one at a time takes it out or puts it in */
	struct work_struct fall;
};

extern struct pci_ops slot_pci_ops;

const struct nvsim_model *model_keyed(const char *key);

void config_reset(struct slot *slot);

struct slot *slot_add(const char *spec, unsigned int index, int domain);
void slot_remove(struct slot *slot);
void slot_debugfs(struct slot *slot, struct dentry *root);

#endif
