// SPDX-License-Identifier: GPL-2.0-only
/* AMD MxGPU: a driver whose VFs are made by writing sriov_numvfs, and have no vGPU types. */
#include <linux/module.h>
#include "nvsim.h"

#define PF_DEVICE	0x6929

static int plain_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	return nvsim_card_of(pdev) ? pci_enable_device(pdev) : -ENODEV;
}

static void plain_remove(struct pci_dev *pdev)
{
	pci_disable_sriov(pdev);
	pci_disable_device(pdev);
}

static int plain_sriov_configure(struct pci_dev *pdev, int number)
{
	int ret = deed_begins(DEED_NUMVFS, nvsim_card_of(pdev), NULL);

	return ret ? ret : pci_sriov_configure_simple(pdev, number);
}

static const struct pci_device_id plain_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_ATI, PF_DEVICE) },
	{ }
};

static struct pci_driver plain_driver = {
	.name = "gim",
	.id_table = plain_ids,
	.probe = plain_probe,
	.remove = plain_remove,
	.sriov_configure = plain_sriov_configure,
};

int plain_init(void)
{
	return pci_register_driver(&plain_driver);
}

void plain_exit(void)
{
	pci_unregister_driver(&plain_driver);
}
