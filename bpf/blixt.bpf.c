//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

SEC("classifier")
int blixt(struct __sk_buff *ctx)
{
	return -1;
}
char _license[] SEC("license") = "Dual BSD/GPL";
