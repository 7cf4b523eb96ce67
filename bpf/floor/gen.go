// SPDX-License-Identifier: Apache-2.0

// Package floor holds small programs that each do one way of load balancing and
// nothing else: no ICMP, no fragments, no time-outs, no routes. Benchmarks of the
// data plane run them beside it, on the same packets, so that its cost can be
// told as a ratio, whatever the machine.
package floor

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type backend Floor floor.bpf.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -nostdlibinc -I ../headers
