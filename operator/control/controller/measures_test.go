// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// A registry that cannot be reached says nothing of an image.
func TestVerificationsAreCounted(t *testing.T) {
	m := newMeasures(prometheus.NewRegistry())
	m.verified(nil)
	m.verified(fmt.Errorf("image: %w", &bytecode.RegistryError{}))
	m.verified(errors.New("no key has signed it"))
	m.verified(errors.New("no key has signed it"))
	for result, want := range map[string]float64{"verified": 1, "failed": 1, "rejected": 2} {
		if n := testutil.ToFloat64(m.verifications.WithLabelValues(result)); n != want {
			t.Errorf("%s: %v, want %v", result, n, want)
		}
	}
}

// Of several CAs, as during a rotation, the last one counts; what is none does not.
func TestLastExpiry(t *testing.T) {
	early, late := madeAt(t, time.Now().AddDate(-1, 0, 0)), madeAt(t, time.Now())
	last, ok := scrape.LastExpiry(late.CA)
	if !ok {
		t.Fatal("a CA does not expire")
	}
	for _, bundle := range [][]byte{append(early.Bundle(), late.Bundle()...), append(late.Bundle(), early.Bundle()...), append([]byte("-----BEGIN X-----\n\n-----END X-----\n"), late.Bundle()...)} {
		if got, ok := scrape.LastExpiry(bundle); !ok || got.Before(last) {
			t.Errorf("%v, want %v", got, last)
		}
	}
	if _, ok := scrape.LastExpiry([]byte("nonsense")); ok {
		t.Error("nonsense expires")
	}

	path := filepath.Join(t.TempDir(), "ca.crt")
	f := scrape.CAFile(path)
	if _, err := testutil.CollectAndLint(f); err == nil {
		t.Error("no file expires")
	}
	for _, bundle := range [][]byte{early.CA, late.CA} { // agents read it again for each connection
		want, _ := scrape.LastExpiry(bundle)
		if err := os.WriteFile(path, bundle, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := testutil.ToFloat64(f); got != float64(want.Unix()) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
