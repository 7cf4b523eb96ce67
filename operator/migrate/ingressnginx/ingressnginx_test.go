// SPDX-License-Identifier: Apache-2.0

package ingressnginx

import (
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
