/* SPDX-License-Identifier: GPL-2.0-only */
/* The PCI device that a VM sees: config space, a small BAR0 and a large prefetchable BAR1. */
#ifndef NVSIM_GUEST_H
#define NVSIM_GUEST_H

#include <linux/xarray.h>
#include "config.h"
#include "nvsim_model.h"

#define GUEST_BAR0	(64ULL << 10)
#define GUEST_BAR1	(256ULL << 20)
#define GUEST_BARS	2

struct guest {
	struct config config;
	struct xarray pages[GUEST_BARS];	/* what was written to; the rest reads 0 */
};

struct guest *guest_alloc(void);
void guest_free(struct guest *guest);
void guest_reset(struct guest *guest, const struct nvsim_model *model, const struct nvsim_type *type);
u64 guest_region_size(unsigned int region);
int guest_rw(struct guest *guest, unsigned int region, u64 offset, char __user *buffer, size_t count,
	     bool write);

#endif
