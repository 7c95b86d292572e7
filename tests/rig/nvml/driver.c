// SPDX-License-Identifier: Apache-2.0
/* The kernel driver, through /dev/nvidiactl and /dev/nvidia<N>. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <spawn.h>
#include <unistd.h>

#include "library.h"

#define CONTROL_NODE "/dev/nvidiactl"
#define LOADER "/usr/bin/nvidia-modprobe"

static struct {
	pthread_mutex_t lock;		/* of the nodes being opened */
	int control;
	struct nvsim_host host;
	struct gpu gpus[NVSIM_MAX_GPUS];
} driver = { .lock = PTHREAD_MUTEX_INITIALIZER, .control = -1 };

static nvmlReturn_t code_of(int error)
{
	switch (error) {
	case EBUSY:
		return NVML_ERROR_IN_USE;
	case ENOSPC:
		return NVML_ERROR_INSUFFICIENT_RESOURCES;
	case EOPNOTSUPP:
		return NVML_ERROR_NOT_SUPPORTED;
	case EINVAL:
		return NVML_ERROR_INVALID_ARGUMENT;
	case ENOENT:
		return NVML_ERROR_NOT_FOUND;
	case EPERM:
	case EACCES:
		return NVML_ERROR_NO_PERMISSION;
	case ENODEV:
	case ENXIO:
		return NVML_ERROR_GPU_IS_LOST;
	case EAGAIN:
		return NVML_ERROR_RESET_REQUIRED;
	case ENOTTY:
		return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
	case ENOMEM:
		return NVML_ERROR_MEMORY;
	default:
		return NVML_ERROR_UNKNOWN;
	}
}

bool is_root(void)
{
	return geteuid() == 0;
}

/* As NVIDIA's does: its setuid helper, where that is installed. */
static void load_module(void)
{
	char *arguments[] = { LOADER, NULL };
	char *environment[] = { NULL };
	pid_t child;

	if (!posix_spawn(&child, LOADER, NULL, NULL, arguments, environment))
		waitpid(child, NULL, 0);
}

/* When this fails, driver_close() is still to be called. */
nvmlReturn_t driver_open(void)
{
	driver.control = open(CONTROL_NODE, O_RDWR | O_CLOEXEC);
	if (driver.control < 0 && (errno == ENOENT || errno == ENXIO)) {
		load_module();
		driver.control = open(CONTROL_NODE, O_RDWR | O_CLOEXEC);
	}
	if (driver.control < 0)
		return errno == EACCES || errno == EPERM ? NVML_ERROR_NO_PERMISSION : NVML_ERROR_DRIVER_NOT_LOADED;
	if (ioctl(driver.control, NVSIM_IOC_HOST, &driver.host))
		return code_of(errno);
	for (unsigned int index = 0; index < driver.host.count; index++)
		driver.gpus[index] = (struct gpu){ .minor = driver.host.minors[index], .node = -1 };
	return NVML_SUCCESS;
}

void driver_close(void)
{
	for (unsigned int index = 0; index < driver.host.count; index++)
		gpu_detach(&driver.gpus[index]);
	if (driver.control >= 0)
		close(driver.control);
	driver.control = -1;
	driver.host.count = 0;
}

/* As nvmlInit found them: one that is lost afterwards keeps its index. */
unsigned int driver_gpus(void)
{
	return driver.host.count;
}

const char *driver_version(void)
{
	return driver.host.driver_version;
}

struct gpu *driver_gpu(unsigned int index)
{
	return index < driver.host.count ? &driver.gpus[index] : NULL;
}

unsigned int gpu_index(const struct gpu *gpu)
{
	return gpu - driver.gpus;
}

nvmlReturn_t gpu_attach(struct gpu *gpu)
{
	nvmlReturn_t code = NVML_SUCCESS;
	char path[32];

	snprintf(path, sizeof(path), "/dev/nvidia%u", gpu->minor);
	pthread_mutex_lock(&driver.lock);
	if (gpu->node < 0) {
		gpu->node = open(path, O_RDWR | O_CLOEXEC);
		if (gpu->node < 0)
			code = errno == ENOENT ? NVML_ERROR_GPU_IS_LOST : code_of(errno);
	}
	pthread_mutex_unlock(&driver.lock);
	return code;
}

bool gpu_attached(const struct gpu *gpu)
{
	bool attached;

	pthread_mutex_lock(&driver.lock);
	attached = gpu->node >= 0;
	pthread_mutex_unlock(&driver.lock);
	return attached;
}

void gpu_detach(struct gpu *gpu)
{
	pthread_mutex_lock(&driver.lock);
	if (gpu->node >= 0)
		close(gpu->node);
	gpu->node = -1;
	pthread_mutex_unlock(&driver.lock);
}

nvmlReturn_t gpu_ask(struct gpu *gpu, unsigned long request, void *argument)
{
	return ioctl(gpu->node, request, argument) ? code_of(errno) : NVML_SUCCESS;
}
