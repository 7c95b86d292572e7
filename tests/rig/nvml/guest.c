// SPDX-License-Identifier: Apache-2.0
/* What QEMU's command line says about a VM, as NVIDIA's vgpu-mgr reads it too (docs/hardware.md 1.4.15). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "library.h"

#define MOST	(256 * 1024)

/* The arguments, each ended by a NUL; to be freed. */
static char *command_line(int pid, size_t *length)
{
	char path[64], *text = malloc(MOST + 1);
	ssize_t got;
	int file;

	*length = 0;
	if (!text)
		return NULL;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file >= 0) {
		while (*length < MOST && (got = read(file, text + *length, MOST - *length)) > 0)
			*length += got;
		close(file);
	}
	text[*length] = 0;
	return text;
}

static const char *next_argument(const char *argument, const char *end)
{
	argument += strlen(argument) + 1;
	return argument < end ? argument : NULL;
}

bool guest_uuid(int pid, char uuid[37])
{
	size_t length;
	char *text = command_line(pid, &length);
	const char *end = text + length;
	bool found = false;

	for (const char *each = length ? text : NULL; each && !found; each = next_argument(each, end)) {
		if (strcmp(each, "-uuid"))
			continue;
		each = next_argument(each, end);
		if (!each)
			break;
		found = strlen(each) == 36;
		snprintf(uuid, 37, "%s", each);
	}
	free(text);
	return found;
}

/*
 * Where the guest has the device that is this VF or this mdev.  A guest numbers the buses behind root ports
 * in their order, as libvirt does.
 */
bool guest_address(int pid, const char *vf, const char *mdev, char address[NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE])
{
	size_t length;
	char *text = command_line(pid, &length);
	const char *end = text + length;
	bool found = false;

	for (const char *each = length ? text : NULL; each && !found; each = next_argument(each, end)) {
		unsigned int bus = 0, slot = 0;
		const char *place;

		if (!strstr(each, "vfio-pci") || !(strstr(each, vf) || (mdev[0] && strstr(each, mdev))))
			continue;
		place = strstr(each, "\"bus\":\"pci");
		if (place)
			sscanf(place, "\"bus\":\"pci%*[e.]%u", &bus);
		place = strstr(each, "\"addr\":\"");
		if (place)
			sscanf(place, "\"addr\":\"%x", &slot);
		snprintf(address, NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE, "00000000:%02X:%02X.0", bus & 0xff,
			 slot & 0x1f);
		found = true;
	}
	free(text);
	return found;
}
