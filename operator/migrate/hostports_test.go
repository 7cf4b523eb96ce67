// SPDX-License-Identifier: Apache-2.0

package migrate_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

// From some ports Blixt and the host connect. At all of the host's addresses a range that has some
// of them becomes a listener for each port, or is not served. blixt check finds no fault with what
// is written, and --diff says the same.
func TestRangesAtPortsOfTheHost(t *testing.T) {
	limit := int32(5)
	limited := v1alpha1.BlixtPolicySpec{Limits: &v1alpha1.PolicyLimits{Total: &v1alpha1.TotalLimit{Limit: v1alpha1.Limit{Concurrent: &limit}}}}
	for name, c := range map[string]struct {
		address    string
		first, end uint16
		server     uint16
		policy     v1alpha1.BlixtPolicySpec
		note       string
		diff       string
	}{
		"below":                    {address: "0.0.0.0", first: 10000, end: 10999, diff: "0.0.0.0:10000/udp true"},
		"at an address of its own": {address: "192.0.2.10", first: 10000, end: 20000, diff: "192.0.2.10:10000/udp true"},
		"few ports": {address: "0.0.0.0", first: 25565, end: 25567, note: "lb.conf:1: changed: UDP port 25565-25567: each port gets a listener",
			diff: "0.0.0.0:25566/udp true | 0 10.0.0.1:25566 100 false"},
		"few ports, others of the servers": {address: "0.0.0.0", first: 40000, end: 40001, server: 50, note: "each port gets a listener",
			diff: "0.0.0.0:40001/udp true | 0 10.0.0.1:51 100 false"},
		"as many as there may be":  {address: "0.0.0.0", first: 29999, end: 30062, note: "each port gets a listener", diff: "0.0.0.0:30062/udp true"},
		"one more":                 {address: "0.0.0.0", first: 29999, end: 30063, note: "is not served: at the host's own addresses 11000-29999 is for", diff: "0.0.0.0:29999/udp false"},
		"many, of SIP":             {address: "0.0.0.0", first: 10000, end: 20000, note: "is not served: at the host's own addresses 11000-29999 is for", diff: "0.0.0.0:10000/udp false"},
		"a limit for all together": {address: "0.0.0.0", first: 25565, end: 25567, policy: limited, note: "is not served: at the host's own addresses", diff: "0.0.0.0:25565/udp false"},
		"past the last port":       {address: "0.0.0.0", first: 29998, end: 29999, server: 65535, note: "port 29999 is not served", diff: "0.0.0.0:29999/udp false"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &migrate.Plan{Frontends: []migrate.Frontend{{
				Place: at(1), Name: "media", Protocol: corev1.ProtocolUDP, Addresses: addrs(c.address), Port: c.first, EndPort: c.end,
				Backends: servers(c.server, "10.0.0.1"), Policy: c.policy,
			}}}
			_, notes := migratetest.Written(t, migratetest.Host, p)
			if c.note == "" && strings.Contains(notes, "lb.conf") || !strings.Contains(notes, c.note) {
				t.Errorf("want %q in %s", c.note, notes)
			}
			if got := compared(t, p, migratetest.Host); !strings.Contains(got, c.diff) {
				t.Errorf("want %q in %s", c.diff, got)
			}
		})
	}
	// An address of its own, given by --address, has all ports.
	p := &migrate.Plan{Frontends: []migrate.Frontend{{
		Place: at(1), Name: "media", Protocol: corev1.ProtocolUDP, Port: 10000, EndPort: 20000, Backends: servers(0, "10.0.0.1"),
	}}}
	o := migrate.Options{WriteClass: true, Addresses: addrs("192.0.2.10")}
	if got := compared(t, p, o); !strings.HasPrefix(got, "192.0.2.10:10000/udp true | 20000 ") {
		t.Errorf("with --address: %s", got)
	}
}
