// SPDX-License-Identifier: Apache-2.0

// Package ci_test checks what runs on the machines of others, where nobody
// looks: the workflows, and the scripts that they call.
package ci_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const root = "../.."

// workflow is what the checks read of one.
type workflow struct {
	On          map[string]any             `json:"on"`
	Env         json.RawMessage            `json:"env"`
	Permissions *map[string]string         `json:"permissions"`
	Concurrency map[string]any             `json:"concurrency"`
	Defaults    map[string]map[string]any  `json:"defaults"`
	Jobs        map[string]json.RawMessage `json:"jobs"`
}

type job struct {
	RunsOn      string             `json:"runs-on"`
	Timeout     int                `json:"timeout-minutes"`
	Permissions *map[string]string `json:"permissions"`
	Environment any                `json:"environment"`
	Steps       []step             `json:"steps"`
}

type step struct {
	Uses string         `json:"uses"`
	Run  string         `json:"run"`
	With map[string]any `json:"with"`
}

var (
	on     = regexp.MustCompile(`(?m)^on:`)
	uses   = regexp.MustCompile(`(?m)^[ -]*uses: *(.*)$`)
	pinned = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	target = regexp.MustCompile(`\bmake ((?:[a-z][a-z0-9-]* ?)+)`)
	script = regexp.MustCompile(`\.ci/[\w-]+`)
	rule   = regexp.MustCompile(`(?m)^([a-z0-9][a-z0-9-]*):`)

	// With these, what strangers write runs with the rights of the repository.
	dangerous = []string{"pull_request_target", "workflow_run", "issue_comment"}
	runners   = []string{"ubuntu-24.04", "ubuntu-24.04-arm", "${{ matrix.runner }}"}
)

// problems returns what is wrong with a workflow.
func problems(text string) (all []string) {
	add := func(format string, a ...any) { all = append(all, fmt.Sprintf(format, a...)) }
	var w workflow
	if err := yaml.Unmarshal([]byte(on.ReplaceAllString(text, `"on":`)), &w); err != nil {
		return []string{err.Error()}
	}
	for _, m := range uses.FindAllStringSubmatch(text, -1) {
		if !pinned.MatchString(m[1]) {
			add("uses %s: want 40 hex digits, and the version in a comment", m[1])
		}
	}
	for _, trigger := range dangerous {
		if _, has := w.On[trigger]; has {
			add("runs on %s", trigger)
		}
	}
	if len(w.On) == 0 {
		add("runs on nothing")
	}
	if w.Permissions == nil || len(*w.Permissions) > 0 {
		add("permissions: want {}, and each job its own")
	}
	if w.Concurrency["group"] == nil {
		add("no concurrency group")
	}
	if w.Defaults["run"]["shell"] != "bash" { // else the first of two commands in a pipe may fail
		add("default shell is not bash")
	}
	if strings.Contains(string(w.Env), "secrets") {
		add("all jobs have a secret")
	}
	for _, name := range slices.Sorted(maps.Keys(w.Jobs)) {
		for _, p := range jobProblems(w.Jobs[name]) {
			add("job %s: %s", name, p)
		}
	}
	return all
}

// jobProblems returns what is wrong with a job.
func jobProblems(raw json.RawMessage) (all []string) {
	add := func(format string, a ...any) { all = append(all, fmt.Sprintf(format, a...)) }
	var j job
	if err := json.Unmarshal(raw, &j); err != nil {
		return []string{err.Error()}
	}
	if j.Timeout < 1 || j.Timeout > 90 {
		add("timeout-minutes is %d: want 1 to 90", j.Timeout)
	}
	if !slices.Contains(runners, j.RunsOn) {
		add("runs on %s, want one of %v", j.RunsOn, runners)
	}
	if j.Permissions == nil {
		add("no permissions")
	} else if j.Environment == nil {
		for _, scope := range slices.Sorted(maps.Keys(*j.Permissions)) {
			if may := (*j.Permissions)[scope]; may != "read" {
				add("%s: %s without an environment", scope, may)
			}
		}
	}
	if j.Environment == nil && strings.Contains(string(raw), "secrets") {
		add("a secret without an environment")
	}
	for _, s := range j.Steps {
		all = append(all, stepProblems(s)...)
	}
	return all
}

