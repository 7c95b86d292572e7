/* SPDX-License-Identifier: GPL-2.0-only */
/* A config space in memory: bytes, and which of their bits can be written. */
#ifndef NVSIM_CONFIG_H
#define NVSIM_CONFIG_H

#include <linux/pci.h>

#define CONFIG_SIZE	4096

struct config {
	u8 value[CONFIG_SIZE];
	u8 writable[CONFIG_SIZE];
};

static inline void config_put(struct config *c, int offset, int length, u32 value, u32 writable)
{
	int i;

	for (i = 0; i < length; i++) {
		c->value[offset + i] = value >> (8 * i);
		c->writable[offset + i] = writable >> (8 * i);
	}
}

static inline u32 config_read(const struct config *c, int offset, int length)
{
	u32 value = 0;
	int i;

	for (i = 0; i < length && offset + i < CONFIG_SIZE; i++)
		value |= (u32)c->value[offset + i] << (8 * i);
	return value;
}

static inline void config_write(struct config *c, int offset, int length, u32 value)
{
	int i;

	for (i = 0; i < length && offset + i < CONFIG_SIZE; i++) {
		u8 writable = c->writable[offset + i];

		c->value[offset + i] = (c->value[offset + i] & ~writable) |
				       ((value >> (8 * i)) & writable);
	}
}

static inline void config_put_bar32(struct config *c, int offset, u32 size)
{
	config_put(c, offset, 4, 0, ~(size - 1) & ~0xfu);
}

static inline void config_put_bar64(struct config *c, int offset, u64 size, bool prefetchable)
{
	u64 mask = ~(size - 1);

	config_put(c, offset, 4, PCI_BASE_ADDRESS_MEM_TYPE_64 |
		   (prefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0), (u32)mask & ~0xfu);
	config_put(c, offset + 4, 4, 0, mask >> 32);
}

#endif
