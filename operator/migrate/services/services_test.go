// SPDX-License-Identifier: Apache-2.0

package services

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

// The first lines of testdata say whose documentation shows such Services; the text is our own.
func TestServices(t *testing.T) { migratetest.Cases(t, migrate.Options{}, Read) }

// A dump of a large cluster, and one whose Services all want the same port of one address.
func TestThousandsOfServices(t *testing.T) {
	const count = 5000
	for name, annotation := range map[string]string{"each alone": "x", "one key": "metallb.io/allow-shared-ip"} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString("apiVersion: v1\nkind: List\nitems:\n")
			for i := range count {
				fmt.Fprintf(&b, "- {apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: shop, annotations: {%s: key}}, spec: {type: LoadBalancer, ports: [{port: 80}]}}\n", i, annotation)
				fmt.Fprintf(&b, "- {apiVersion: v1, kind: Service, metadata: {name: c%d, namespace: shop}, spec: {ports: [{port: 80}]}}\n", i)
			}
			start := time.Now()
			objects, notes := Read([]migrate.File{{Name: "stdin", Text: []byte(b.String())}}).Objects(migrate.Options{})
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("reading %d Services has taken %s", 2*count, took)
			}
			if len(objects) != 2*count {
				t.Errorf("%d objects, want a Gateway and a route for each of %d Services", len(objects), count)
			}
			passed := slices.ContainsFunc(notes, func(n migrate.Note) bool { return n.Text == "passed over: Service of type ClusterIP 5000" })
			if !passed {
				t.Error("the notes do not say how many Services were passed over")
			}
		})
	}
}
