// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"testing"
	"time"
)

// What a NAT must keep at least: TCP by RFC 5382, REQ-5, UDP by RFC 4787, REQ-5.
func TestDefaultIdleTimeoutsSatisfyTheRFCs(t *testing.T) {
	for p, least := range map[Protocol]time.Duration{TCP: 2*time.Hour + 4*time.Minute, UDP: 2 * time.Minute} {
		if got := DefaultIdleTimeout(p); got < least {
			t.Errorf("a %s flow is kept for %v, want at least %v", p, got, least)
		}
	}
}
