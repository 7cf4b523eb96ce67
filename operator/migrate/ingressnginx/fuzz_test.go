// SPDX-License-Identifier: Apache-2.0

package ingressnginx

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

// Whatever is read, what is written is valid, and the same each time.
func FuzzRead(f *testing.F) {
	migratetest.Seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		written := func() string {
			yaml, notes := migratetest.Written(t, migrate.Options{Namespace: "ingress-nginx"}, Read([]migrate.File{{Name: "in.yaml", Text: text}}))
			return yaml + notes
		}
		if once, again := written(), written(); once != again {
			t.Errorf("what is written differs:\n%s\n%s", once, again)
		}
	})
}
