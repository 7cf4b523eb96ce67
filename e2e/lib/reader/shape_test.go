// SPDX-License-Identifier: Apache-2.0

package reader

import "testing"

func TestWhatIsTheSame(t *testing.T) {
	for name, c := range map[string][2]string{
		"counts":           {"      9 web-1\n     11 web-2\n", "     12 web-1\n      8 web-2\n"},
		"times":            {"drained by alice since 2026-11-29 20:26:04\n", "drained by alice since 2026-12-01 01:02:03\n"},
		"times of logs":    {"INFO serving frontends=1 took=6.1ms\n", "2026/11/23 16:38:57 INFO serving frontends=1 took=112ms\n"},
		"ids":              {"state a23e3446bd1e4222\n", "state 0123456789abcdef\n"},
		"columns":          {"NAME  AGE\nweb-1 4s\n", "NAME     AGE\nweb-1    12m3s\n"},
		"source ports":     {"from 192.0.2.1:14211\n", "from 192.0.2.1:20339\n"},
		"bytes":            {"in 14/1.8kB\n", "in 9/900 B\n"},
		"lines left out":   {"a\n…\nd\n", "a\nb\nc\nd\n"},
		"words left out":   {"a … d\n", "a b c d\n"},
		"no lines":         {"a\n…\n", "a\n"},
		"space at the end": {"a\n", "a  \n\n"},
	} {
		if err := compare(c[0], c[1]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatDiffers(t *testing.T) {
	for name, c := range map[string][2]string{
		"another address":        {"10.0.0.1:8080 serving\n", "10.0.0.2:8080 serving\n"},
		"another port":           {"10.0.0.1:8080 serving\n", "10.0.0.1:80 serving\n"},
		"another port of a name": {"port 80/tcp\n", "port 81/tcp\n"},
		"another word":           {"10.0.0.1 serving\n", "10.0.0.1 drained\n"},
		"another name":           {"web-1\n", "web-2\n"},
		"another protocol":       {"192.0.2.10:80/tcp\n", "192.0.2.10:80/udp\n"},
		"a line more":            {"a\n", "a\nb\n"},
		"a line less":            {"a\nb\n", "a\n"},
		"nothing":                {"a\n", ""},
		"something":              {"", "a\n"},
		"another order":          {"a\nb\n", "b\na\n"},
		"not an expression":      {"a.c\n", "abc\n"},
	} {
		if err := compare(c[0], c[1]); err == nil {
			t.Errorf("%s: %q is taken for %q", name, c[1], c[0])
		}
	}
}

func TestLinesAmongOthers(t *testing.T) {
	printed := "INFO starting\nINFO listening\nINFO serving frontends=1\n"
	if err := compareParts("INFO starting\nINFO serving frontends=2\n", printed); err != nil {
		t.Error(err)
	}
	for _, shown := range []string{"INFO stopping\n", "INFO serving frontends=1\nINFO starting\n"} {
		if err := compareParts(shown, printed); err == nil {
			t.Errorf("%q is found in %q", shown, printed)
		}
	}
}
