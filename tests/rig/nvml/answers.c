// SPDX-License-Identifier: Apache-2.0
/* Strings and lists on their way to the caller's buffers. */
#include <string.h>

#include "library.h"

nvmlReturn_t answer_text(const char *text, char *buffer, uint32_t size)
{
	size_t needed = strlen(text) + 1;

	REQUIRE(buffer, NVML_ERROR_INVALID_ARGUMENT);
	REQUIRE(size >= needed, NVML_ERROR_INSUFFICIENT_SIZE);
	memcpy(buffer, text, needed);
	return NVML_SUCCESS;
}

/* The kind that also says how much room is needed. */
nvmlReturn_t answer_sized_text(const char *text, char *buffer, uint32_t *size)
{
	nvmlReturn_t code;

	REQUIRE(buffer && size, NVML_ERROR_INVALID_ARGUMENT);
	code = answer_text(text, buffer, *size);
	if (code == NVML_ERROR_INSUFFICIENT_SIZE)
		*size = strlen(text) + 1;
	return code;
}

/* Two calls of the caller: the first learns the count, the second gets the list. */
nvmlReturn_t answer_ids(const uint32_t *ids, uint32_t count, uint32_t *buffer, uint32_t *size)
{
	uint32_t room = *size;

	*size = count;
	if (room < count)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	REQUIRE(buffer || !count, NVML_ERROR_INVALID_ARGUMENT);
	if (count)
		memcpy(buffer, ids, count * sizeof(*ids));
	return NVML_SUCCESS;
}
