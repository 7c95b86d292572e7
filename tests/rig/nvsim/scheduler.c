// SPDX-License-Identifier: GPL-2.0-only
/*
 * The scheduler of time-sliced vGPUs, of a GPU or of a GPU instance (docs/hardware.md 4).  The log is what
 * a round robin over the open vGPUs has done since it was last asked for.
 */
#include <linux/math64.h>
#include <linux/ktime.h>
#include "nvsim.h"

#define BEST_EFFORT	1
#define FIXED_SHARE	3
#define ARR_DISABLED	1
#define MIN_SLICE_NS	1000000
#define MAX_SLICE_NS	30000000
#define MIN_HZ		63
#define MAX_HZ		960
#define MAX_FACTOR	60

/* Those for at most eight vGPUs. */
static void set_defaults(struct scheduler *scheduler)
{
	if (!scheduler->timeslice_ns)
		scheduler->timeslice_ns = 2 * MIN_SLICE_NS;
	if (scheduler->policy == BEST_EFFORT || scheduler->arr == ARR_DISABLED)
		return;
	if (!scheduler->frequency)
		scheduler->frequency = 480;
	if (!scheduler->avg_factor)
		scheduler->avg_factor = 33;
}

void scheduler_reset(struct scheduler *schedulers)
{
	unsigned int i;

	for (i = 0; i < ENGINES; i++) {
		schedulers[i] = (struct scheduler) { .policy = BEST_EFFORT };
		set_defaults(&schedulers[i]);
	}
}

/* The schedulers of the GPU or of an instance, or an error; with gpu->lock. */
static struct scheduler *find(struct gpu *gpu, u32 gi, u32 engine)
{
	struct instance *instance;

	if (engine < 1 || engine > ENGINES)
		return ERR_PTR(-EINVAL);
	if (!gpu->model->schedulers)
		return ERR_PTR(-EOPNOTSUPP);
	if (gi == NONE)
		return gpu->mig ? ERR_PTR(-EOPNOTSUPP) : &gpu->schedulers[engine - 1];
	instance = instance_by_id(gpu, gi);
	if (!instance)
		return ERR_PTR(-ENOENT);
	return gpu->model->mig_timesliced ? &instance->schedulers[engine - 1] : ERR_PTR(-EOPNOTSUPP);
}

int scheduler_get(struct gpu *gpu, struct nvsim_sched *state)
{
	struct scheduler *scheduler;
	int ret = 0;

	mutex_lock(&gpu->lock);
	scheduler = find(gpu, state->gi, state->engine);
	if (IS_ERR(scheduler)) {
		ret = PTR_ERR(scheduler);
	} else {
		state->policy = scheduler->policy;
		state->arr = scheduler->arr;
		state->avg_factor = scheduler->avg_factor;
		state->frequency = scheduler->frequency;
		state->timeslice_ns = scheduler->timeslice_ns;
	}
	mutex_unlock(&gpu->lock);
	return ret;
}

/* What can be set; 0 is the driver's default. */
static bool is_valid(const struct nvsim_sched *state)
{
	if (state->policy < BEST_EFFORT || state->policy > FIXED_SHARE || state->arr > 2)
		return false;
	if (state->timeslice_ns && (state->timeslice_ns < MIN_SLICE_NS || state->timeslice_ns > MAX_SLICE_NS))
		return false;
	if (state->frequency && (state->frequency < MIN_HZ || state->frequency > MAX_HZ))
		return false;
	return state->avg_factor <= MAX_FACTOR;
}

/* Only while no vGPU is there, else "not supported", as NVML says it. */
static int set(struct gpu *gpu, struct nvsim_sched *state)
{
	struct scheduler *scheduler = find(gpu, state->gi, state->engine);

	if (IS_ERR(scheduler))
		return PTR_ERR(scheduler);
	if (!is_valid(state))
		return -EINVAL;
	if (state->gi == NONE ? gpu->count : instance_vgpus(gpu, state->gi))
		return -EOPNOTSUPP;
	if (state->policy == FIXED_SHARE && placement_is_mixed(gpu, state->gi))
		return -EOPNOTSUPP;
	*scheduler = (struct scheduler) { .policy = state->policy, .timeslice_ns = state->timeslice_ns };
	if (state->policy != BEST_EFFORT) {
		scheduler->arr = state->arr;
		if (state->arr != ARR_DISABLED) {
			scheduler->avg_factor = state->avg_factor;
			scheduler->frequency = state->frequency;
		}
	}
	set_defaults(scheduler);
	return 0;
}

