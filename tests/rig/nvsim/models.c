// SPDX-License-Identifier: GPL-2.0-only
/* The models that a card can be of. */
#include <linux/kernel.h>
#include <linux/string.h>
#include "card.h"
#include "nvsim_tables.h"

const struct nvsim_model *model_keyed(const char *key)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(nvsim_models); i++)
		if (!strcmp(nvsim_models[i].key, key))
			return &nvsim_models[i];
	return NULL;
}
