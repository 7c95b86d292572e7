/* SPDX-License-Identifier: GPL-2.0-only */
/* What the hardware, nvsim_cards, is to its driver. */
#ifndef NVSIM_CARDS_H
#define NVSIM_CARDS_H

#include <linux/pci.h>
#include "nvsim_model.h"

#define NVSIM_CARDS	16
#define NVSIM_VFS	64
#define NVSIM_VF_OFFSET	4	/* VFs at 00.4, 00.5 ... as on real boards */

enum nvsim_framework { NVSIM_MDEV, NVSIM_SRIOV_MDEV, NVSIM_VENDOR_VFIO, NVSIM_PASSTHROUGH };

/* A card in its slot; it outlives whatever driver is bound to it. */
struct nvsim_card {
	const struct nvsim_model *model;
	enum nvsim_framework framework;
	unsigned int index;		/* in the order in which the cards were named */
	unsigned int bus;
	char bdf[16];			/* of its PF */
	char uuid[48];
	bool mig;			/* MIG mode that the next start of the driver finds */
	bool present;			/* answers on the bus */
	struct dentry *debugfs;
};

struct nvsim_card *nvsim_card_of(struct pci_dev *pdev);
struct nvsim_card *nvsim_card_at(unsigned int index);
struct dentry *nvsim_debugfs(void);

/* A VF's number, negative for a PF. */
static inline int nvsim_vf(struct pci_dev *pdev)
{
	return pdev->is_virtfn ? (int)pdev->devfn - NVSIM_VF_OFFSET : -1;
}

#endif
