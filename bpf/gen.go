// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the data plane, written in C and compiled to eBPF. In
// come the packets of a network interface; out go the same packets, those to
// a frontend translated towards a backend, and those of its replies back.
// The Go types of map keys and values are generated from blixt.h.
package bpf

// One object serves amd64, arm64, riscv64 and every other little-endian
// machine: BPF knows no architecture, only a byte order, and Kubernetes runs
// on one big-endian machine (s390x) that nobody has asked for. -nostdlibinc
// and -I headers keep the machine's own headers out, so that clang 19 writes
// the same bytes everywhere. -mcpu=v3 came with Linux 5.1.
//
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type addr -type address -type frontend_key -type frontend -type backend -type flow_key -type flow -type fragment_key -type fragment -type config -type frontend_counters -type limit -type clock -type address_flag -type published_bits -type backend_id -type backend_flag -type flow_flag -type config_flag -type counter Blixt blixt.bpf.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -nostdlibinc -I headers -include enums.h
