/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the simulated driver tells and is told through its device nodes, as NVIDIA's own does through
 * private ioctls of the same nodes.  The simulated libnvidia-ml.so.1 is the only caller.
 *
 *   /dev/nvidiactl    the driver as a whole; opening it keeps nothing in use
 *   /dev/nvidia<N>    one GPU with a bound PF, by minor; every open counts as a client and so
 *                     denies the unbindLock (docs/hardware.md 1.5.6)
 *
 * An ioctl fails with an errno that the library maps to NVML's codes:
 *   EBUSY in use · ENOSPC insufficient resources · EOPNOTSUPP not supported · EINVAL invalid argument
 *   ENOENT not found · EPERM no permission · ENODEV GPU is lost · EAGAIN reset required
 * Sizes are in bytes or, where a name says so, MiB; times in ns.
 */
#ifndef NVSIM_UAPI_H
#define NVSIM_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define NVSIM_MAX_GPUS		16
#define NVSIM_MAX_TYPES		128
#define NVSIM_MAX_VGPUS		64
#define NVSIM_MAX_GIS		16
#define NVSIM_MAX_PLACEMENTS	320
#define NVSIM_MAX_LOG		200
#define NVSIM_NONE		0xffffffffu	/* no GPU instance, no placement, "as the driver likes" */

struct nvsim_host {
	__u32 count;				/* GPUs with a bound PF that are not lost */
	__u32 minors[NVSIM_MAX_GPUS];		/* by PCI address, as NVML's indices are */
	char driver_version[32];
};

struct nvsim_gpu {
	__u32 domain, bus, device, function;
	__u32 vendor_device;			/* device << 16 | vendor */
	__u32 subsystem;			/* the same of the subsystem */
	__u32 vfs;				/* VFs that are on */
	__u32 mig_capable, mig_current, mig_pending;
	__u32 mixed_capable, mixed;		/* heterogeneous ("mixed-size") mode */
	__u32 sriov;				/* NVML's host vGPU mode: 1 with SR-IOV */
	__u32 clients;				/* opens of this node */
	__u64 fb_bytes, fb_used_bytes;
	char key[32];				/* of the catalogue: "l40s" */
	char name[64];
	char uuid[48];				/* "GPU-..." */
};

struct nvsim_types {
	__u32 creatable;			/* in: 0 supported, 1 creatable now on some free parent */
	__u32 gi;				/* in: of one GPU instance, or NVSIM_NONE */
	__u32 count;
	__u32 ids[NVSIM_MAX_TYPES];
};

struct nvsim_vgpu {
	__u32 handle;				/* unique while the driver is loaded, never 0 */
	__u32 type;
	__u32 vf_bdf;				/* bus << 8 | devfn of its parent, PF or VF */
	__u32 gi;
	__u32 placement;
	__s32 pid;				/* who has it open, 0 while nobody has */
	__u32 licensed;				/* set by debugfs */
	__u32 sm_util, mem_util, enc_util, dec_util;	/* percent, set by debugfs */
	__u64 fb_used_bytes;			/* 0 until its VM runs */
	char mdev_uuid[40];			/* empty under vendor-vfio */
	char params[256];
};

struct nvsim_vgpus {
	__u32 gi;				/* in: of one GPU instance, or NVSIM_NONE */
	__u32 count;
	struct nvsim_vgpu list[NVSIM_MAX_VGPUS];
};

struct nvsim_gi {
	__u32 id;
	__u32 profile;				/* what `nvidia-smi mig -lgip` prints */
	__u32 start, size;			/* memory slices */
	__u32 vgpus;				/* created on it */
	__u32 cis;				/* bit mask of compute-instance ids */
	__u32 ci_profiles[8];			/* slices of each */
	__u32 mixed;
};

struct nvsim_gis {
	__u32 count;
	struct nvsim_gi list[NVSIM_MAX_GIS];
};

struct nvsim_gi_create {
	__u32 profile;				/* in */
	__u32 start;				/* in: NVSIM_NONE lets the driver choose; out: where it is */
	__u32 id;				/* out */
};

