// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// examples are those of Kubernetes, and what their READMEs' commands show
// besides the shape of the output.
var examples = []struct {
	name  string
	check func(t *testing.T, printed []string)
}{
	{"tcproute", func(t *testing.T, printed []string) {
		shares(t, printed[2], 60, "web-", 3)
		shares(t, printed[4], 60, "web-", 1)
	}},
	{"udproute", func(t *testing.T, printed []string) {
		shares(t, printed[1], 30, `"dns-`, 3)
	}},
	{"listenerset", func(*testing.T, []string) {}},
	{"cross-namespace", func(*testing.T, []string) {}},
	{"weights", func(t *testing.T, printed []string) {
		// Six standard deviations: each connection's share is that of chance.
		if n := shares(t, printed[1], 500, "", 2)["stable"]; n < 410 || n > 490 {
			t.Errorf("stable got %d of 500 connections, want 450 and at most 40 more or less", n)
		}
		shares(t, printed[3], 60, "canary", 1)
	}},
}

var share = regexp.MustCompile(`(?m)^ *(\d+) (\S+)`)

// shares reads what uniq -c has counted, and compares the sum and the number of
// those who got something, whose names begin alike.
func shares(t *testing.T, printed string, sum int, prefix string, names int) map[string]int {
	t.Helper()
	got, total := map[string]int{}, 0
	for _, match := range share.FindAllStringSubmatch(printed, -1) {
		n, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		got[match[2]] += n
		total += n
		if !strings.HasPrefix(match[2], prefix) {
			t.Errorf("%s answered, want %s…", match[2], prefix)
		}
	}
	if total != sum || len(got) != names {
		t.Errorf("%d answers of %d servers, want %d of %d:\n%s", total, len(got), sum, names, printed)
	}
	return got
}
