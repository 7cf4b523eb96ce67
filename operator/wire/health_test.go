// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func judgedKey(i int) lb.EjectedKey {
	return lb.EjectedKey{Policy: "shop/web", Protocol: lb.UDP, Backend: netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)}), 53)}
}

// What a node knows comes through whole, however much it is, in messages that the operator takes.
func TestHealthComesThrough(t *testing.T) {
	var flows []health.Observation
	var results []health.Result
	for i := range 5000 {
		flows = append(flows, health.Observation{Key: judgedKey(i), Consecutive: uint32(i), Others: i%2 == 0, Failures: 1 << 31, Answers: 7, Unanswered: 3, Trial: 1<<32 - 1})
		results = append(results, health.Result{Key: judgedKey(i), Down: i%3 == 0, Why: "connection refused"})
	}
	results[0].Why = strings.Repeat("€", 1000)
	var gotFlows []health.Observation
	var gotResults []health.Result
	all := EncodeHealth(flows, results)
	for i, m := range all {
		if n := proto.Size(m); n > 60<<10 || m.More != (i < len(all)-1) {
			t.Errorf("message %d of %d has %d bytes, more: %v", i, len(all), n, m.More)
		}
		f, r := DecodeHealth(m)
		gotFlows, gotResults = append(gotFlows, f...), append(gotResults, r...)
	}
	if gotResults[0].Why != strings.Repeat("€", 100) {
		t.Errorf("a long reason has become %d bytes", len(gotResults[0].Why))
	}
	gotResults[0].Why, results[0].Why = "", ""
	if !reflect.DeepEqual(flows, gotFlows) || !reflect.DeepEqual(results, gotResults) {
		t.Errorf("%d and %d have become %d and %d", len(flows), len(results), len(gotFlows), len(gotResults))
	}
	if all := EncodeHealth(nil, nil); len(all) != 1 || all[0].More {
		t.Errorf("%v: want one that is empty", all)
	}
}

func TestInvalidHealthIsLeftOut(t *testing.T) {
	flows, results := DecodeHealth(&Health{
		Flows:   []*BackendFlows{nil, {}, {Backend: &JudgedBackend{Addr: []byte{1}}}, {Backend: &JudgedBackend{Addr: []byte{1, 2, 3, 4}, Port: 70000}}},
		Results: []*CheckResult{nil, {Backend: &JudgedBackend{}}},
	})
	if len(flows)+len(results) > 0 {
		t.Errorf("%v, %v: want none", flows, results)
	}
	if set, _ := DecodeEjected(&Ejected{List: []*EjectedBackend{nil, {}}}); len(set) > 0 {
		t.Errorf("%v: want none", set)
	}
}

func TestEjectedComesThrough(t *testing.T) {
	set := lb.EjectedSet{
		judgedKey(1): {Why: "refused", Since: time.Unix(5, 6), Until: time.Unix(7, 8)},
		judgedKey(2): {Why: "down", Since: time.Unix(5, 6)},
		judgedKey(3): {Since: time.Unix(5, 6), Until: time.Unix(7, 8), Trial: true},
	}
	got, checkers := DecodeEjected(EncodeEjected(set, []string{"a", "b"}))
	if !reflect.DeepEqual(set, got) || len(checkers) != 2 {
		t.Errorf("%v, %v, want %v", got, checkers, set)
	}
}

// Each backend is checked by three nodes, or by all if there are fewer; and few change when a node goes.
// A new operator hears all that agents eject, in messages that it takes.
func TestKeptComesThrough(t *testing.T) {
	for _, n := range []int{0, 1, 1000} {
		set := lb.EjectedSet{}
		for i := range n {
			set[judgedKey(i)] = &lb.Ejected{Why: strings.Repeat("x", maxWhy), Since: time.Unix(5, 0), Until: time.Unix(6, 0)}
		}
		got := lb.EjectedSet{}
		for _, m := range EncodeKept(set) {
			if size := proto.Size(m); size > 60<<10 {
				t.Errorf("a message of %d bytes", size)
			}
			for key, e := range DecodeKept(m.Ejected) {
				got[key] = e
			}
		}
		if !reflect.DeepEqual(got, set) {
			t.Errorf("%d came through, want %d", len(got), n)
		}
	}
}

func TestCheckers(t *testing.T) {
	var nodes []string
	for i := range 100 {
		nodes = append(nodes, fmt.Sprint("n", i))
	}
	checkers := Checkers(nodes)
	if len(checkers) != MaxCheckers {
		t.Fatalf("%d checkers, want %d", len(checkers), MaxCheckers)
	}
	by := map[string]int{}
	moved := 0
	for i := range 1000 {
		n := 0
		for _, node := range nodes {
			before := Checks(node, checkers, judgedKey(i))
			if before {
				n++
				by[node]++
			}
			if before != Checks(node, checkers[1:], judgedKey(i)) {
				moved++
			}
		}
		if n != CheckersOfBackend {
			t.Fatalf("%d nodes check backend %d, want %d", n, i, CheckersOfBackend)
		}
	}
	for node, n := range by {
		if n < 100 || n > 300 {
			t.Errorf("node %s checks %d of 1000 backends, want about 190", node, n)
		}
	}
	if moved > 600 {
		t.Errorf("%d of 3000 checks have moved when one node has gone, want about 375", moved)
	}
	if !Checks("a", []string{"a"}, judgedKey(1)) || Checks("b", []string{"a"}, judgedKey(1)) {
		t.Error("one node checks alone")
	}
}
