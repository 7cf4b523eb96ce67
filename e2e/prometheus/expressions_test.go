// SPDX-License-Identifier: Apache-2.0

// Package prometheus_test parses the expressions of the chart's dashboards and
// alerts, and compares them with the reference of metrics.
package prometheus_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/kubernetes-sigs/blixt/e2e/lib/monitoring"
)

const root = "../.."

// targetLabels are those that scrapers give.
var targetLabels = []string{"cluster", "job", "instance", "namespace", "pod", "node", "service", "endpoint", "container"}

func reference(t *testing.T) map[string]monitoring.Metric {
	t.Helper()
	files := []string{"testdata/others.md"}
	if _, err := os.Stat(filepath.Join(root, "docs/metrics.md")); err == nil {
		files = append(files, filepath.Join(root, "docs/metrics.md"))
	}
	r, err := monitoring.Reference(files...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func alerts(t *testing.T) []monitoring.Expression {
	t.Helper()
	all, err := monitoring.Alerts(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// All expressions are valid, and name metrics and labels that there are. What names
// others has no answer, and an alert on it never fires.
func TestExpressions(t *testing.T) {
	all := alerts(t)
	dashboards, err := monitoring.Dashboards(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dashboards {
		all = append(all, d.Expressions()...)
	}
	all = append(all, documented(t)...)
	if len(all) < 70 {
		t.Fatalf("found only %d expressions", len(all))
	}
	r := reference(t)
	for _, e := range all {
		for _, problem := range problems(r, e) {
			t.Errorf("%s: %s, in:\n%s", e.From, problem, e.Text)
		}
	}
}

var promql = regexp.MustCompile("(?ms)^```promql\n(.*?)^```$")

// documented are the questions that the reference of metrics has for readers.
func documented(t *testing.T) (all []monitoring.Expression) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range promql.FindAllStringSubmatch(string(text), -1) {
		all = append(all, monitoring.Expression{From: "docs/metrics.md", Text: m[1]})
	}
	if len(all) < 5 {
		t.Fatalf("found only %d expressions in docs/metrics.md", len(all))
	}
	return all
}

// The check above finds each kind of mistake.
func TestMistakes(t *testing.T) {
	r := map[string]monitoring.Metric{
		"blixt_a_total":   {Type: "counter", Labels: []string{"reason"}},
		"blixt_b":         {Type: "gauge"},
		"blixt_c_seconds": {Type: "histogram", Labels: []string{"phase"}},
	}
	for expr, want := range map[string]string{
		`sum by (reason) (rate(blixt_a_total{namespace="blixt-system"}[5m])) > 1`:                               "",
		`histogram_quantile(0.9, sum by (le) (rate(blixt_c_seconds_bucket{namespace="blixt-system"}[5m]))) > 1`: "",
		`histogram_quantile(0.9, sum(rate(blixt_c_seconds{namespace="blixt-system"}[5m]))) > 1`:                 "",
		`sum(rate(blixt_a_total{namespace="blixt-system"}[5m])`:                                                 "parse error",
		`blixt_d{namespace="blixt-system"}`:                                                                     "no metric blixt_d",
		`blixt_b_bucket{namespace="blixt-system"}`:                                                              "no metric blixt_b_bucket",
		`blixt_b{namespace="blixt-system",reason="x"}`:                                                          "no label reason",
		`sum by (reason) (blixt_b{namespace="blixt-system"})`:                                                   "no label reason",
		`blixt_b{namespace="blixt-system"} * on (phase) blixt_b{namespace="blixt-system"}`:                      "no label phase",
		`sum by (le) (rate(blixt_c_seconds_sum{namespace="blixt-system"}[5m]))`:                                 "no label le",
		`blixt_a_total{namespace="blixt-system"}`:                                                               "is a counter",
		`rate(blixt_b{namespace="blixt-system"}[5m])`:                                                           "is a gauge",
		`blixt_b`:          "selects by no namespace",
		`{reason="x"}`:     "no name",
		`blixt_b{} offset`: "parse error",
		`histogram_quantile(0.9, rate(blixt_c_seconds_sum{namespace="blixt-system"}[5m]))`: "histogram_quantile of blixt_c_seconds_sum",
	} {
		got := strings.Join(problems(r, monitoring.Expression{Text: expr}), "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
	e := monitoring.Expression{Text: `sum by (phase) (rate(blixt_c_seconds_count{namespace="blixt-system"}[5m]))`, Legend: []string{"node"}}
	if got := problems(r, e); len(got) != 1 || !strings.Contains(got[0], "shows label node") {
		t.Errorf("a label that the sum has not: %q", got)
	}
}

// problems returns what is wrong with an expression.
func problems(r map[string]monitoring.Metric, e monitoring.Expression) (all []string) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(e.Text)
	if err != nil {
		return []string{fmt.Sprint("parse error: ", err)}
	}
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			checkSelector(r, n, path, add)
		case *parser.AggregateExpr:
			if n.Without {
				add("`without` keeps labels that nobody has listed")
			}
			checkLabels(r, n.Expr, n.Grouping, add)
		case *parser.BinaryExpr:
			if m := n.VectorMatching; m != nil {
				checkLabels(r, n, slices.Concat(m.MatchingLabels, m.Include), add)
			}
		}
		return nil
	})
	shown := outputLabels(r, expr)
	for _, l := range e.Legend {
		if !slices.Contains(shown, l) {
			add("shows label %s, which the result has not", l)
		}
	}
	return all
}

func checkSelector(r map[string]monitoring.Metric, s *parser.VectorSelector, path []parser.Node, add func(string, ...any)) {
	if s.Name == "" {
		add("a selector has no name")
		return
	}
	m, found := monitoring.Find(r, s.Name)
	if !found {
		add("there is no metric %s", s.Name)
		return
	}
	ours := false
	for _, l := range s.LabelMatchers {
		if l.Name != labels.MetricName && !slices.Contains(m.Labels, l.Name) && !slices.Contains(targetLabels, l.Name) {
			add("%s has no label %s", s.Name, l.Name)
		}
		ours = ours || l.Name == "namespace"
	}
	if strings.HasPrefix(s.Name, "blixt_") && !ours {
		add("%s selects by no namespace: pods of others may export it", s.Name)
	}
	rated, quantile := false, false
	for _, n := range path {
		if c, is := n.(*parser.Call); is {
			rated = rated || c.Func.Name == "rate" || c.Func.Name == "increase"
			quantile = quantile || c.Func.Name == "histogram_quantile"
		}
	}
	switch {
	case m.Type == "gauge" && rated:
		add("%s is a gauge: it has no rate", s.Name)
	case m.Type != "gauge" && !rated:
		add("%s is a %s: only its rate means something", s.Name, m.Type)
	}
	_, native := r[s.Name]
	if quantile && (m.Type != "histogram" || !native && !strings.HasSuffix(s.Name, "_bucket")) {
		add("histogram_quantile of %s", s.Name)
	}
}

// checkLabels checks that some metric of an expression has each label.
func checkLabels(r map[string]monitoring.Metric, expr parser.Node, names []string, add func(string, ...any)) {
	has := slices.Clone(targetLabels)
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if s, is := n.(*parser.VectorSelector); is {
			m, _ := monitoring.Find(r, s.Name)
			has = append(has, m.Labels...)
		}
		return nil
	})
	for _, l := range names {
		if !slices.Contains(has, l) {
			add("no label %s in %s", l, expr)
		}
	}
}

