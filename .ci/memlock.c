// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into bpfman by tests, where root lacks CAP_SYS_RESOURCE: bpfman
// will not start unless it may raise RLIMIT_MEMLOCK, which has meant nothing to
// BPF since Linux 5.11.
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	return resource == RLIMIT_MEMLOCK ? 0 : (int)syscall(SYS_setrlimit, resource, limit);
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	return setrlimit(resource, (const struct rlimit *)limit);
}
