// SPDX-License-Identifier: Apache-2.0

package gobench

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/bench/report"
)

func TestParse(t *testing.T) {
	got := Parse("micro", strings.NewReader(`goos: linux
BenchmarkPacket/local/TCPv4/flows=1024-2   	 5	 15.80 cache-ns/packet	 110.4 net-ns/packet
BenchmarkPacket/local/TCPv4/flows=1024-2   	 5	 15.90 cache-ns/packet	 108.1 net-ns/packet
BenchmarkPublish/backends=100      	     100	   1000000 ns/op
PASS
ok  	github.com/kubernetes-sigs/blixt/bpf	0.064s
`))
	want := []report.Samples{
		{Part: "micro", Name: "Packet/local/TCPv4/flows=1024", Unit: "cache-ns/packet", Rounds: []float64{15.8, 15.9}},
		{Part: "micro", Name: "Packet/local/TCPv4/flows=1024", Unit: "net-ns/packet", Rounds: []float64{110.4, 108.1}},
		{Part: "micro", Name: "Publish/backends=100", Unit: "ns/op", Rounds: []float64{1e6}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
