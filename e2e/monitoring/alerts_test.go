// SPDX-License-Identifier: Apache-2.0

// Package monitoring tests the chart's dashboards and alerts with Prometheus itself.
package monitoring

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/monitoring"
)

const root = "../.."

// Each alert fires when it should and not when it should not, by promtool; its
// annotations are valid templates.
func TestAlerts(t *testing.T) {
	dir := t.TempDir()
	for from, to := range map[string]string{monitoring.AlertsFile: "alerts.yaml", "e2e/monitoring/testdata/alerts.yaml": "test.yaml"} {
		text, err := os.ReadFile(filepath.Join(root, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", "alerts.yaml"}, {"test", "rules", "test.yaml"}} {
		c := exec.Command("promtool", args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}

	text, err := os.ReadFile(filepath.Join(dir, "test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tests []struct {
			Name            string `json:"name"`
			PromqlExprTests []struct {
				Expr    string `json:"expr"`
				Samples []any  `json:"exp_samples"`
			} `json:"promql_expr_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	fires := map[string]bool{}
	for _, test := range file.Tests {
		name, _, _ := strings.Cut(test.Name, ":")
		for _, e := range test.PromqlExprTests {
			if e.Expr != `ALERTS{alertname="`+name+`",alertstate="firing"}` {
				t.Errorf("%s asks for %s", test.Name, e.Expr)
			}
			fires[name] = fires[name] || len(e.Samples) > 0
		}
	}
	alerts, err := monitoring.Alerts(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		if !fires[a.Alert.Alert] {
			t.Errorf("no test shows that %s fires", a.Alert.Alert)
		}
	}
}