// stepProblems returns what is wrong with a step.
func stepProblems(s step) (all []string) {
	add := func(format string, a ...any) { all = append(all, fmt.Sprintf(format, a...)) }
	if strings.Contains(s.Run, "${{") {
		add("an expression in run: %s: pass it by env", s.Run)
	}
	if strings.Count(s.Run, "\n") > 5 {
		add("a long run: make it a script in .ci, which can be run elsewhere:\n%s", s.Run)
	}
	if strings.HasPrefix(s.Uses, "actions/checkout@") {
		if s.With["persist-credentials"] != false {
			add("a checkout leaves its token to the steps after it: want persist-credentials: false")
		}
		if s.With["fetch-depth"] != 0.0 {
			add("a checkout without tags: Go would stamp another version: want fetch-depth: 0")
		}
	}
	return all
}

// workflows returns those of the tree, by file.
func workflows(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, ".github/workflows/*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("workflows: %v, %v", files, err)
	}
	all := map[string]string{}
	for _, file := range files {
		all[filepath.Base(file)] = read(t, ".github/workflows/"+filepath.Base(file))
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWorkflowsAreSafe(t *testing.T) {
	for file, text := range workflows(t) {
		for _, p := range problems(text) {
			t.Errorf("%s: %s", file, p)
		}
	}
}

// Each way in which a workflow has given others what was not theirs is found.
func TestUnsafeWorkflowsAreFound(t *testing.T) {
	const good = `name: Good
on:
  pull_request:
permissions: {}
concurrency: {group: good}
defaults: {run: {shell: bash}}
jobs:
  build:
    runs-on: ubuntu-24.04
    timeout-minutes: 10
    permissions: {contents: read}
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with: {fetch-depth: 0, persist-credentials: false}
      - run: make build
`
	if got := problems(good); got != nil {
		t.Fatalf("a good one: %q", got)
	}
	for _, c := range []struct{ name, old, bad, want string }{
		{"a tag of an action", "3d3c42e5aac5ba805825da76410c181273ba90b1 #", "v7 #", "want 40 hex digits"},
		{"a short digest", "3d3c42e5aac5ba805825da76410c181273ba90b1", "3d3c42e", "want 40 hex digits"},
		{"a digest of an unknown version", " # v7.0.1", "", "want 40 hex digits"},
		{"a branch of an action", "- run: make build", "- uses: a/b@main", "uses a/b@main"},
		{"strangers with our rights", "pull_request:", "pull_request_target:", "runs on pull_request_target"},
		{"what strangers have run", "pull_request:", "workflow_run:", "runs on workflow_run"},
		{"no trigger", "on:\n  pull_request:\n", "", "runs on nothing"},
		{"all rights", "permissions: {}\n", "permissions: {contents: write}\n", "permissions: want {}"},
		{"default rights", "permissions: {}\n", "", "permissions: want {}"},
		{"a job's default rights", "    permissions: {contents: read}\n", "", "no permissions"},
		{"a right to write", "contents: read", "packages: write", "packages: write without an environment"},
		{"a right to sign", "contents: read", "id-token: write", "id-token: write without an environment"},
		{"a secret", "- run: make build", "- run: make build\n        env: {KEY: '${{ secrets.KEY }}'}", "a secret without an environment"},
		{"a secret for all", "concurrency:", "env: {KEY: '${{ secrets.KEY }}'}\nconcurrency:", "all jobs have a secret"},
		{"a title as a command", "make build", "echo ${{ github.event.pull_request.title }}", "an expression in run"},
		{"a token that stays", ", persist-credentials: false", "", "leaves its token"},
		{"no tags", "fetch-depth: 0, ", "", "without tags"},
		{"no end", "    timeout-minutes: 10\n", "", "timeout-minutes is 0"},
		{"a machine that changes", "ubuntu-24.04", "ubuntu-latest", "runs on ubuntu-latest"},
		{"two at once", "concurrency: {group: good}\n", "", "no concurrency group"},
		{"a pipe that hides failures", "defaults: {run: {shell: bash}}\n", "", "default shell is not bash"},
		{"what runs nowhere else", "make build", "|\n          a\n          b\n          c\n          d\n          e\n          f\n", "a long run"},
		{"no YAML", "jobs:", "jobs: {", "yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := strings.ReplaceAll(good, c.old, c.bad)
			if bad == good {
				t.Fatalf("there is no %q", c.old)
			}
			if got := problems(bad); len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("got %q, want one with %q", got, c.want)
			}
		})
	}
}

