// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the data plane, written in C and compiled to eBPF. The
// program sees the packets of a network interface. It translates those to a
// frontend towards a backend, and the replies of backends back; all others pass
// unchanged. The Go types of map keys and values are generated from blixt.h.
// blixt.bpf.c lists the C files in the order in which to read them.
package bpf

// One object serves amd64, arm64, riscv64 and every other little-endian
// machine: BPF code depends on the byte order alone. The only big-endian
// machine that Kubernetes supports, s390x, is not supported here. -nostdlibinc
// and -I headers keep the machine's own headers out, so that clang 19 writes
// the same bytes everywhere. -mcpu=v3 needs Linux 5.1.
//
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type addr -type address -type frontend_key -type frontend -type backend -type flow_key -type flow -type host_port -type port_search -type fragment_key -type fragment -type next_hop -type silence -type client_prefix -type held_key -type held_fragment -type icmp_fragment -type config -type frontend_counters -type layout -type limit -type clock -type interest_bytes -type cached_flow -type cache_set -type interest_flag -type cached_flag -type address_flag -type published_bits -type backend_id -type backend_flag -type flow_flag -type no_flow_of -type config_flag -type announce_config -type announcing_flag -type announce_key -type announcement -type announcement_flag -type peer -type probe -type probe_form -type frontend_flag -type policies_of_frontend -type policy_flag -type source_verdict -type refusal -type latency -type ref_counters -type record_event -type end_reason -type record_by -type flow_record -type packet_record -type drop_sample -type slot_count -type port_range -type counter Blixt blixt.bpf.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -nostdlibinc -I headers -include enums.h

// As a string the object is in what the process cannot write to, which leaves its memory when it
// is not used.
//
//go:generate sed -i -e "s/\"bytes\"/\"strings\"/" -e "s/bytes\\.NewReader/strings.NewReader/" -e "s/_BlixtBytes \\[\\]byte/_BlixtBytes string/" blixt_bpfel.go
//go:generate gofmt -w blixt_bpfel.go
