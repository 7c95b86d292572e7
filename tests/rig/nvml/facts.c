// SPDX-License-Identifier: Apache-2.0
/* What the catalogue says about models, types and GPU-instance profiles. */
#include <string.h>

#include "abi_mig.h"
#include "library.h"
#include "nvsim_tables.h"

#define MODELS (sizeof(nvsim_models) / sizeof(nvsim_models[0]))

/* The state of a GPU and the facts of its model; NULL with the error where it cannot be asked. */
const struct nvsim_model *facts_of_gpu(struct gpu *gpu, struct nvsim_gpu *state, nvmlReturn_t *error)
{
	*error = gpu_ask(gpu, NVSIM_IOC_GPU, state);
	if (*error)
		return NULL;
	for (size_t index = 0; index < MODELS; index++)
		if (!strncmp(nvsim_models[index].key, state->key, sizeof(state->key)))
			return &nvsim_models[index];
	*error = NVML_ERROR_LIB_RM_VERSION_MISMATCH;
	return NULL;
}

const struct nvsim_type *facts_of_type_on(const struct nvsim_model *model, uint32_t type)
{
	for (unsigned int index = 0; index < model->ntypes; index++)
		if (model->types[index].id == type)
			return &model->types[index];
	return NULL;
}

/* Boards that are aliases of each other share their types: the first will do. */
const struct nvsim_type *facts_of_type(uint32_t type, const struct nvsim_model **model)
{
	for (size_t index = 0; index < MODELS; index++) {
		const struct nvsim_type *found = facts_of_type_on(&nvsim_models[index], type);

		if (found) {
			*model = &nvsim_models[index];
			return found;
		}
	}
	return NULL;
}

const struct nvsim_profile *facts_of_profile(const struct nvsim_model *model, uint32_t id)
{
	for (unsigned int index = 0; index < model->nprofiles; index++)
		if (model->profiles[index].id == id)
			return &model->profiles[index];
	return NULL;
}

/* Of two profiles with one compute slice, the one with more memory is the second revision. */
static bool has_double_memory(const struct nvsim_model *model, const struct nvsim_profile *profile)
{
	for (unsigned int index = 0; index < model->nprofiles; index++) {
		const struct nvsim_profile *other = &model->profiles[index];

		if (other->slices == profile->slices && !strpbrk(other->name, "+-") &&
		    other->fb_mib < profile->fb_mib)
			return true;
	}
	return false;
}

static const unsigned int plain_numbers[] = {
	[1] = NVML_GPU_INSTANCE_PROFILE_1_SLICE, [2] = NVML_GPU_INSTANCE_PROFILE_2_SLICE,
	[3] = NVML_GPU_INSTANCE_PROFILE_3_SLICE, [4] = NVML_GPU_INSTANCE_PROFILE_4_SLICE,
	[6] = NVML_GPU_INSTANCE_PROFILE_6_SLICE, [7] = NVML_GPU_INSTANCE_PROFILE_7_SLICE,
	[8] = NVML_GPU_INSTANCE_PROFILE_8_SLICE,
};

static const struct {
	const char *suffix;
	unsigned int slices, number;
} special_numbers[] = {
	{ "+me", 1, NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1 },
	{ "+me", 2, NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1 },
	{ "+gfx", 1, NVML_GPU_INSTANCE_PROFILE_1_SLICE_GFX },
	{ "+gfx", 2, NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX },
	{ "+gfx", 3, NVML_GPU_INSTANCE_PROFILE_3_SLICE_GFX },
	{ "+gfx", 4, NVML_GPU_INSTANCE_PROFILE_4_SLICE_GFX },
	{ "-me", 1, NVML_GPU_INSTANCE_PROFILE_1_SLICE_NO_ME },
	{ "-me", 2, NVML_GPU_INSTANCE_PROFILE_2_SLICE_NO_ME },
	{ "+me.all", 1, NVML_GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME },
	{ "+me.all", 2, NVML_GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME },
};

static unsigned int number_of(const struct nvsim_model *model, const struct nvsim_profile *profile)
{
	const char *suffix = strpbrk(profile->name, "+-");

	if (!suffix && profile->slices == 1 && has_double_memory(model, profile))
		return NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2;
	if (!suffix)
		return profile->slices < sizeof(plain_numbers) / sizeof(plain_numbers[0]) ?
			       plain_numbers[profile->slices] : NVML_GPU_INSTANCE_PROFILE_COUNT;
	for (size_t index = 0; index < sizeof(special_numbers) / sizeof(special_numbers[0]); index++)
		if (special_numbers[index].slices == profile->slices &&
		    !strcmp(special_numbers[index].suffix, suffix))
			return special_numbers[index].number;
	return NVML_GPU_INSTANCE_PROFILE_COUNT;
}

/* By NVML's own number of it, which is not its id (docs/hardware.md 3.1). */
const struct nvsim_profile *facts_of_profile_number(const struct nvsim_model *model, uint32_t number)
{
	for (unsigned int index = 0; index < model->nprofiles; index++)
		if (number_of(model, &model->profiles[index]) == number)
			return &model->profiles[index];
	return NULL;
}
