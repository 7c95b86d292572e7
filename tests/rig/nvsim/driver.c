// SPDX-License-Identifier: GPL-2.0-only
/* The simulated driver: its parameters, and loading and unloading it. */
#include <linux/module.h>
#include <linux/string.h>
#include "nvsim.h"

unsigned int nvsim_ready_delay_ms;
module_param_named(ready_delay_ms, nvsim_ready_delay_ms, uint, 0644);
MODULE_PARM_DESC(ready_delay_ms, "how long after they are on the VFs get types");
bool nvsim_placement_writable;
module_param_named(placement_writable, nvsim_placement_writable, bool, 0444);
bool nvsim_gi_writable;
module_param_named(gi_writable, nvsim_gi_writable, bool, 0444);
bool nvsim_creatable_header = true;
module_param_named(creatable_header, nvsim_creatable_header, bool, 0644);
bool nvsim_no_mdev_tree;
module_param_named(no_mdev_tree, nvsim_no_mdev_tree, bool, 0444);
MODULE_PARM_DESC(no_mdev_tree, "a legacy card shows no types at all");
bool nvsim_req_irq = true;
module_param_named(req_irq, nvsim_req_irq, bool, 0644);
MODULE_PARM_DESC(req_irq, "who has a vGPU open is asked to let go of it when it is removed");
bool nvsim_uuid_late;
module_param_named(uuid_late, nvsim_uuid_late, bool, 0644);
MODULE_PARM_DESC(uuid_late, "procfs does not tell a GPU's UUID before somebody has opened it");
char *nvsim_driver_version = "550.90.05";
module_param_named(driver_version, nvsim_driver_version, charp, 0444);

enum held nvsim_clear_held = HELD_EPERM;
int nvsim_numvfs_errno = -EPERM;

static const char * const helds[] = {
	[HELD_EPERM] = "EPERM", [HELD_EBUSY] = "EBUSY", [HELD_BLOCK] = "block",
};

static const struct {
	const char *name;
	int number;
} numvfs_errnos[] = { { "EPERM", -EPERM }, { "ENOENT", -ENOENT }, { "EIO", -EIO } };

static int held_set(const char *value, const struct kernel_param *kp)
{
	int found = sysfs_match_string(helds, value);

	if (found < 0)
		return found;
	nvsim_clear_held = found;
	return 0;
}

static int held_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", helds[nvsim_clear_held]);
}

static const struct kernel_param_ops held_ops = { .set = held_set, .get = held_get };
module_param_cb(clear_held, &held_ops, NULL, 0644);
MODULE_PARM_DESC(clear_held, "what clearing a held VF does: EPERM, EBUSY or block");

static int numvfs_set(const char *value, const struct kernel_param *kp)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(numvfs_errnos); i++) {
		if (sysfs_streq(value, numvfs_errnos[i].name)) {
			nvsim_numvfs_errno = numvfs_errnos[i].number;
			return 0;
		}
	}
	return -EINVAL;
}

static int numvfs_get(char *buffer, const struct kernel_param *kp)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(numvfs_errnos); i++)
		if (nvsim_numvfs_errno == numvfs_errnos[i].number)
			return sysfs_emit(buffer, "%s\n", numvfs_errnos[i].name);
	return -EINVAL;
}

static const struct kernel_param_ops numvfs_ops = { .set = numvfs_set, .get = numvfs_get };
module_param_cb(numvfs_errno, &numvfs_ops, NULL, 0644);
MODULE_PARM_DESC(numvfs_errno, "how a raw write to sriov_numvfs is refused: EPERM, ENOENT or EIO");

static const struct {
	int (*init)(void);
	void (*exit)(void);
} parts[] = {
	{ faults_init, faults_exit },
	{ procfs_init, procfs_exit },
	{ node_init, node_exit },
	{ mdev_init, mdev_exit },
	{ plain_init, plain_exit },
};

static void leave(size_t part)
{
	while (part--)
		parts[part].exit();
}

static int __init nvsim_init(void)
{
	size_t part;
	int ret;

	for (part = 0; part < ARRAY_SIZE(parts); part++) {
		ret = parts[part].init();
		if (ret)
			goto fail;
	}
	pr_info("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  %s\n", nvsim_driver_version);
	ret = pci_register_driver(&nvsim_pci_driver);
	if (!ret)
		return 0;
fail:
	leave(part);
	return ret;
}

static void __exit nvsim_exit(void)
{
	pci_unregister_driver(&nvsim_pci_driver);
	gpu_forget_modes();
	leave(ARRAY_SIZE(parts));
}

module_init(nvsim_init);
module_exit(nvsim_exit);
MODULE_ALIAS("nvidia");
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Simulated NVIDIA vGPU host driver (for tests only)");
