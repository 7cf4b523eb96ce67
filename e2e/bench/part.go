// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/kubernetes-sigs/blixt/e2e/bench/gobench"
	"github.com/kubernetes-sigs/blixt/e2e/bench/live"
	"github.com/kubernetes-sigs/blixt/e2e/bench/report"
	"github.com/kubernetes-sigs/blixt/e2e/bench/tcp"
)

// part is a part of a run.
type part struct {
	name string
	// blixt says that it measures a binary, which may be another one than this
	// source's.
	blixt bool
	run   func(options) ([]report.Samples, error)
}

// parts are all parts, in their order.
var parts = []part{
	{report.Live, true, func(o options) ([]report.Samples, error) {
		variants, err := live.Run(o.live)
		return live.Samples(variants), err
	}},
	{report.TCP, true, func(o options) ([]report.Samples, error) { return tcp.Run(o.tcp) }},
	{report.Micro, false, func(options) ([]report.Samples, error) {
		const of = "/^(local|remote|local-reply|remote-reply|miss|miss-egress)$"
		return gobench.Run(report.Micro, os.Stderr,
			gobench.Set{Benchmarks: "^BenchmarkPacket$" + of + "/^(TCPv4|TCPv6|UDPv4)$/^flows=(1|1024|65536)$", Packages: []string{"./bpf"}, Args: []string{"-benchtime=8x"}},
			gobench.Set{Benchmarks: "^BenchmarkPacket$" + of + "/^TCPv4$/^flows=1048576$", Packages: []string{"./bpf"}, Args: []string{"-benchtime=3x"}},
			gobench.Set{Benchmarks: "^BenchmarkUndone$/^(undone|undone-reply)$/^(TCPv4|TCPv6|UDPv4)$/^flows=1024$", Packages: []string{"./bpf"}, Args: []string{"-benchtime=8x"}},
			gobench.Set{Benchmarks: "^Benchmark(Begin|Connection)$/^(local|remote)$/^(TCPv4|UDPv4)", Packages: []string{"./bpf"}, Args: []string{"-benchtime=4x"}})
	}},
	{report.Publish, false, func(options) ([]report.Samples, error) {
		return gobench.Run(report.Publish, os.Stderr,
			gobench.Set{Benchmarks: "^BenchmarkPublish", Packages: []string{
				"./operator/node/datapath", "./operator/node/standalone", "./operator/node/agent", "./operator/control/controller"}})
	}},
	{report.Memory, true, func(o options) ([]report.Samples, error) { return live.Memory(o.live) }},
}
