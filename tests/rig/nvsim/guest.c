// SPDX-License-Identifier: GPL-2.0-only
/* The PCI device that a VM sees. */
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <linux/vmalloc.h>
#include "guest.h"

#define CAP_PM		0x60
#define CAP_MSI		0x68
#define CAP_EXP		0x78

struct guest *guest_alloc(void)
{
	struct guest *guest = vzalloc(sizeof(*guest));
	int bar;

	for (bar = 0; guest && bar < GUEST_BARS; bar++)
		xa_init(&guest->pages[bar]);
	return guest;
}

static void free_pages_of(struct guest *guest)
{
	unsigned long index;
	void *page;
	int bar;

	for (bar = 0; bar < GUEST_BARS; bar++) {
		xa_for_each(&guest->pages[bar], index, page)
			free_page((unsigned long)page);
		xa_destroy(&guest->pages[bar]);
	}
}

void guest_free(struct guest *guest)
{
	if (guest)
		free_pages_of(guest);
	vfree(guest);
}

/* The card's ids, and the type's number as the subsystem: a guest's driver tells types apart by it. */
void guest_reset(struct guest *guest, const struct nvsim_model *model, const struct nvsim_type *type)
{
	struct config *c = &guest->config;

	free_pages_of(guest);
	memset(c, 0, sizeof(*c));
	config_put(c, PCI_VENDOR_ID, 2, model->vendor, 0);
	config_put(c, PCI_DEVICE_ID, 2, model->device, 0);
	config_put(c, PCI_COMMAND, 2, 0, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
		   PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	config_put(c, PCI_STATUS, 2, PCI_STATUS_CAP_LIST, 0);
	config_put(c, PCI_CLASS_REVISION, 4, 0x030200a1, 0);
	config_put(c, PCI_SUBSYSTEM_VENDOR_ID, 2, model->vendor, 0);
	config_put(c, PCI_SUBSYSTEM_ID, 2, type->id, 0);
	config_put(c, PCI_INTERRUPT_LINE, 1, 0, 0xff);
	config_put_bar32(c, PCI_BASE_ADDRESS_0, GUEST_BAR0);
	config_put_bar64(c, PCI_BASE_ADDRESS_1, GUEST_BAR1, true);
	config_put(c, PCI_CAPABILITY_LIST, 1, CAP_PM, 0);
	config_put(c, CAP_PM, 2, PCI_CAP_ID_PM | (CAP_MSI << 8), 0);
	config_put(c, CAP_PM + PCI_PM_PMC, 2, 3, 0);
	config_put(c, CAP_PM + PCI_PM_CTRL, 2, PCI_PM_CTRL_NO_SOFT_RESET, PCI_PM_CTRL_STATE_MASK);
	config_put(c, CAP_MSI, 2, PCI_CAP_ID_MSI | (CAP_EXP << 8), 0);
	config_put(c, CAP_MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_64BIT, PCI_MSI_FLAGS_ENABLE);
	config_put(c, CAP_MSI + PCI_MSI_ADDRESS_LO, 4, 0, ~3u);
	config_put(c, CAP_MSI + PCI_MSI_ADDRESS_HI, 4, 0, ~0u);
	config_put(c, CAP_MSI + PCI_MSI_DATA_64, 2, 0, 0xffff);
	config_put(c, CAP_EXP, 2, PCI_CAP_ID_EXP, 0);
	config_put(c, CAP_EXP + PCI_EXP_FLAGS, 2, 2, 0);
	config_put(c, CAP_EXP + PCI_EXP_DEVCAP, 4, PCI_EXP_DEVCAP_FLR | PCI_EXP_DEVCAP_RBER | 1, 0);
	config_put(c, CAP_EXP + PCI_EXP_DEVCTL, 2, 0x2810, 0x7fff);
	config_put(c, CAP_EXP + PCI_EXP_LNKCAP, 4, 0x104, 0);
	config_put(c, CAP_EXP + PCI_EXP_LNKSTA, 2, 0x104, 0);
	config_put(c, CAP_EXP + PCI_EXP_LNKCAP2, 4, 0x1e, 0);
}

u64 guest_region_size(unsigned int region)
{
	switch (region) {
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return CONFIG_SIZE;
	case VFIO_PCI_BAR0_REGION_INDEX:
		return GUEST_BAR0;
	case VFIO_PCI_BAR1_REGION_INDEX:
		return GUEST_BAR1;
	}
	return 0;
}

static int config_rw(struct config *c, int offset, char __user *buffer, size_t count, bool write)
{
	while (count) {
		int n = offset & 1 || count < 2 ? 1 : offset & 2 || count < 4 ? 2 : 4;
		u32 value = 0;

		if (write) {
			if (copy_from_user(&value, buffer, n))
				return -EFAULT;
			config_write(c, offset, n, value);
		} else {
			value = config_read(c, offset, n);
			if (copy_to_user(buffer, &value, n))
				return -EFAULT;
		}
		offset += n;
		buffer += n;
		count -= n;
	}
	return 0;
}

/* At most to the end of a page. */
static int page_rw(struct xarray *pages, u64 offset, char __user *buffer, size_t count, bool write)
{
	unsigned long index = offset >> PAGE_SHIFT;
	char *page = xa_load(pages, index);
	int ret;

	if (!write) {
		if (!page)
			return clear_user(buffer, count) ? -EFAULT : 0;
		return copy_to_user(buffer, page + offset_in_page(offset), count) ? -EFAULT : 0;
	}
	if (!page) {
		page = (char *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
		if (!page)
			return -ENOMEM;
		ret = xa_err(xa_store(pages, index, page, GFP_KERNEL_ACCOUNT));
		if (ret) {
			free_page((unsigned long)page);
			return ret;
		}
	}
	return copy_from_user(page + offset_in_page(offset), buffer, count) ? -EFAULT : 0;
}

int guest_rw(struct guest *guest, unsigned int region, u64 offset, char __user *buffer, size_t count,
	     bool write)
{
	u64 size = guest_region_size(region);

	if (offset >= size || count > size - offset)
		return -EINVAL;
	if (region == VFIO_PCI_CONFIG_REGION_INDEX)
		return config_rw(&guest->config, offset, buffer, count, write);
	while (count) {
		size_t n = min_t(size_t, count, PAGE_SIZE - offset_in_page(offset));
		int ret = page_rw(&guest->pages[region - VFIO_PCI_BAR0_REGION_INDEX], offset, buffer, n,
				  write);

		if (ret)
			return ret;
		offset += n;
		buffer += n;
		count -= n;
	}
	return 0;
}