// outputLabels returns the labels that the result of an expression may have.
func outputLabels(r map[string]monitoring.Metric, expr parser.Node) (all []string) {
	switch n := expr.(type) {
	case *parser.VectorSelector:
		m, _ := monitoring.Find(r, n.Name)
		return slices.Concat(m.Labels, targetLabels)
	case *parser.AggregateExpr:
		if n.Op == parser.TOPK || n.Op == parser.BOTTOMK {
			return outputLabels(r, n.Expr)
		}
		return n.Grouping
	case *parser.BinaryExpr:
		all = outputLabels(r, n.LHS)
		if n.Op == parser.LOR {
			all = append(all, outputLabels(r, n.RHS)...)
		}
		return all
	}
	for n := range parser.ChildrenIter(expr) {
		all = append(all, outputLabels(r, n)...)
	}
	return all
}

// Each alert says how bad it is, what it is about, and where to read on.
func TestAlertsAreComplete(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/runbooks.md"))
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^## (Blixt\w+)$`).FindAllStringSubmatch(string(text), -1) {
		sections = append(sections, m[1])
	}
	var names []string
	for _, e := range alerts(t) {
		a := e.Alert
		names = append(names, a.Alert)
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) {
			t.Errorf("%s has severity %q", a.Alert, a.Labels["severity"])
		}
		if s := a.Annotations["summary"]; s == "" || strings.Contains(s, "{{") {
			t.Errorf("the summary of %s is not one sentence for all of it: %q", a.Alert, s)
		}
		if a.Annotations["description"] == "" {
			t.Errorf("%s has no description", a.Alert)
		}
		if !strings.HasSuffix(a.Annotations["runbook_url"], "/docs/runbooks.md#"+strings.ToLower(a.Alert)) {
			t.Errorf("%s has runbook_url %q", a.Alert, a.Annotations["runbook_url"])
		}
		if !slices.Contains(sections, a.Alert) {
			t.Errorf("docs/runbooks.md has no section %s", a.Alert)
		}
	}
	for _, s := range sections {
		if !slices.Contains(names, s) {
			t.Errorf("docs/runbooks.md has a section %s, and there is no such alert", s)
		}
	}
	slices.Sort(names)
	if n := len(slices.Compact(slices.Clone(names))); n != len(names) || n < 20 {
		t.Errorf("%d names of %d alerts", n, len(names))
	}
}

