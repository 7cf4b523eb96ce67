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
		parseShares(t, printed[2], 60, "web-", 3)
		parseShares(t, printed[4], 60, "web-", 1)
	}},
	{"udproute", func(t *testing.T, printed []string) {
		parseShares(t, printed[1], 30, `"dns-`, 3)
	}},
	{"listenerset", func(*testing.T, []string) {}},
	{"cross-namespace", func(*testing.T, []string) {}},
	{"weights", func(t *testing.T, printed []string) {
		// Within six standard deviations: each connection is balanced at random.
		if n := parseShares(t, printed[1], 500, "", 2)["stable"]; n < 410 || n > 490 {
			t.Errorf("stable got %d of 500 connections, want 450 and at most 40 more or less", n)
		}
		parseShares(t, printed[3], 60, "canary", 1)
	}},
}

var share = regexp.MustCompile(`(?m)^ *(\d+) (\S+)`)

// parseShares parses what uniq -c prints, and checks the sum and how many names, which
// begin with a prefix, got something.
func parseShares(t *testing.T, printed string, sum int, prefix string, names int) map[string]int {
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
