// SPDX-License-Identifier: GPL-2.0-only
/* The config space of a card and its VFs. */
#include "card.h"

#define CAP_EXP		0x40
#define CAP_PM		0x80
#define ECAP_SRIOV	0x100
#define CLASS_3D	0x030200a1
#define CLASS_VGA	0x030000a1

static void put_common(struct config *c, const struct nvsim_model *model)
{
	config_put(c, PCI_STATUS, 2, PCI_STATUS_CAP_LIST, 0);
	config_put(c, PCI_CLASS_REVISION, 4,
		   model->vendor == PCI_VENDOR_ID_NVIDIA ? CLASS_3D : CLASS_VGA, 0);
	config_put(c, PCI_SUBSYSTEM_VENDOR_ID, 2, model->vendor, 0);
	config_put(c, PCI_SUBSYSTEM_ID, 2, model->subsystem, 0);
	config_put(c, PCI_CAPABILITY_LIST, 1, CAP_EXP, 0);
	/* PCI Express endpoint with function level reset, 16 GT/s x16 */
	config_put(c, CAP_EXP, 2, PCI_CAP_ID_EXP | (CAP_PM << 8), 0);
	config_put(c, CAP_EXP + PCI_EXP_FLAGS, 2, 2, 0);
	config_put(c, CAP_EXP + PCI_EXP_DEVCAP, 4,
		   PCI_EXP_DEVCAP_FLR | PCI_EXP_DEVCAP_RBER | 1, 0);
	config_put(c, CAP_EXP + PCI_EXP_DEVCTL, 2, 0x2810, 0x7fff);
	config_put(c, CAP_EXP + PCI_EXP_LNKCAP, 4, 0x104, 0);
	config_put(c, CAP_EXP + PCI_EXP_LNKSTA, 2, 0x104, 0);
	config_put(c, CAP_EXP + PCI_EXP_LNKCAP2, 4, 0x1e, 0);
	config_put(c, CAP_PM, 2, PCI_CAP_ID_PM, 0);
	config_put(c, CAP_PM + PCI_PM_PMC, 2, 3, 0);
	config_put(c, CAP_PM + PCI_PM_CTRL, 2, PCI_PM_CTRL_NO_SOFT_RESET, PCI_PM_CTRL_STATE_MASK);
	/* the kernel's quirk for NVIDIA's audio function looks here: it is on already */
	config_put(c, 0x488, 4, BIT(25), 0);
}

static void put_sriov(struct config *c, const struct nvsim_model *model)
{
	int at = ECAP_SRIOV;

	config_put(c, at, 4, PCI_EXT_CAP_ID_SRIOV | (1 << 16), 0);
	config_put(c, at + PCI_SRIOV_CTRL, 2, 0,
		   PCI_SRIOV_CTRL_VFE | PCI_SRIOV_CTRL_MSE | PCI_SRIOV_CTRL_ARI);
	/* A T4 tells of 16 VFs and has none: the kernel refuses to turn them on. */
	config_put(c, at + PCI_SRIOV_INITIAL_VF, 2, model->vfs, 0);
	config_put(c, at + PCI_SRIOV_TOTAL_VF, 2, model->total_vfs, 0);
	config_put(c, at + PCI_SRIOV_NUM_VF, 2, 0, 0xffff);
	config_put(c, at + PCI_SRIOV_VF_OFFSET, 2, NVSIM_VF_OFFSET, 0);
	config_put(c, at + PCI_SRIOV_VF_STRIDE, 2, 1, 0);
	config_put(c, at + PCI_SRIOV_VF_DID, 2, model->vf_device, 0);
	config_put(c, at + PCI_SRIOV_SUP_PGSIZE, 4, 0x553, 0);
	config_put(c, at + PCI_SRIOV_SYS_PGSIZE, 4, 1, 0xffffffff);
	config_put_bar64(c, at + PCI_SRIOV_BAR, 256 << 10, false);
	config_put_bar64(c, at + PCI_SRIOV_BAR + 8, 16 << 20, true);
}

/* The config spaces as after power-on. */
void config_reset(struct slot *slot)
{
	const struct nvsim_model *model = slot->card.model;
	struct config *c = &slot->pf;
	unsigned int i;

	memset(c, 0, sizeof(*c));
	put_common(c, model);
	config_put(c, PCI_VENDOR_ID, 2, model->vendor, 0);
	config_put(c, PCI_DEVICE_ID, 2, model->device, 0);
	config_put(c, PCI_COMMAND, 2, 0, 0x0547);
	config_put(c, PCI_INTERRUPT_LINE, 1, 0, 0xff);
	config_put_bar64(c, PCI_BASE_ADDRESS_0, 16 << 20, false);
	config_put_bar64(c, PCI_BASE_ADDRESS_2, 256 << 20, true);
	config_put_bar64(c, PCI_BASE_ADDRESS_4, 32 << 20, true);
	if (!model->total_vfs)
		return;
	put_sriov(c, model);
	for (i = 0; i < model->vfs; i++) {
		c = &slot->vf[i];
		memset(c, 0, sizeof(*c));
		put_common(c, model);
		/* a VF reads ffff for both ids and has no BARs of its own */
		config_put(c, PCI_VENDOR_ID, 4, 0xffffffff, 0);
		config_put(c, PCI_COMMAND, 2, 0, PCI_COMMAND_MASTER);
	}
}

static struct config *config_at(struct pci_bus *bus, unsigned int devfn)
{
	struct slot *slot = container_of((struct pci_sysdata *)bus->sysdata, struct slot, sysdata);
	unsigned int vf = devfn - NVSIM_VF_OFFSET;
	u32 control;

	if (bus->number != slot->card.bus || !READ_ONCE(slot->card.present))
		return NULL;
	if (devfn == 0)
		return &slot->pf;
	control = config_read(&slot->pf, ECAP_SRIOV + PCI_SRIOV_CTRL, 2);
	if (devfn < NVSIM_VF_OFFSET || vf >= slot->card.model->vfs || !(control & PCI_SRIOV_CTRL_VFE) ||
	    vf >= config_read(&slot->pf, ECAP_SRIOV + PCI_SRIOV_NUM_VF, 2))
		return NULL;
	return &slot->vf[vf];
}

/* The kernel calls both under its pci_lock. */
static int slot_config_read(struct pci_bus *bus, unsigned int devfn, int offset, int length, u32 *value)
{
	struct config *c = config_at(bus, devfn);

	if (!c) {
		*value = ~0u;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	*value = config_read(c, offset, length);
	return PCIBIOS_SUCCESSFUL;
}

static int slot_config_write(struct pci_bus *bus, unsigned int devfn, int offset, int length, u32 value)
{
	struct config *c = config_at(bus, devfn);

	if (!c)
		return PCIBIOS_DEVICE_NOT_FOUND;
	config_write(c, offset, length, value);
	return PCIBIOS_SUCCESSFUL;
}

struct pci_ops slot_pci_ops = {
	.read = slot_config_read,
	.write = slot_config_write,
};
