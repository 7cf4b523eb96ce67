// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// However a key gets into a log, it shows nothing.
func TestAnnounceKeysAreNotPrinted(t *testing.T) {
	k := AnnounceKey([]byte("0123456789abcdef"))
	text, err := json.Marshal(map[string]any{"key": k, "keys": []*AnnounceKey{&k}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(text), fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s %q", k, k, k, k, k), fmt.Sprintf("%v", struct{ K AnnounceKey }{k}), fmt.Sprintf("%x", k)} {
		if strings.Contains(s, "0123") || strings.Contains(s, hex.EncodeToString(k[:4])) || strings.Contains(s, "48 49 50") || strings.Contains(s, "48,49,50") {
			t.Errorf("a key shows in %q", s)
		}
	}
	if other := AnnounceKey([]byte("0123456789abcdeg")); k.Sum() == other.Sum() {
		t.Error("two keys have one sum")
	}
}

func TestNextBoot(t *testing.T) {
	n := uint16(0)
	for range 1 << 17 {
		next := NextBoot(n)
		if next == 0 || int16(next-n) <= 0 {
			t.Fatalf("%d follows on %d, and is not later", next, n)
		}
		n = next
	}
}

func TestForms(t *testing.T) {
	var all Forms
	for _, ipv6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, alone := range []bool{false, true} {
				f := FormOf(alone, udp, ipv6)
				if f == 0 || all&f != 0 {
					t.Errorf("form %v is %d", f, f)
				}
				all |= f
			}
		}
	}
	const want = "TCP/IPv4, TCP/IPv4 alone, UDP/IPv4, UDP/IPv4 alone, TCP/IPv6, TCP/IPv6 alone, UDP/IPv6, UDP/IPv6 alone"
	if all.String() != want {
		t.Errorf("got %s, want %s", all, want)
	}
}
