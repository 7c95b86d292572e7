// SPDX-License-Identifier: Apache-2.0
/* The session: init and shutdown, counted; versions; words for errors. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "library.h"

/* Read by every call, written by the first init and the last shutdown. */
static pthread_rwlock_t session_lock = PTHREAD_RWLOCK_INITIALIZER;
static unsigned int initialised;

struct call call_begin(const char *name)
{
	struct call call = { .refusal = config_verdict(name) };

	if (call.refusal)
		return call;
	pthread_rwlock_rdlock(&session_lock);
	call.entered = true;
	if (!initialised)
		call.refusal = NVML_ERROR_UNINITIALIZED;
	return call;
}

void call_end(struct call *call)
{
	if (call->entered)
		pthread_rwlock_unlock(&session_lock);
}

static nvmlReturn_t begin_session(const char *name, uint32_t flags)
{
	nvmlReturn_t code = config_verdict(name);

	if (code)
		return code;
	pthread_rwlock_wrlock(&session_lock);
	if (!initialised)
		code = driver_open();
	if (!code && !driver_gpus() && !(flags & NVML_INIT_FLAG_NO_GPUS))
		code = NVML_ERROR_GPU_NOT_FOUND;
	if (!code)
		initialised++;
	else if (!initialised)
		driver_close();
	pthread_rwlock_unlock(&session_lock);
	return code;
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
	return begin_session(__func__, 0);
}

EXPORT nvmlReturn_t nvmlInitWithFlags(uint32_t flags)
{
	return begin_session(__func__, flags);
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
	nvmlReturn_t code = config_verdict(__func__);

	if (code)
		return code;
	pthread_rwlock_wrlock(&session_lock);
	if (!initialised) {
		code = NVML_ERROR_UNINITIALIZED;
	} else if (!--initialised) {
		driver_close();
		handles_forget_all();
	}
	pthread_rwlock_unlock(&session_lock);
	return code;
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, uint32_t length)
{
	CALL();
	return answer_text(driver_version(), version, length);
}

/* API 13 came with R580, API 12 with R525. */
EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, uint32_t length)
{
	char text[NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE];

	CALL();
	snprintf(text, sizeof(text), "%d.%s", atoi(driver_version()) >= 580 ? 13 : 12, driver_version());
	return answer_text(text, version, length);
}

EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
	switch (result) {
	case NVML_SUCCESS:
		return "Success";
	case NVML_ERROR_UNINITIALIZED:
		return "Uninitialized";
	case NVML_ERROR_INVALID_ARGUMENT:
		return "Invalid Argument";
	case NVML_ERROR_NOT_SUPPORTED:
		return "Not Supported";
	case NVML_ERROR_NO_PERMISSION:
		return "Insufficient Permissions";
	case NVML_ERROR_ALREADY_INITIALIZED:
		return "Already Initialized";
	case NVML_ERROR_NOT_FOUND:
		return "Not Found";
	case NVML_ERROR_INSUFFICIENT_SIZE:
		return "Insufficient Size";
	case NVML_ERROR_INSUFFICIENT_POWER:
		return "Insufficient External Power";
	case NVML_ERROR_DRIVER_NOT_LOADED:
		return "Driver Not Loaded";
	case NVML_ERROR_TIMEOUT:
		return "Timeout";
	case NVML_ERROR_IRQ_ISSUE:
		return "Interrupt Request Issue";
	case NVML_ERROR_LIBRARY_NOT_FOUND:
		return "NVML Shared Library Not Found";
	case NVML_ERROR_FUNCTION_NOT_FOUND:
		return "Function Not Found";
	case NVML_ERROR_CORRUPTED_INFOROM:
		return "Corrupted infoROM";
	case NVML_ERROR_GPU_IS_LOST:
		return "GPU is lost";
	case NVML_ERROR_RESET_REQUIRED:
		return "GPU requires restart";
	case NVML_ERROR_OPERATING_SYSTEM:
		return "The operating system has blocked the request.";
	case NVML_ERROR_LIB_RM_VERSION_MISMATCH:
		return "Driver/library version mismatch";
	case NVML_ERROR_IN_USE:
		return "In use by another client";
	case NVML_ERROR_MEMORY:
		return "Insufficient Memory";
	case NVML_ERROR_NO_DATA:
		return "No data";
	case NVML_ERROR_VGPU_ECC_NOT_SUPPORTED:
		return "vGPU doesn't support ECC";
	case NVML_ERROR_INSUFFICIENT_RESOURCES:
		return "Insufficient Resources";
	case NVML_ERROR_FREQ_NOT_SUPPORTED:
		return "Frequency not supported";
	case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
		return "Argument version mismatch";
	case NVML_ERROR_DEPRECATED:
		return "Deprecated";
	case NVML_ERROR_NOT_READY:
		return "System is not ready";
	case NVML_ERROR_GPU_NOT_FOUND:
		return "No GPUs were found";
	case NVML_ERROR_INVALID_STATE:
		return "Resource not in correct state to perform requested operation";
	case NVML_ERROR_RESET_TYPE_NOT_SUPPORTED:
		return "Reset not supported for the device";
	case NVML_ERROR_UNKNOWN:
		break;
	}
	return "Unknown Error";
}
