// SPDX-License-Identifier: Apache-2.0

package images

import (
	"crypto/x509"
	"strings"
	"testing"
)

func TestRootsAreTrusted(t *testing.T) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots()) {
		t.Fatal("no certificate")
	}
	if n := strings.Count(string(roots()), "BEGIN CERTIFICATE"); n < 100 {
		t.Errorf("%d CAs, want more than 100", n)
	}
}