// What workflows call is there: targets of the Makefile, and scripts.
func TestWorkflowsCallWhatIsThere(t *testing.T) {
	rules := map[string]bool{}
	for _, m := range rule.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		rules[m[1]] = true
	}
	called := 0
	for file, text := range workflows(t) {
		names := ciTargets(t, text)
		for _, run := range runs(t, text) {
			for _, m := range target.FindAllStringSubmatch(run, -1) {
				names = append(names, strings.Fields(m[1])...)
			}
			for _, name := range script.FindAllString(run, -1) {
				if at, err := os.Stat(filepath.Join(root, name)); err != nil || !at.Mode().IsRegular() || at.Mode()&0o111 == 0 {
					t.Errorf("%s: %s is no script: %v", file, name, err)
				}
			}
		}
		for _, name := range names {
			called++
			if !rules[name] {
				t.Errorf("%s: the Makefile has no target %s", file, name)
			}
		}
	}
	if called < 10 {
		t.Errorf("found only %d targets", called)
	}
}

// runs returns what the steps of a workflow run.
func runs(t *testing.T, text string) (all []string) {
	t.Helper()
	var w struct{ Jobs map[string]job }
	if err := yaml.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	for _, j := range w.Jobs {
		for _, s := range j.Steps {
			all = append(all, s.Run)
		}
	}
	return all
}

// ciTargets returns the make targets of a workflow's matrix.
func ciTargets(t *testing.T, text string) (all []string) {
	t.Helper()
	var w struct {
		Jobs map[string]struct {
			Strategy struct {
				Matrix struct {
					Include []struct{ Targets string }
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	for _, j := range w.Jobs {
		for _, i := range j.Strategy.Matrix.Include {
			all = append(all, strings.Fields(i.Targets)...)
		}
	}
	return all
}

// CI runs all that .ci/run runs, by .ci/run: a target that is new there is not forgotten.
func TestCIRunsEverything(t *testing.T) {
	list := regexp.MustCompile(`(?m)^all=\((.*)\)$`).FindStringSubmatch(read(t, ".ci/run"))
	if list == nil {
		t.Fatal(".ci/run has no list of targets")
	}
	want := strings.Fields(list[1])
	text := read(t, ".github/workflows/ci.yaml")
	got := ciTargets(t, text)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("ci.yaml runs %v, .ci/run %v", got, want)
	}
	if !strings.Contains(text, "run: xargs .ci/container <<<") || !strings.Contains(read(t, ".ci/container"), "exec .ci/run \"$@\"") {
		t.Error("ci.yaml does not call .ci/run, in .ci/container")
	}
}

// Dependabot looks at every module, and at the actions.
func TestDependabotLooksAtAll(t *testing.T) {
	var d struct {
		Updates []struct {
			Ecosystem   string `json:"package-ecosystem"`
			Directories []string
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, ".github/dependabot.yml")), &d); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, u := range d.Updates {
		got[u.Ecosystem] = append(got[u.Ecosystem], u.Directories...)
	}
	var modules []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "go.mod" {
			dir, _ := filepath.Rel(root, filepath.Dir(path))
			modules = append(modules, filepath.Join("/", dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(modules)
	if want := got["gomod"]; !slices.Equal(modules, want) {
		t.Errorf("modules are in %v, dependabot looks in %v", modules, want)
	}
	if _, actions := got["github-actions"]; !actions {
		t.Error("dependabot does not look at actions")
	}
}