// quiet are the reasons that need no alert.
var quiet = map[string]string{
	"reject_no_backend":   "BlixtBackendMissing counts it by route",
	"reject_backend_gone": "each endpoint that leaves ends flows",
	"reject_too_big":      "path MTU discovery",
	"reject_source":       "a policy asks for it",
	"reject_rate":         "the same",
	"reject_concurrent":   "the same",
	"reject_unproven":     "a challenge, which clients pass",
}

// Each reason for which packets are dropped or rejected is watched by one alert, and
// none that there is not.
func TestReasonsAreWatched(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "bpf/blixt.h"))
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, m := range regexp.MustCompile(`(?m)^\tCOUNTER_((?:DROP|REJECT)_\w+)`).FindAllStringSubmatch(string(text), -1) {
		reasons = append(reasons, strings.ToLower(m[1]))
	}
	if len(reasons) < 20 {
		t.Fatalf("found only %v", reasons)
	}
	watched := map[string][]string{}
	for _, e := range alerts(t) {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(e.Text)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range parser.ExtractSelectors(expr) {
			for _, m := range s {
				if m.Name != "reason" || !slices.ContainsFunc(s, func(m *labels.Matcher) bool { return m.Value == "blixt_packets_total" }) {
					continue
				}
				of := m.SetMatches() // the alternatives of a regular expression
				if m.Type == labels.MatchEqual {
					of = []string{m.Value}
				}
				if len(of) == 0 {
					t.Errorf("%s does not list reasons: %s", e.Alert.Alert, m)
				}
				for _, reason := range of {
					if !slices.Contains(reasons, reason) {
						t.Errorf("%s watches %s, and there is no such reason", e.Alert.Alert, reason)
					}
					watched[reason] = append(watched[reason], e.Alert.Alert)
				}
			}
		}
	}
	for _, reason := range reasons {
		if _, is := quiet[reason]; is != (len(watched[reason]) == 0) || len(watched[reason]) > 1 {
			t.Errorf("%s is watched by %v, and is it among those that need no alert: %v", reason, watched[reason], is)
		}
	}
}

// All panels say what they show, and all variables exist.
func TestDashboards(t *testing.T) {
	dashboards, err := monitoring.Dashboards(root)
	if err != nil || len(dashboards) != 3 {
		t.Fatalf("%d dashboards (%v)", len(dashboards), err)
	}
	r := reference(t)
	values := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for file, d := range dashboards {
		known := []string{"datasource", "__rate_interval"}
		for _, v := range d.Templating.List {
			known = append(known, v.Name)
			query, _ := v.Query.(map[string]any)
			if query == nil {
				continue // datasource
			}
			text, _ := query["query"].(string)
			m := values.FindStringSubmatch(text)
			if m == nil {
				t.Errorf("%s: variable %s has query %q", file, v.Name, text)
				continue
			}
			rated := "rate(" + m[1] + "[5m])" // counters, too, have labels
			if !strings.Contains(m[1], "_total") {
				rated = m[1]
			}
			for _, p := range problems(r, monitoring.Expression{Text: regexp.MustCompile(`\$\w+`).ReplaceAllString(rated, ".*"), Legend: []string{m[2]}}) {
				if !strings.Contains(p, "namespace") { // these choose it
					t.Errorf("%s: variable %s: %s", file, v.Name, p)
				}
			}
		}
		for _, p := range d.Panels {
			if p.Type == "row" {
				continue
			}
			if p.Description == "" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %q has no description, or no query", file, p.Title)
			}
		}
		for _, e := range d.Expressions() {
			for _, v := range e.Variables {
				if !slices.Contains(known, v) {
					t.Errorf("%s: there is no variable %s", e.From, v)
				}
			}
		}
	}
}
