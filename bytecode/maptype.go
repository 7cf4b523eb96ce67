// SPDX-License-Identifier: Apache-2.0

package bytecode

import "github.com/cilium/ebpf"

// mapTypes are bpfman's names of map types. It writes per_cpu_array where
// the kernel writes percpu_array.
var mapTypes = map[ebpf.MapType]string{
	ebpf.Hash:               "hash",
	ebpf.Array:              "array",
	ebpf.ProgramArray:       "prog_array",
	ebpf.PerfEventArray:     "perf_event_array",
	ebpf.PerCPUHash:         "per_cpu_hash",
	ebpf.PerCPUArray:        "per_cpu_array",
	ebpf.StackTrace:         "stack_trace",
	ebpf.CGroupArray:        "cgroup_array",
	ebpf.LRUHash:            "lru_hash",
	ebpf.LRUCPUHash:         "lru_per_cpu_hash",
	ebpf.LPMTrie:            "lpm_trie",
	ebpf.ArrayOfMaps:        "array_of_maps",
	ebpf.HashOfMaps:         "hash_of_maps",
	ebpf.DevMap:             "devmap",
	ebpf.SockMap:            "sockmap",
	ebpf.CPUMap:             "cpumap",
	ebpf.XSKMap:             "xskmap",
	ebpf.SockHash:           "sockhash",
	ebpf.ReusePortSockArray: "reuseport_sockarray",
	ebpf.Queue:              "queue",
	ebpf.Stack:              "stack",
	ebpf.SkStorage:          "sk_storage",
	ebpf.DevMapHash:         "devmap_hash",
	ebpf.RingBuf:            "ringbuf",
	ebpf.InodeStorage:       "inode_storage",
	ebpf.TaskStorage:        "task_storage",
}