int scheduler_set(struct gpu *gpu, struct nvsim_sched *state)
{
	int ret;

	mutex_lock(&gpu->lock);
	ret = set(gpu, state);
	mutex_unlock(&gpu->lock);
	return ret;
}

static u32 slice_of(struct gpu *gpu, const struct vgpu *vgpu)
{
	struct instance *gi = vgpu->gi == NONE ? NULL : instance_by_id(gpu, vgpu->gi);
	struct scheduler *scheduler = gi ? gi->schedulers : gpu->schedulers;

	if (scheduler->policy != BEST_EFFORT && scheduler->arr != ARR_DISABLED)
		return NSEC_PER_SEC / scheduler->frequency;
	return scheduler->timeslice_ns;
}

static struct vgpu *nth_open(struct gpu *gpu, unsigned int n)
{
	struct vgpu *vgpu;

	list_for_each_entry(vgpu, &gpu->vgpus, node)
		if (vgpu->open && !n--)
			return vgpu;
	return NULL;
}

/* One turn of one vGPU: it runs as much of its slice as it is said to be busy, or all of it. */
static void take_turn(struct gpu *gpu, struct vgpu *vgpu, u64 times, bool logged)
{
	u32 slice = slice_of(gpu, vgpu), run = vgpu->sm ? slice / 100 * min(vgpu->sm, 100u) : slice;
	struct schedule_log *log = &gpu->log;

	vgpu->ran_ns += times * run;
	vgpu->preempted_ns += times * (slice - run);
	if (!logged)
		return;
	log->entries[log->head] = (struct nvsim_log_entry) {
		.timestamp_ns = log->now_ns,
		.run_total_ns = vgpu->ran_ns,
		.run_ns = run,
		.target_slice_ns = slice,
		.preemption_ns = vgpu->preempted_ns,
		.sw_runlist = vgpu->handle,
	};
	log->head = (log->head + 1) % NVSIM_MAX_LOG;
	log->count = min(log->count + 1, (unsigned int)NVSIM_MAX_LOG);
}

/* Write the log up to now; with gpu->lock, and before anything is opened or closed. */
void scheduler_advance(struct gpu *gpu)
{
	struct schedule_log *log = &gpu->log;
	u64 now = ktime_get_real_ns(), round = 0, rounds, logged;
	struct vgpu *vgpu;

	list_for_each_entry(vgpu, &gpu->vgpus, node)
		if (vgpu->open)
			round += slice_of(gpu, vgpu);
	if (!round || now < log->now_ns) {
		log->now_ns = now;
		return;
	}
	rounds = div64_u64(now - log->now_ns, round);
	logged = NVSIM_MAX_LOG / gpu->opened + 2;
	if (rounds > logged) {
		list_for_each_entry(vgpu, &gpu->vgpus, node)
			if (vgpu->open)
				take_turn(gpu, vgpu, rounds - logged, false);
		log->now_ns += (rounds - logged) * round;
	}
	for (;;) {
		vgpu = nth_open(gpu, log->turn++ % gpu->opened);
		if (!vgpu || log->now_ns + slice_of(gpu, vgpu) > now)
			break;
		log->now_ns += slice_of(gpu, vgpu);
		take_turn(gpu, vgpu, 1, true);
	}
	log->turn--;
}

/* The newest entries of one engine, oldest first; only graphics has a log. */
int scheduler_log(struct gpu *gpu, struct nvsim_log *out)
{
	struct schedule_log *log = &gpu->log;
	struct scheduler *scheduler;
	struct vgpu *vgpu;
	unsigned int i;
	int ret = 0;

	mutex_lock(&gpu->lock);
	out->count = 0;
	scheduler = find(gpu, out->gi, out->engine);
	if (IS_ERR(scheduler)) {
		ret = PTR_ERR(scheduler);
		goto out;
	}
	scheduler_advance(gpu);
	for (i = 0; i < log->count && out->engine == 1; i++) {
		struct nvsim_log_entry *entry =
			&log->entries[(log->head + NVSIM_MAX_LOG - log->count + i) % NVSIM_MAX_LOG];

		if (out->gi != NONE) {
			list_for_each_entry(vgpu, &gpu->vgpus, node)
				if (vgpu->handle == entry->sw_runlist)
					break;
			if (list_entry_is_head(vgpu, &gpu->vgpus, node) || vgpu->gi != out->gi)
				continue;
		}
		out->list[out->count++] = *entry;
	}
out:
	mutex_unlock(&gpu->lock);
	return ret;
}
