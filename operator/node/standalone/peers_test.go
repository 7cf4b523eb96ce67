// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParsePeer(t *testing.T) {
	p, err := ParsePeer("10.0.0.2, fd00::2,10.244.2.0/24,fd00:2::/64")
	must(t, err)
	if p.String() != "10.0.0.2" || len(p.Addresses) != 2 || len(p.Networks) != 2 {
		t.Errorf("it is %+v", p)
	}
	for ip, want := range map[string]bool{"10.0.0.2": true, "fd00::2": true, "10.244.2.7": true, "fd00:2::7": true, "10.0.0.3": false, "10.244.3.7": false} {
		if p.Has(netip.MustParseAddr(ip)) != want {
			t.Errorf("%s is on it: %v, want %v", ip, !want, want)
		}
	}
	if p, err := ParsePeer("::ffff:10.0.0.2"); err != nil || p.String() != "10.0.0.2" {
		t.Errorf("a mapped address is %v, %v", p, err)
	}
	for text, want := range map[string]string{
		"web2":                 "names are not looked up",
		"web2.example.com":     "names are not looked up",
		"":                     "names are not looked up",
		"10.0.0.2,":            "names are not looked up",
		"10.0.0.2:80":          "names are not looked up",
		"10.0.0.2/24":          "10.0.0.0/24",
		"10.0.0.2,10.0.0/8":    "no network",
		"10.0.0.2,0.0.0.0/0":   "every address",
		"10.244.2.0/24":        "addresses",
		"127.0.0.1":            "unicast",
		"0.0.0.0":              "unicast",
		"224.0.0.1":            "unicast",
		"fe80::1":              "unicast",
		"fd00::1%eth0":         "unicast",
		"10.0.0.2,fe80::1%eth": "unicast",
	} {
		if p, err := ParsePeer(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %+v, error %v, want one that has %q", text, p, err, want)
		}
	}
}

func parsePeers(t *testing.T, texts ...string) (peers []Peer) {
	t.Helper()
	for _, text := range texts {
		p, err := ParsePeer(text)
		must(t, err)
		peers = append(peers, p)
	}
	return peers
}

func TestAnAddressIsOfOnePeer(t *testing.T) {
	must(t, CheckPeers(parsePeers(t, "10.0.0.2,fd00::2", "10.0.0.3,10.244.3.0/24")))
	for _, two := range [][]string{
		{"10.0.0.2", "10.0.0.2"},
		{"10.0.0.2,fd00::2", "10.0.0.3,fd00::2"},
		{"10.0.0.2,10.244.0.0/16", "10.244.3.1"},
		{"10.244.3.1", "10.0.0.2,10.244.0.0/16"},
		{"10.0.0.2,10.244.0.0/16", "10.0.0.3,10.244.3.0/24"},
	} {
		if err := CheckPeers(parsePeers(t, two...)); err == nil || !strings.Contains(err.Error(), "two peers") {
			t.Errorf("%v: %v", two, err)
		}
	}
}

func TestThisHostIsNoPeerOfItself(t *testing.T) {
	all := parsePeers(t, "10.0.0.2,10.244.2.0/24", "10.0.0.3", "10.0.0.4")
	for own, want := range map[string]int{"10.0.0.3": 2, "10.244.2.1": 2, "10.0.0.9": 3} {
		others, notes := otherPeers(all, []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr(own)})
		if len(others) != want || len(notes) != 3-want {
			t.Errorf("on %s others are %v, and the notes %q", own, others, notes)
		}
	}
}
