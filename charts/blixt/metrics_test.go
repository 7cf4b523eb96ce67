// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Alerts on metrics that do not exist never fire.
func TestAlertsAreOnMetricsThatExist(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/controller-runtime").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := sources(t, "../../operator") + sources(t, filepath.Join(strings.TrimSpace(string(out)), "pkg"))
	objects := mustTemplate(t, "--set=monitoring.prometheusRule.enabled=true")
	expressions := field(t, objects, "PrometheusRule/blixt", "{range .spec.groups[*].rules[*]}{.expr}{'\\n'}{end}")
	metrics := regexp.MustCompile(`\b[a-z_]+\{`).FindAllString(expressions, -1)
	if len(metrics) < 5 {
		t.Fatalf("found only %v in:\n%s", metrics, expressions)
	}
	slices.Sort(metrics)
	for _, name := range slices.Compact(metrics) {
		name = strings.TrimSuffix(name, "{")
		if name == "up" { // Prometheus makes it
			continue
		}
		literal := regexp.MustCompile(`"(` + name + `|` + strings.TrimPrefix(name, "blixt_") + `)"`)
		if !literal.MatchString(source) {
			t.Errorf("no source has metric %s", name)
		}
	}
}

// sources returns all Go files below a directory but tests, as one text.
func sources(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		all.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
