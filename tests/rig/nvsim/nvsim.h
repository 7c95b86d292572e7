/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The simulated driver: a PF or VF is a function, a PF with all that stands on it a gpu.
 *
 * gpu->lock guards what is created, opened and cut; nothing sleeps for long under it, so that a blocked
 * removal or a hung write holds up nobody who reads.
 */
#ifndef NVSIM_H
#define NVSIM_H

#include <linux/debugfs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mdev.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/vfio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include "cards.h"
#include "nvsim_uapi.h"

#define PARAMS_MAX	1024
#define MAX_GPU_VGPUS	48	/* docs/hardware.md 2.9 */
#define MAX_TIMESLICED	32
#define MAX_PER_GI	12
#define ENGINES		3
#define NONE		NVSIM_NONE

/* NV_STATUS codes with which the resource manager refuses (docs/hardware.md 1.4.10) */
enum nvrm {
	NVRM_OK = 0,
	NVRM_INSUFFICIENT_RESOURCES = 0x1a,
	NVRM_INVALID_OPERATION = 0x38,
	NVRM_INVALID_STATE = 0x40,
	NVRM_NOT_SUPPORTED = 0x56,
	NVRM_OBJECT_NOT_FOUND = 0x57,
	NVRM_NOT_READY = 0x66,
};

enum deed {
	DEED_CREATE, DEED_TYPE, DEED_PARAMS, DEED_REMOVE, DEED_NUMVFS, DEED_MIG, DEED_GI, DEED_CI,
	DEED_MIXED, DEED_SCHEDULER, DEED_PLACEMENT, DEED_GPU_INSTANCE,
	DEED_WRITES,			/* what comes now changes nothing and is not counted */
	DEED_OPEN = DEED_WRITES, DEED_NODE, DEED_READ,
	DEED_GPU,			/* each of them on one card, until it is healed */
	DEEDS
};

struct scheduler {
	u32 policy, arr, avg_factor, frequency, timeslice_ns;
};

struct schedule_log {
	u64 now_ns;			/* up to where it is written */
	u64 turn;
	unsigned int head, count;
	struct nvsim_log_entry entries[NVSIM_MAX_LOG];
};

struct instance {
	bool exists;
	const struct nvsim_profile *profile;
	u32 id, start;
	u32 cis;
	u32 ci_slices[8];
	bool mixed;
	struct scheduler schedulers[ENGINES];
};

/* A vGPU that was created; it counts until it is really gone. */
struct vgpu {
	struct list_head node;		/* of gpu->vgpus */
	struct gpu *gpu;
	const struct nvsim_type *type;
	u32 handle;
	u32 parent;			/* bus << 8 | devfn */
	u32 gi, placement;		/* NONE where it has none */
	bool open;
	pid_t pid;
	u32 licensed, sm, mem, enc, dec;
	u64 ran_ns, preempted_ns;
	char mdev_uuid[40];
	char params[PARAMS_MAX + 1];
};

/* Everything about a card that its driver forgets when the PF is unbound. */
struct gpu {
	struct kref ref;
	struct nvsim_card *card;
	const struct nvsim_model *model;
	struct pci_dev *pdev;
	struct mutex lock;
	struct list_head vgpus;
	struct list_head functions;	/* the bound VFs */
	unsigned int count;		/* of vgpus */
	unsigned int clients;		/* opens of the node */
	unsigned int opened;		/* vGPUs that are open */
	wait_queue_head_t changed;	/* something was closed */
	bool gone;			/* unbound, or about to be */
	bool unbind_locked;
	bool touched;			/* was opened once */
	bool ready;			/* has filled its VFs */
	bool mig, mixed;
	struct instance instances[NVSIM_MAX_GIS];
	struct scheduler schedulers[ENGINES];
	struct schedule_log log;
	struct delayed_work fill;
	struct parent *early[NVSIM_VFS];	/* of VFs that have no driver yet */
	struct dentry *vgpus_file, *activity_file;
	struct proc_dir_entry *proc;
};

/* A PF or VF that is bound. */
struct function {
	struct list_head node;
	struct gpu *gpu;
	struct pci_dev *pdev;
	int vf;				/* negative for the PF */
	struct parent *parent;		/* of mdevs */
	struct device_vfio *vfio;	/* of a VF under vendor-vfio */
	struct mutex writer;		/* one write of current_vgpu_type at a time */
};

/* The place that a new vGPU would get. */
struct place {
	u32 gi, placement;
};

/* driver.c: the parameters */
enum held { HELD_EPERM, HELD_EBUSY, HELD_BLOCK };
extern unsigned int nvsim_ready_delay_ms;
extern enum held nvsim_clear_held;
extern int nvsim_numvfs_errno;
extern bool nvsim_placement_writable, nvsim_gi_writable, nvsim_creatable_header, nvsim_no_mdev_tree;
extern bool nvsim_req_irq, nvsim_uuid_late;
extern char *nvsim_driver_version;

