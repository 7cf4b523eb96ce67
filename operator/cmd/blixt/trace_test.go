// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestTraceParsesTuples(t *testing.T) {
	for args, want := range map[string]string{
		"203.0.113.7:40000 192.0.2.10:443":            "203.0.113.7:40000 192.0.2.10:443 tcp",
		"203.0.113.7:40000 192.0.2.10:53/UDP":         "203.0.113.7:40000 192.0.2.10:53 udp",
		"[2001:db8::7]:1 [2001:db8::1]:53/udp":        "[2001:db8::7]:1 [2001:db8::1]:53 udp",
		"[::ffff:203.0.113.7]:1 [::ffff:192.0.2.1]:2": "203.0.113.7:1 192.0.2.1:2 tcp",
		"203.0.113.7 192.0.2.10:443":                  "error",
		"203.0.113.7:1 example.com:443":               "error",
		"203.0.113.7:70000 192.0.2.10:443":            "error",
	} {
		client, server, _ := strings.Cut(args, " ")
		c, s, protocol, err := parseTuple(client, server)
		got := strings.Join([]string{c.String(), s.String(), protocol}, " ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
}
