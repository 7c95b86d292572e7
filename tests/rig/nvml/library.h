/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own parts: a call, the driver behind it, handles, and the static facts of a model. */
#ifndef LIBRARY_H
#define LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

#include "abi.h"
#include "nvsim_model.h"
#include "nvsim_uapi.h"

/* One exported call, from its first line until it returns. */
struct call {
	bool entered;
	nvmlReturn_t refusal;
};

struct call call_begin(const char *name);
void call_end(struct call *call);

/* First line of every exported function that needs nvmlInit. */
#define CALL()								\
	struct call call __attribute__((cleanup(call_end))) = call_begin(__func__); \
	if (call.refusal)						\
		return call.refusal

/* Ends the function with what it returned, unless that is success. */
#define TRY(expression)							\
	do {								\
		nvmlReturn_t returned = (expression);			\
		if (returned)						\
			return returned;				\
	} while (0)

#define REQUIRE(condition, otherwise)					\
	do {								\
		if (!(condition))					\
			return otherwise;				\
	} while (0)

/* config.c: what a test told this call to do; blocks while it is told to hang. */
nvmlReturn_t config_verdict(const char *name);

/* One GPU as nvmlInit found it; its node is opened with its first handle and closed by the last nvmlShutdown. */
struct gpu {
	uint32_t minor;
	int node;
};

/* driver.c */
nvmlReturn_t driver_open(void);
void driver_close(void);
unsigned int driver_gpus(void);
const char *driver_version(void);
struct gpu *driver_gpu(unsigned int index);
nvmlReturn_t gpu_attach(struct gpu *gpu);
bool gpu_attached(const struct gpu *gpu);
void gpu_detach(struct gpu *gpu);
nvmlReturn_t gpu_ask(struct gpu *gpu, unsigned long request, void *argument);
unsigned int gpu_index(const struct gpu *gpu);
bool is_root(void);

/* handles.c: NULL stands for a handle that is none, or none any more. */
nvmlDevice_t handle_of_gpu(const struct gpu *gpu);
struct gpu *gpu_of(nvmlDevice_t handle);
nvmlGpuInstance_t handle_of_gi(const struct gpu *gpu, uint32_t gi);
struct gpu *gpu_of_gi(nvmlGpuInstance_t handle, uint32_t *gi);
nvmlComputeInstance_t handle_of_ci(const struct gpu *gpu, uint32_t gi, uint32_t ci);
struct gpu *gpu_of_ci(nvmlComputeInstance_t handle, uint32_t *gi, uint32_t *ci);
void handles_forget_all(void);
void handles_forget_gi(const struct gpu *gpu, uint32_t gi);
void handles_forget_ci(const struct gpu *gpu, uint32_t gi, uint32_t ci);

/* answers.c: how strings and lists go to the caller. */
nvmlReturn_t answer_text(const char *text, char *buffer, uint32_t size);
nvmlReturn_t answer_sized_text(const char *text, char *buffer, uint32_t *size);
nvmlReturn_t answer_ids(const uint32_t *ids, uint32_t count, uint32_t *buffer, uint32_t *size);

/* facts.c: what the catalogue says about models, types and GPU-instance profiles. */
const struct nvsim_model *facts_of_gpu(struct gpu *gpu, struct nvsim_gpu *state, nvmlReturn_t *error);
const struct nvsim_type *facts_of_type(uint32_t type, const struct nvsim_model **model);
const struct nvsim_type *facts_of_type_on(const struct nvsim_model *model, uint32_t type);
const struct nvsim_profile *facts_of_profile(const struct nvsim_model *model, uint32_t id);
const struct nvsim_profile *facts_of_profile_number(const struct nvsim_model *model, uint32_t number);

/* vgpu_instances.c: one vGPU whose VM runs, and its GPU. */
nvmlReturn_t find_active_vgpu(uint32_t handle, struct nvsim_vgpu *vgpu, struct gpu **gpu);

/* guest.c: what QEMU's command line says about the VM. */
bool guest_uuid(int pid, char uuid[37]);
bool guest_address(int pid, const char *vf, const char *mdev, char address[NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE]);

/* gi_profiles.c: the model of a GPU that has MIG; NULL with the error where that cannot be, or is not root's. */
const struct nvsim_model *mig_model(struct gpu *gpu, struct nvsim_gpu *state, nvmlReturn_t *error);

/* gpu_instances.c: NVML_ERROR_INVALID_ARGUMENT where the instance is gone. */
nvmlReturn_t find_gi(struct gpu *gpu, uint32_t id, struct nvsim_gi *found);

#endif
