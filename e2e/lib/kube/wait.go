// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Wait fails the test if get does not return the wanted value within a time, and shows
// how its last value differs.
func Wait[T any](t testing.TB, within time.Duration, what string, want T, get func() (T, error), o ...cmp.Option) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		got, err := get()
		diff := cmp.Diff(want, got, o...)
		if err == nil && diff == "" {
			return
		}
		if time.Now().Before(end) {
			continue
		}
		if err != nil {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		t.Fatalf("%s: not within %v (-want +got):\n%s", what, within, diff)
	}
}

// Namespace creates a namespace for a test. It stays, as no controller empties it.
func (s *Server) Namespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := s.Client.Create(t.Context(), namespace); err != nil {
		t.Fatalf("make namespace: %v", err)
	}
	return namespace.Name
}
