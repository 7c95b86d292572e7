// SPDX-License-Identifier: GPL-2.0-only
/* Putting a card into its slot, and what can happen to it there. */
#include <linux/debugfs.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uuid.h>
#include <linux/vmalloc.h>
#include "card.h"

#define WINDOW_SIZE	(2ULL << 30)
#define WINDOW_START	(1ULL << 36)	/* above all memory */

static u64 mixed(u64 hash, u64 value)
{
	return (hash ^ value) * 0x9e3779b97f4a7c15ULL;
}

/* The same card at the same place has the same UUID on every boot; another one in its place another. */
static void make_uuid(struct slot *slot)
{
	u64 a = mixed(mixed(1, slot->card.bus), slot->swaps), b;
	const char *c;

	for (c = slot->card.model->key; *c; c++)
		a = mixed(a, *c ^ (a >> 32));
	b = mixed(a, a >> 29);
	snprintf(slot->card.uuid, sizeof(slot->card.uuid), "GPU-%08x-%04x-%04x-%04x-%012llx",
		 (u32)(a >> 32), (u16)a, (u16)(a >> 16), (u16)(b >> 48), b & 0xffffffffffffULL);
}

static int parse_framework(struct nvsim_card *card, const char *name)
{
	static const char * const names[] = {
		[NVSIM_MDEV] = "mdev",
		[NVSIM_SRIOV_MDEV] = "sriov-mdev",
		[NVSIM_VENDOR_VFIO] = "vendor-vfio",
		[NVSIM_PASSTHROUGH] = "passthrough",
	};
	int found = match_string(names, ARRAY_SIZE(names), name);

	if (found < 0)
		return found;
	card->framework = found;
	if (card->model->vendor != PCI_VENDOR_ID_NVIDIA)
		return found == NVSIM_PASSTHROUGH ? 0 : -EINVAL;
	if (found == NVSIM_PASSTHROUGH || (found == NVSIM_MDEV) == !!card->model->vfs)
		return -EINVAL;
	return 0;
}

/* "l40s:vendor-vfio@81", and "+mig" for a card that comes with MIG mode on */
static int parse(struct slot *slot, const char *spec)
{
	char *copy = kstrdup(spec, GFP_KERNEL), *rest = copy, *key, *framework, *bus;
	int ret = -EINVAL;

	if (!copy)
		return -ENOMEM;
	key = strsep(&rest, ":");
	framework = strsep(&rest, "@");
	bus = strsep(&rest, "+");
	if (!framework || !bus || kstrtouint(bus, 16, &slot->card.bus) || slot->card.bus > 0xff)
		goto out;
	slot->card.model = model_keyed(key);
	if (!slot->card.model)
		goto out;
	slot->card.mig = rest && !strcmp(rest, "mig");
	if (rest && !(slot->card.mig && slot->card.model->mig))
		goto out;
	ret = parse_framework(&slot->card, framework);
out:
	if (ret)
		pr_err("nvsim_cards: what is %s?\n", spec);
	kfree(copy);
	return ret;
}

static int put_on_bus(struct slot *slot)
{
	LIST_HEAD(resources);

	pci_add_resource(&resources, &slot->bus_range);
	pci_add_resource(&resources, &slot->window);
	slot->bus = pci_create_root_bus(NULL, slot->card.bus, &slot_pci_ops, &slot->sysdata, &resources);
	if (!slot->bus) {
		pci_free_resource_list(&resources);
		return -EEXIST;
	}
	pci_scan_child_bus(slot->bus);
	pci_assign_unassigned_bus_resources(slot->bus);
	pci_bus_add_devices(slot->bus);
	return 0;
}

struct slot *slot_add(const char *spec, unsigned int index, int domain)
{
	struct slot *slot = vzalloc(sizeof(*slot));
	int ret;

	if (!slot)
		return ERR_PTR(-ENOMEM);
	ret = parse(slot, spec);
	if (ret)
		goto free;
	slot->card.index = index;
	slot->card.present = true;
	mutex_init(&slot->lock);
	snprintf(slot->card.bdf, sizeof(slot->card.bdf), "%04x:%02x:00.0", domain, slot->card.bus);
	make_uuid(slot);
	slot->sysdata.domain = domain;
	slot->sysdata.node = NUMA_NO_NODE;
	config_reset(slot);
	slot->bus_range = (struct resource) {
		.name = "nvsim bus", .start = slot->card.bus, .end = slot->card.bus,
		.flags = IORESOURCE_BUS | IORESOURCE_PCI_FIXED,
	};
	slot->window.name = "nvsim memory";
	slot->window.flags = IORESOURCE_MEM;
	ret = allocate_resource(&iomem_resource, &slot->window, WINDOW_SIZE, WINDOW_START,
				iomem_resource.end, WINDOW_SIZE, NULL, NULL);
	if (ret) {
		pr_err("nvsim_cards: no room for a memory window\n");
		goto free;
	}
	slot->window.flags |= IORESOURCE_MEM_64;
	pci_lock_rescan_remove();
	ret = put_on_bus(slot);
	pci_unlock_rescan_remove();
	if (!ret)
		return slot;
	release_resource(&slot->window);
free:
	vfree(slot);
	return ERR_PTR(ret);
}