struct nvsim_gi_room {
	__u32 profile;				/* in */
	__u32 remaining;			/* out: how many more could be made now */
};

struct nvsim_ci {
	__u32 gi;				/* in */
	__u32 slices;				/* in, for create */
	__u32 id;				/* in for destroy, out for create */
};

struct nvsim_mig {
	__u32 enable;				/* in */
	__u32 status;				/* out: NVML's code of the activation, 0 when it is in force */
};

struct nvsim_mixed {
	__u32 gi;				/* in: NVSIM_NONE for the GPU */
	__u32 enable;				/* in */
};

struct nvsim_placements {
	__u32 type;				/* in */
	__u32 gi;				/* in: NVSIM_NONE for the GPU */
	__u32 creatable;			/* in: 0 supported, 1 creatable now */
	__u32 homogeneous;			/* in: 0 mixed-size placements, 1 those of one size */
	__u32 size;				/* out, in units of the placement region (GB) */
	__u32 count;
	__u32 starts[NVSIM_MAX_PLACEMENTS];	/* in the driver's first-fit order */
};

struct nvsim_sched {				/* policies and ARR modes have NVML's numbers */
	__u32 gi;				/* in: NVSIM_NONE for the GPU */
	__u32 engine;				/* 1 graphics, 2 NVENC1, 3 NVENC0 */
	__u32 policy;				/* 1 best effort, 2 equal share, 3 fixed share */
	__u32 arr;				/* 0 default, 1 disabled, 2 enabled */
	__u32 avg_factor, frequency;
	__u32 timeslice_ns;
};

struct nvsim_log_entry {
	__u64 timestamp_ns, run_total_ns, run_ns, target_slice_ns, preemption_ns;
	__u32 sw_runlist;
	__u32 reserved;
};

struct nvsim_log {
	__u32 gi, engine;			/* in */
	__u32 count;
	__u32 reserved;
	struct nvsim_log_entry list[NVSIM_MAX_LOG];
};

#define NVSIM_MAGIC 'v'
/* on /dev/nvidiactl */
#define NVSIM_IOC_HOST		_IOR(NVSIM_MAGIC, 1, struct nvsim_host)
/* on /dev/nvidia<N> */
#define NVSIM_IOC_GPU		_IOR(NVSIM_MAGIC, 2, struct nvsim_gpu)
#define NVSIM_IOC_TYPES		_IOWR(NVSIM_MAGIC, 3, struct nvsim_types)
/* larger than the size field of a number takes */
#define NVSIM_IOC_VGPUS		_IO(NVSIM_MAGIC, 4)
#define NVSIM_IOC_GIS		_IOR(NVSIM_MAGIC, 5, struct nvsim_gis)
#define NVSIM_IOC_GI_CREATE	_IOWR(NVSIM_MAGIC, 6, struct nvsim_gi_create)
#define NVSIM_IOC_GI_DESTROY	_IOW(NVSIM_MAGIC, 7, __u32)
#define NVSIM_IOC_GI_ROOM	_IOWR(NVSIM_MAGIC, 8, struct nvsim_gi_room)
#define NVSIM_IOC_CI_CREATE	_IOWR(NVSIM_MAGIC, 9, struct nvsim_ci)
#define NVSIM_IOC_CI_DESTROY	_IOW(NVSIM_MAGIC, 10, struct nvsim_ci)
#define NVSIM_IOC_MIG		_IOWR(NVSIM_MAGIC, 11, struct nvsim_mig)
#define NVSIM_IOC_MIXED		_IOW(NVSIM_MAGIC, 12, struct nvsim_mixed)
#define NVSIM_IOC_PLACEMENTS	_IOWR(NVSIM_MAGIC, 13, struct nvsim_placements)
#define NVSIM_IOC_SCHED_GET	_IOWR(NVSIM_MAGIC, 14, struct nvsim_sched)
#define NVSIM_IOC_SCHED_SET	_IOW(NVSIM_MAGIC, 15, struct nvsim_sched)
#define NVSIM_IOC_SCHED_LOG	_IOWR(NVSIM_MAGIC, 16, struct nvsim_log)

#endif
