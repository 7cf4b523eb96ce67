// SPDX-License-Identifier: Apache-2.0

// Package monitoring reads what tests check of the chart's dashboards and alerts, and
// of the reference of metrics.
package monitoring

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// AlertsFile is the chart's rule file, from the root of the repository.
const AlertsFile = "charts/blixt/files/alerts.yaml"

// Namespace is that of Blixt in the rule file.
const Namespace = "blixt-system"

// Expression is a query of a panel or an alert.
type Expression struct {
	From string // where it is
	Text string // variables have been replaced
	// Legend has the labels that are shown with it.
	Legend []string
	// Variables are those that Text had.
	Variables []string
	// Alert is nil for a panel.
	Alert *Alert
}

// Alert is a rule.
type Alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

var (
	legendLabel = regexp.MustCompile(`{{\s*(\w+)\s*}}`)
	alertLabel  = regexp.MustCompile(`\$labels\.(\w+)`)
	variable    = regexp.MustCompile(`\$(\w+)`)
)

// Alerts returns the chart's alerts.
func Alerts(root string) (all []Expression, err error) {
	text, err := os.ReadFile(filepath.Join(root, AlertsFile))
	if err != nil {
		return nil, err
	}
	var file struct {
		Groups []struct {
			Rules []Alert `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			e := Expression{From: "alert " + r.Alert, Text: r.Expr, Alert: &r}
			for _, a := range r.Annotations {
				e.Legend = append(e.Legend, submatches(alertLabel, a)...)
			}
			all = append(all, e)
		}
	}
	return all, nil
}

// Dashboard is what tests look at in a dashboard of Grafana.
type Dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name  string
			Query any
		}
	}
	Panels []struct {
		Title, Description, Type string
		Targets                  []struct{ Expr, LegendFormat string }
	}
}

// Dashboards returns the chart's dashboards by the names of their files.
func Dashboards(root string) (map[string]Dashboard, error) {
	files, err := filepath.Glob(filepath.Join(root, "charts/blixt/files/dashboards/*.json"))
	if err != nil {
		return nil, err
	}
	all := map[string]Dashboard{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var d Dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all[filepath.Base(file)] = d
	}
	return all, nil
}

// Expressions returns the queries of its panels. All variables choose all values.
func (d Dashboard) Expressions() (all []Expression) {
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			all = append(all, Expression{
				From: d.Title + ": " + p.Title, Text: replaceVariables(t.Expr), Legend: submatches(legendLabel, t.LegendFormat), Variables: submatches(variable, t.Expr),
			})
		}
	}
	return all
}

func replaceVariables(expr string) string {
	return variable.ReplaceAllStringFunc(expr, func(v string) string {
		if v == "$__rate_interval" {
			return "5m"
		}
		return ".*"
	})
}

func submatches(r *regexp.Regexp, text string) (all []string) {
	for _, m := range r.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// Metric is a line of the reference.
type Metric struct {
	Type   string
	Labels []string
	Where  []string
}

var line = regexp.MustCompile("^\\| (?:<a id=\"\\w+\"></a>)?`([A-Za-z_0-9]+)` \\| (counter|gauge|histogram) \\|([^|]*)\\|([^|]*)\\|")

// Reference reads tables of metrics: name, type, labels, and which processes have it.
func Reference(files ...string) (map[string]Metric, error) {
	all := map[string]Metric{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for l := range strings.Lines(string(text)) {
			m := line.FindStringSubmatch(l)
			if m == nil {
				continue
			}
			if _, twice := all[m[1]]; twice {
				return nil, fmt.Errorf("%s: %s is described twice", file, m[1])
			}
			all[m[1]] = Metric{Type: m[2], Labels: words(m[3]), Where: words(m[4])}
		}
	}
	return all, nil
}

func words(cell string) []string {
	return strings.FieldsFunc(cell, func(r rune) bool { return !(r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9') })
}

// Find returns a metric by the name that a series of it has.
func Find(reference map[string]Metric, series string) (m Metric, found bool) {
	if m, found = reference[series]; found {
		return m, true
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if m, found = reference[strings.TrimSuffix(series, suffix)]; found && m.Type == "histogram" && strings.HasSuffix(series, suffix) {
			if suffix == "_bucket" {
				m.Labels = append(slices.Clone(m.Labels), "le")
			}
			return m, true
		}
	}
	return Metric{}, false
}
