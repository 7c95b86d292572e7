/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What nvsim_tables.h, which tables.py writes from the catalogue, is made of.  Plain C: the modules
 * and the simulated libnvidia-ml.so.1 both read it.
 */
#ifndef NVSIM_MODEL_H
#define NVSIM_MODEL_H

#define NVSIM_NO_PROFILE	0xffffffffu

/* A vGPU type; 0 stands for a limit that no source tells. */
struct nvsim_type {
	unsigned int id;
	const char *name;			/* the driver's: "NVIDIA L40S-8Q" */
	const char *short_name;			/* its last word: "L40S-8Q" */
	char series;				/* 'A', 'B', 'C', 'Q' */
	const char *licence;
	unsigned int fb_mib;			/* profile size, by which the equal-size rule goes */
	unsigned int max_per_gpu, max_per_gpu_mixed, max_per_gi;
	unsigned int heads, width, height, frl_fps;
	unsigned int gi_profile;		/* of a MIG-backed type, else NVSIM_NO_PROFILE */
	unsigned int nstarts;			/* mixed-size placements in first-fit order; */
	const unsigned short *starts;		/* 0 where no table of them is public */
};

/* A GPU-instance profile; starts and size on the memory-slice axis. */
struct nvsim_profile {
	unsigned int id;			/* what `nvidia-smi mig -lgip` prints */
	const char *name;
	unsigned int slices;			/* compute slices */
	unsigned int max;
	unsigned int fb_mib;
	unsigned int size, nstarts;
	unsigned char starts[8];
};

struct nvsim_model {
	const char *key;			/* of the catalogue: "l40s" */
	const char *name;
	const char *family;
	unsigned short vendor, device, vf_device, subsystem;
	unsigned int fb_mib;
	unsigned int vfs;			/* that can be turned on */
	unsigned int total_vfs;			/* that the config space tells of */
	unsigned int mixed;			/* has a mixed-size mode */
	unsigned int mig;
	unsigned int mig_kept;			/* MIG mode is a bit of the card, not of the driver */
	unsigned int mig_timesliced;		/* several vGPUs may share a GPU instance */
	unsigned int mig_slices;		/* memory slices */
	unsigned int schedulers;		/* other policies than best effort */
	unsigned int ntypes;
	const struct nvsim_type *types;
	unsigned int nprofiles;
	const struct nvsim_profile *profiles;
};

#endif
