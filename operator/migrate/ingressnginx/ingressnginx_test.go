// SPDX-License-Identifier: Apache-2.0

package ingressnginx

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

// The first lines of testdata say whose documentation shows such objects; the text is our own.
func TestIngressNginx(t *testing.T) {
	migratetest.Cases(t, migrate.Options{Namespace: "ingress-nginx"}, Read)
}

func TestTimesOfNginx(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"600s": 10 * time.Minute, "600": 10 * time.Minute, "1h30m": 90 * time.Minute, "1h 30m": 90 * time.Minute, "1d": 24 * time.Hour, "500ms": time.Second / 2,
		"": 0, "10x": 0, "-5s": 0, "1.5s": 0, "99999999999s": 0, "999999999y": 0, "0s": 0,
	} {
		if got, is := duration(text); got != want || is != (want > 0) {
			t.Errorf("duration(%q) = %s, %t, want %s", text, got, is, want)
		}
	}
}

// All ports lead to one Service: they are the listeners of one Gateway, and of ListenerSets.
func TestAllPorts(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tcp-services, namespace: ingress-nginx}\ndata:\n")
	for port := 1; port <= 65535; port++ {
		fmt.Fprintf(&b, "  \"%d\": db/postgres:5432\n", port)
	}
	start := time.Now()
	plan := Read([]migrate.File{{Name: "cm.yaml", Text: []byte(b.String())}})
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("reading 65,535 ports has taken %s", took)
	}
	if want := 65535 - len(ownPorts); len(plan.Frontends) != want {
		t.Errorf("%d frontends, want %d", len(plan.Frontends), want)
	}
}

// Documentation shows what there is.
func TestPageOfIngressNginx(t *testing.T) {
	migratetest.Page(t, "../../../docs/migrate/ingress-nginx.md", "testdata/page")
}
