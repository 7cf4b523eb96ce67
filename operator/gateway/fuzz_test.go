// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// FuzzTranslate translates arbitrary objects, including those that the API
// server would reject.
func FuzzTranslate(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, in := range inputs {
		text, err := os.ReadFile(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte(nil))
	}
	for seed := range uint64(8) {
		f.Add([]byte(nil), randomBytes(seed))
	}
	f.Fuzz(func(t *testing.T, text, choices []byte) {
		var c testCase
		for _, doc := range splitDocuments(text) {
			var meta metav1.TypeMeta
			if yaml.Unmarshal(doc, &meta) == nil {
				_ = c.add(meta.Kind, doc) // what does not parse is no object
			}
		}
		c.generate(choices)
		c.unique()
		check(t, &c)
	})
}

// TestTranslate_Invariants does the same for a thousand configurations that are
// full of conflicts. They are the same in each run.
func TestTranslate_Invariants(t *testing.T) {
	for seed := range uint64(1000) {
		var c testCase
		c.generate(randomBytes(seed))
		c.unique()
		check(t, &c)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func check(t *testing.T, c *testCase) {
	t.Helper()
	translation := gateway.Translate(c.Objects, c.Options)
	endpoints := gateway.IndexEndpoints(c.Slices, nil)
	resolution := gateway.Resolve(&translation.Unresolved, endpoints, c.Resolve)
	checkState(t, resolution.State)
	for i, f := range translation.Frontends {
		if i > 0 && translation.Frontends[i-1].Key == f.Key {
			t.Errorf("frontend %s is translated twice", f.Key)
		}
	}
	checkStatuses(t, c, &translation)
	checkParents(t, c, &translation)
	checkOrder(t, c, &translation)
	checkSharing(t, c, &translation)
	checkCapacity(t, c, &translation)
	checkProgress(t, c, &translation)
	checkPolicies(t, c, &translation)
	for _, o := range []gateway.ResolveOptions{
		c.Resolve, {}, {NodeName: "n1", Zone: "z1", HostAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd01::1")}},
	} {
		checkResolution(t, &translation, endpoints, o)
	}
	for _, p := range append(translation.Problems(), resolution.Problems()...) {
		if p.Object == "" || p.Message == "" {
			t.Errorf("problem says too little: %+v", p)
		}
	}
}

func checkState(t *testing.T, s lb.State) {
	t.Helper()
	served := map[string]bool{}
	for _, a := range s.Addresses {
		if served[a.IP.String()] || a.IP.IsLoopback() || a.IP.IsMulticast() || a.IP.Is4In6() || a.IP.IsUnspecified() && a.Exclusive {
			t.Errorf("address %s is listed twice or cannot be served", a.IP)
		}
		served[a.IP.String()] = true
	}
	keys := map[lb.Key]bool{}
	for _, f := range s.Frontends {
		if keys[f.Key()] {
			t.Errorf("frontend %s is listed twice", f.Key())
		}
		keys[f.Key()] = true
	}
	for _, f := range s.Frontends {
		if !served[f.Addr.String()] || f.Port == 0 || f.Gateway == "" || f.IdleTimeout <= 0 {
			t.Errorf("frontend is incomplete: %+v", f)
		}
		sum, backends := f.Reject, map[string]bool{}
		for _, b := range f.Backends {
			var carry uint64
			if sum, carry = bits.Add64(sum, b.Weight, 0); carry != 0 {
				t.Errorf("weights of %s overflow", f.Key())
			}
			if b.Addr.Port() == 0 || b.Addr.Addr().Is6() != f.Addr.Is6() || b.Addr.Addr().IsLoopback() || backends[b.Addr.String()] {
				t.Errorf("backend %s of %s is listed twice or cannot be reached", b.Addr, f.Key())
			}
			backends[b.Addr.String()] = true
			if keys[lb.Key{Addr: b.Addr.Addr(), Protocol: f.Protocol, Port: b.Addr.Port()}] {
				t.Errorf("backend %s of %s is a frontend", b.Addr, f.Key())
			}
		}
	}
}

func key(kind, namespace, name string, generation int64) string {
	return kind + " " + namespace + "/" + name + " " + strconv.FormatInt(generation, 10)
}