/* gpu.c */
struct gpu *gpu_add(struct pci_dev *pdev, struct nvsim_card *card);
void gpu_remove(struct gpu *gpu);
struct gpu *gpu_get(unsigned int index);
void gpu_put(struct gpu *gpu);
void gpu_forget_modes(void);
int gpu_enter(struct gpu *gpu);
void gpu_leave(struct gpu *gpu);
bool gpu_is_lost(struct gpu *gpu);

/* function.c */
extern struct pci_driver nvsim_pci_driver;
static inline u32 parent_of(struct pci_dev *pdev)
{
	return pdev->bus->number << 8 | pdev->devfn;
}

/* rules.c: call them with gpu->lock */
enum nvrm rules_refusal(struct gpu *gpu, u32 parent, const struct nvsim_type *type, struct place *place);
unsigned int rules_available(struct gpu *gpu, u32 parent, const struct nvsim_type *type);
const struct nvsim_type *rules_type(struct gpu *gpu, u32 id);
struct vgpu *rules_vgpu_on(struct gpu *gpu, u32 parent);
bool rules_creatable_in(struct gpu *gpu, const struct nvsim_type *type, const struct instance *gi);
static inline bool is_mig_type(const struct nvsim_type *type)
{
	return type->gi_profile != NVSIM_NO_PROFILE;
}

/* placement.c: call them with gpu->lock */
unsigned int size_gb(unsigned int mib);
bool placement_is_free(struct gpu *gpu, const struct vgpu *except, const struct nvsim_type *type, u32 gi,
		       u32 start);
u32 placement_first(struct gpu *gpu, const struct nvsim_type *type, u32 gi);
bool placement_is_mixed(struct gpu *gpu, u32 gi);
int placement_list(struct gpu *gpu, struct nvsim_placements *list);
ssize_t placement_show(struct vgpu *vgpu, char *buffer);
int placement_move(struct vgpu *vgpu, u32 start);

/* vgpu.c */
int vgpu_begins(struct gpu *gpu, struct pci_dev *parent, bool is_mdev);
struct vgpu *vgpu_create(struct gpu *gpu, struct pci_dev *parent, const struct nvsim_type *type,
			 const char *mdev_uuid);
void vgpu_destroy(struct vgpu *vgpu);
int vgpu_refused(u32 parent, unsigned int code, bool is_mdev);
int vgpu_open(struct vgpu *vgpu);
void vgpu_close(struct vgpu *vgpu);
ssize_t vgpu_params_show(struct vgpu *vgpu, char *buffer);
int vgpu_params_store(struct vgpu *vgpu, const char *buffer, size_t count);

/* vfio.c, guest.c: what a VM sees */
struct device_vfio *vfio_add(struct device *dev, struct gpu *gpu, struct vgpu *vgpu);
void vfio_remove(struct device_vfio *vfio);
struct vgpu *vfio_vgpu(struct device_vfio *vfio);
void vfio_set_vgpu(struct device_vfio *vfio, struct vgpu *vgpu);

/* mdev.c */
int mdev_init(void);
void mdev_exit(void);
struct parent *parent_add(struct gpu *gpu, struct pci_dev *pdev);
void parent_remove(struct parent *parent);

/* vendor.c */
int vendor_add(struct function *fn);
void vendor_remove(struct function *fn);

/* instance.c: MIG; call those with an instance with gpu->lock */
struct instance *instance_by_id(struct gpu *gpu, u32 id);
unsigned int instance_vgpus(struct gpu *gpu, u32 id);
unsigned int instance_count(struct gpu *gpu);
int mig_set(struct gpu *gpu, struct nvsim_mig *mig);
int instance_list(struct gpu *gpu, struct nvsim_gis *list);
int instance_create(struct gpu *gpu, struct nvsim_gi_create *request);
int instance_destroy(struct gpu *gpu, u32 id);
int instance_room(struct gpu *gpu, struct nvsim_gi_room *room);
int ci_create(struct gpu *gpu, struct nvsim_ci *request);
int ci_destroy(struct gpu *gpu, struct nvsim_ci *request);
int mixed_set(struct gpu *gpu, struct nvsim_mixed *request);

/* scheduler.c */
void scheduler_reset(struct scheduler *schedulers);
int scheduler_get(struct gpu *gpu, struct nvsim_sched *state);
int scheduler_set(struct gpu *gpu, struct nvsim_sched *state);
int scheduler_log(struct gpu *gpu, struct nvsim_log *log);
void scheduler_advance(struct gpu *gpu);

/* node.c, procfs.c, debug.c, plain.c */
int node_init(void);
void node_exit(void);
void node_add(struct gpu *gpu);
void node_remove(struct gpu *gpu);
int procfs_init(void);
void procfs_exit(void);
void procfs_add(struct gpu *gpu);
void procfs_remove(struct gpu *gpu);
void debug_add(struct gpu *gpu);
void debug_remove(struct gpu *gpu);
int plain_init(void);
void plain_exit(void);

/* faults.c */
int faults_init(void);
void faults_exit(void);
int deed_begins(enum deed deed, struct nvsim_card *card, unsigned int *code);

#endif
