// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// sections of docs/troubleshooting.md, and whose conditions each has.
var sections = map[string]string{
	"A Gateway is not Programmed":    "Gateway",
	"A listener is not served":       "Listener",
	"A ListenerSet is not served":    "ListenerSet",
	"A route is not accepted":        "Route",
	"A GatewayClass is not accepted": "GatewayClass",
	"A policy does not hold":         "BlixtPolicy",
}

// elsewhere are conditions that Translate does not give.
var elsewhere = []string{"BlixtPolicy Warning True HealthNotObeyed", "Listener blixt.x-k8s.io/PortWarning True HostListens"}

// isTold reports whether a reader would ask what a condition means.
func isTold(c metav1.Condition) bool {
	switch c.Type {
	case "Conflicted", v1alpha1.PolicyWarning, v1alpha1.PolicyAggregated, v1alpha1.ListenerPortWarning:
		return c.Status == metav1.ConditionTrue
	case v1alpha1.PolicyAffected:
		return false
	}
	return c.Status != metav1.ConditionTrue || (c.Type == "Accepted" || c.Type == "Programmed") && c.Reason != c.Type
}

var troubleRow = regexp.MustCompile(`(?m)^\| (\S+) (True|False|Unknown) \| (\w+) \| .{10,} \|$`)

// The page for people whose Gateway does not work has each condition that the golden files
// show, under the kind that has it, and none that nothing gives.
func TestTroubleshootingHasEveryReason(t *testing.T) {
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, text := range elsewhere {
		shown[text] = true
	}
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		c := readCase(t, in)
		translation := c.translate()
		add := func(kind string, c metav1.Condition) {
			if isTold(c) {
				shown[kind+" "+c.Type+" "+string(c.Status)+" "+c.Reason] = true
			}
		}
		eachCondition(&translation, func(kind string, c metav1.Condition) {
			if kind == "ListenerEntry" {
				kind = "Listener"
			}
			add(kind, c)
		})
		for _, p := range translation.Policies {
			for _, a := range p.Status.Ancestors {
				for _, c := range a.Conditions {
					add("BlixtPolicy", c)
				}
			}
			for _, target := range p.Status.Targets {
				for _, c := range target.Conditions {
					add("BlixtPolicy", c)
				}
			}
		}
	}
	told := map[string]bool{}
	for section := range strings.SplitSeq(string(text), "\n## ") {
		title, body, _ := strings.Cut(section, "\n")
		for _, m := range troubleRow.FindAllStringSubmatch(body, -1) {
			if kind := sections[title]; kind != "" {
				told[kind+" "+m[1]+" "+m[2]+" "+m[3]] = true
			}
		}
	}
	for _, text := range slices.Sorted(maps.Keys(shown)) {
		if !told[text] {
			t.Errorf("docs/troubleshooting.md does not have %s", text)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(told)) {
		if !shown[text] && text != "Route Accepted True Accepted" {
			t.Errorf("docs/troubleshooting.md has %s, which no golden file shows", text)
		}
	}
	if len(shown) < 50 {
		t.Errorf("found only %d conditions", len(shown))
	}
}
