// SPDX-License-Identifier: Apache-2.0
/*
 * /run/nvsim/nvml.conf: what a test wants of single calls.  Lines are read anew by every call.
 *
 *   hang NAME		NAME blocks until the line is gone
 *   fail NAME CODE	NAME returns CODE
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "library.h"

#define CONFIG "/run/nvsim/nvml.conf"

enum verdict { GO_ON, HANG, FAIL };

static enum verdict look_up(const char *name, unsigned int *code)
{
	FILE *file = fopen(CONFIG, "re");
	enum verdict verdict = GO_ON;
	char line[256], told[128];
	unsigned int number;

	if (!file)
		return GO_ON;
	while (verdict != HANG && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "hang %127s", told) == 1 && !strcmp(told, name)) {
			verdict = HANG;
		} else if (sscanf(line, "fail %127s %u", told, &number) == 2 && !strcmp(told, name)) {
			verdict = FAIL;
			*code = number;
		}
	}
	fclose(file);
	return verdict;
}

nvmlReturn_t config_verdict(const char *name)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
	unsigned int code = NVML_SUCCESS;
	enum verdict verdict;

	while ((verdict = look_up(name, &code)) == HANG)
		nanosleep(&pause, NULL);
	return verdict == FAIL ? (nvmlReturn_t)code : NVML_SUCCESS;
}
