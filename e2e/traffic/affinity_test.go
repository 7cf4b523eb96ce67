// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// Clients of prefixes of 16 addresses, by family: four addresses of each of eight
// prefixes, in the client's own network.
func clientPrefixes(family int) (prefixes [][]string) {
	for prefix := range 8 {
		var addrs []string
		for host := range 4 {
			n := 0x40 + 16*prefix + 3*host + 1
			addr := fmt.Sprintf("10.66.0.%d", n)
			if family == 6 {
				addr = fmt.Sprintf("fd66::%x", n)
			}
			addrs = append(addrs, addr)
		}
		prefixes = append(prefixes, addrs)
	}
	return prefixes
}

// affinityWorld has TCP port 80 and UDP port 53 lead to the same Service of three
// backends.
func affinityWorld(t *testing.T, name, affinity string) *labtest.World {
	t.Helper()
	w := labtest.New(t, name, 3, 0)
	for prefix := range 8 {
		for _, family := range []int{4, 6} {
			for _, addr := range clientPrefixes(family)[prefix] {
				if family == 4 {
					w.Client.Addr("eth0", addr+"/24")
				} else {
					w.Client.Addr("eth0", addr+"/64")
				}
			}
		}
	}
	w.Check(w.Err())
	c := labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)})
	for i := range c.Routes {
		if c.Routes[i].Listener.Protocol == "UDP" {
			c.Routes[i].Listener.Port = 53
		}
	}
	for i, l := range c.Gateways[0].Listeners {
		if l.Protocol == "UDP" {
			c.Gateways[0].Listeners[i].Port = 53
		}
	}
	writeGatewayPolicy(w, "affinity", "", "affinity: "+affinity)
	w.StartBlixt(c)
	return w
}

// writeGatewayPolicy writes a BlixtPolicy for the Gateway of ConfigOf, or for one of its
// listeners, into the directory that Blixt reads. spec is a line of YAML.
func writeGatewayPolicy(w *labtest.World, name, listener, spec string) {
	w.Helper()
	target := "{group: gateway.networking.k8s.io, kind: Gateway, name: vip}"
	if listener != "" {
		target = strings.Replace(target, "}", ", sectionName: "+listener+"}", 1)
	}
	dir := filepath.Join(w.Dir(), w.Balancer.Name)
	w.Check(os.MkdirAll(dir, 0o755))
	w.Check(lab.Replace(filepath.Join(dir, "policy-"+name+".yaml"), fmt.Sprintf(
		"apiVersion: blixt.x-k8s.io/v1alpha1\nkind: BlixtPolicy\nmetadata: {name: %s}\nspec:\n  targetRefs: [%s]\n  %s\n", name, target, spec)))
}

// visits asks once from each address by TCP and by UDP, and returns which server each
// prefix has. It fails the test if that is not one.
func visits(w *labtest.World, family int) map[int]string {
	w.Helper()
	server := map[int]string{}
	for prefix, addrs := range clientPrefixes(family) {
		for _, addr := range addrs {
			for network, port := range map[string]int{"tcp": 80, "udp": 53} {
				local := net.JoinHostPort(addr, fmt.Sprint(labtest.NewPort()))
				c, err := w.Client.Dial(network, local, labtest.VIP(family, port), labtest.Patience)
				if err != nil {
					w.Fatalf("%s from %s: %v", network, local, err)
				}
				a := w.Ask(c, "who?")
				w.Check(c.Close())
				if was, known := server[prefix]; known && a.Server != was {
					w.Errorf("%s from %s: %s answers, its prefix has %s", network, local, a.Server, was)
				}
				server[prefix] = a.Server
			}
		}
	}
	return server
}

// TestAffinityTwoPorts: clients of one prefix meet the same server at TCP port 80 and at
// UDP port 53, without any memory.
func TestAffinityTwoPorts(t *testing.T) {
	w := affinityWorld(t, "affinity-ports", "{type: ClientAddress, prefixLength: {ipv4: 28, ipv6: 124}}")
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			w := w.In(t)
			first := visits(w, family)
			if len(slices.Compact(slices.Sorted(maps.Values(first)))) < 2 {
				t.Errorf("all eight prefixes have the same server: %v", first)
			}
			if again := visits(w, family); !maps.Equal(first, again) {
				t.Errorf("first %v, then %v", first, again)
			}
		})
	}
}

// TestAffinityDead: a client whose server is not ready gets another one, and stays with
// that when the first is back. Nobody else moves.
func TestAffinityDead(t *testing.T) {
	w := affinityWorld(t, "affinity-dead", "{type: ClientAddress, prefixLength: {ipv4: 28, ipv6: 124}, timeout: 1h}")
	before := map[int]map[int]string{4: visits(w, 4), 6: visits(w, 6)}
	gone := before[4][0]
	all := w.Config.Services[0].Endpoints
	setReady := func(ready bool) {
		var now []lab.Endpoint
		for _, e := range all {
			host, _, err := net.SplitHostPort(e.Addr)
			w.Check(err)
			for _, b := range w.Backends {
				if !ready && b.Name == gone && (host == b.IPv4 || host == b.IPv6) {
					e.Conditions = "{ready: false, serving: true, terminating: false}"
				}
			}
			now = append(now, e)
		}
		w.Config.Services[0].Endpoints = now
		w.Check(w.Blixt.Apply(w.Config))
	}
	setReady(false)
	for _, family := range []int{4, 6} {
		without := visits(w, family)
		moved := 0
		for prefix, was := range before[family] {
			switch now := without[prefix]; {
			case was == gone && now == gone:
				t.Errorf("IPv%d: prefix %d gets %s, which is not ready", family, prefix, gone)
			case was == gone:
				moved++
			case was != now:
				t.Errorf("IPv%d: prefix %d moves from %s to %s, as %s is not ready", family, prefix, was, now, gone)
			}
		}
		if family == 4 && moved == 0 {
			t.Error("nobody had the server that is not ready")
		}
		before[family] = without
	}
	s := w.Count(func() {
		setReady(true)
		for _, family := range []int{4, 6} {
			if after := visits(w, family); !maps.Equal(after, before[family]) {
				t.Errorf("IPv%d: %v, and with %s again %v", family, before[family], gone, after)
			}
		}
	})
	if s.Rise("affinity_kept") == 0 {
		t.Error("affinity_kept has not risen: the ring alone would have done")
	}
}