/* Take all functions off the bus; VFs first, also those that another driver than nvsim left on. */
static void take_off_bus(struct slot *slot)
{
	struct pci_dev *pf = pci_get_slot(slot->bus, 0);

	if (!pf)
		return;
	device_release_driver(&pf->dev);
	if (pci_num_vf(pf))
		pci_disable_sriov(pf);
	pci_stop_and_remove_bus_device_locked(pf);
	pci_dev_put(pf);
}

static void put_back(struct slot *slot)
{
	slot->card.present = true;
	pci_lock_rescan_remove();
	pci_scan_child_bus(slot->bus);
	pci_assign_unassigned_bus_resources(slot->bus);
	pci_bus_add_devices(slot->bus);
	pci_unlock_rescan_remove();
}

void slot_remove(struct slot *slot)
{
	cancel_work_sync(&slot->fall);
	take_off_bus(slot);
	pci_lock_rescan_remove();
	pci_stop_root_bus(slot->bus);
	pci_remove_root_bus(slot->bus);
	pci_unlock_rescan_remove();
	release_resource(&slot->window);
	vfree(slot);
}

static void fall(struct work_struct *work)
{
	struct slot *slot = container_of(work, struct slot, fall);

	mutex_lock(&slot->lock);
	if (!slot->card.present)
		take_off_bus(slot);
	mutex_unlock(&slot->lock);
}

static int lost_get(void *data, u64 *value)
{
	struct slot *slot = data;

	*value = !slot->card.present;
	return 0;
}

/* 1: it falls off the bus at once, the kernel finds out by and by; 0: it is found again. */
static int lost_set(void *data, u64 value)
{
	struct slot *slot = data;

	if (value) {
		if (!xchg(&slot->card.present, false))
			return 0;
		pr_err("NVRM: Xid (PCI:%.7s%.3s): 79, GPU has fallen off the bus.\n",
		       slot->card.bdf, slot->card.bdf + 7);
		schedule_work(&slot->fall);
		return 0;
	}
	mutex_lock(&slot->lock);
	if (!slot->card.present) {
		take_off_bus(slot);
		config_reset(slot);
		put_back(slot);
	}
	mutex_unlock(&slot->lock);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(lost_ops, lost_get, lost_set, "%llu\n");

static ssize_t swap_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	struct slot *slot = file->private_data;

	return simple_read_from_buffer(buffer, count, position, slot->card.uuid, strlen(slot->card.uuid));
}

/* Write the UUID ("GPU-..." or without) of the card that takes its place; an empty line makes one up. */
static ssize_t swap_write(struct file *file, const char __user *buffer, size_t count, loff_t *position)
{
	struct slot *slot = file->private_data;
	char text[sizeof(slot->card.uuid)] = "";
	char *uuid = text;

	if (count >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, buffer, count))
		return -EFAULT;
	uuid = strim(text);
	if (!strncmp(uuid, "GPU-", 4))
		uuid += 4;
	if (*uuid && !uuid_is_valid(uuid))
		return -EINVAL;
	mutex_lock(&slot->lock);
	take_off_bus(slot);
	slot->swaps++;
	if (*uuid)
		snprintf(slot->card.uuid, sizeof(slot->card.uuid), "GPU-%.36s", uuid);
	else
		make_uuid(slot);
	slot->card.mig = false;
	config_reset(slot);
	put_back(slot);
	mutex_unlock(&slot->lock);
	return count;
}

static const struct file_operations swap_ops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = swap_read,
	.write = swap_write,
	.llseek = default_llseek,
};

void slot_debugfs(struct slot *slot, struct dentry *root)
{
	INIT_WORK(&slot->fall, fall);
	slot->card.debugfs = debugfs_create_dir(slot->card.bdf, root);
	debugfs_create_file_unsafe("lost", 0600, slot->card.debugfs, slot, &lost_ops);
	debugfs_create_file("swap", 0600, slot->card.debugfs, slot, &swap_ops);
}
