// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// preview returns that of the files of a load balancer, as if it had no past.
func (i *instance) preview() *Preview {
	i.Helper()
	files := i.Files
	files.StateDir = ""
	p, err := NewPreview(PreviewOptions{Files: files, Decisions: Decisions{i.NodeName, i.Options.FlowRecords, i.Lenient, i.Options.SNATPorts}})
	must(i.TB, err)
	return p
}

// cases are the objects of other packages' golden cases, without their options.
func cases(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	options := regexp.MustCompile(`(?m)^kind: `)
	for _, glob := range []string{"../../gateway/testdata/*.in.yaml", "../../manifest/testdata/rejected/*.yaml"} {
		paths, err := filepath.Glob(glob)
		must(t, err)
		if len(paths) < 10 {
			t.Fatalf("%s: %d cases", glob, len(paths))
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			must(t, err)
			if strings.Contains(path, "rejected") {
				all[filepath.Base(path)] = string(text)
				continue
			}
			documents := slices.DeleteFunc(strings.Split(string(text), "\n---\n"), func(d string) bool { return !options.MatchString(d) })
			all[filepath.Base(path)] = strings.Join(documents, "\n---\n")
		}
	}
	return all
}

// TestPreviewSaysWhatRunSays has the objects of every golden case served, one case after the
// other, with nothing between: what the log says of files and objects, and what is served, is
// what a preview says, in the same words.
func TestPreviewSaysWhatRunSays(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", "192.0.2.1/24", "2001:db8::1/64")
	i := prepare(t, "# this one is valid\n")
	i.reloadable()
	must(t, os.Mkdir(filepath.Join(i.dir, "below"), 0o755))
	must(t, os.WriteFile(filepath.Join(i.dir, "below", "a.yaml"), nil, 0o644))
	i.start()
	i.logs("serving")
	i.log.take()
	said := 0
	for name, text := range cases(t) {
		i.put(name, text)
		i.reload()
		p := i.preview()
		var log []string
		for _, line := range i.log.take() {
			log = append(log, message(t, line))
		}
		said += compareSaid(t, name, p, log)
		record, err := writer.LoadRecord(StateFile(i.RunDir, i.Name))
		must(t, err)
		sameState(t, name, &record.State, p.State)
		i.put(name, "")
		i.reload() // nothing is left that could be remembered
		i.log.take()
	}
	if said < 300 {
		t.Errorf("only %d things were said", said)
	}
}

// compareSaid compares what a preview says with the lines of a log, and returns how much it
// was.
func compareSaid(t *testing.T, name string, p *Preview, log []string) (said int) {
	t.Helper()
	counts := map[string]int{}
	for _, r := range p.Remarks {
		if r.Message == "" || strings.Contains(r.Message, "below has manifests") { // once, at the start
			continue
		}
		subject, _, _ := strings.Cut(r.Object, " listener ")
		counts[subject]++
		counts[r.File]++
		said++
		if !slices.Contains(log, levels[r.Level]+" "+r.String()) && max(counts[subject], counts[r.File]) <= mostSaid {
			t.Errorf("%s: the log does not have %s %s:\n%s", name, r.Level, r, strings.Join(log, "\n"))
		}
	}
	// The second time that it reads the files it says so of what it serves.
	again := regexp.MustCompile(`which has (had|served) it before`)
	about := regexp.MustCompile(`^\w+ ` + regexp.QuoteMeta(name) + `:|is in no network`)
	for _, line := range log {
		if about.MatchString(line) && !again.MatchString(line) && !strings.HasSuffix(line, " more") && !strings.HasSuffix(line, " more like these.") &&
			!slices.ContainsFunc(p.Remarks, func(r Remark) bool { return levels[r.Level]+" "+r.String() == line }) {
			t.Errorf("%s: the preview does not say: %s", name, line)
		}
	}
	return said
}

// reloadable has reload work. It is to be called before the start.
func (i *instance) reloadable() {
	i.signals = make(chan os.Signal)
	i.Reload = i.signals
}

// reload has the files read, and returns when the maps hold what they ask for: whoever takes
// a signal has done with the one before.
func (i *instance) reload() {
	for range 3 {
		i.signals <- unix.SIGHUP
	}
}

// mostSaid is what a log says of an object or a file at most.
const mostSaid = 8

var levels = map[slog.Level]string{slog.LevelError: "ERROR", slog.LevelWarn: "WARN", slog.LevelInfo: "INFO"}

var (
	logLine  = regexp.MustCompile(`^level=(\w+) msg=("(?:[^"\\]|\\.)*"|\S*)`)
	outcomes = regexp.MustCompile(`^(the last good configuration goes on serving|the file is left out): `)
)

// message returns level and message of a line of the log, without what is done instead of
// what a file says.
func message(t *testing.T, line string) string {
	t.Helper()
	found := logLine.FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("no line of a log: %s", line)
	}
	text := found[2]
	if strings.HasPrefix(text, `"`) {
		var err error
		text, err = strconv.Unquote(text)
		must(t, err)
	}
	return found[1] + " " + outcomes.ReplaceAllString(text, "")
}

func sameState(t *testing.T, name string, got, want *lb.State) {
	t.Helper()
	if want == nil {
		want = &lb.State{}
	}
	g, err := json.MarshalIndent(got.Frontends, "", " ")
	must(t, err)
	w, err := json.MarshalIndent(want.Frontends, "", " ")
	must(t, err)
	if string(g) != string(w) && len(got.Frontends)+len(want.Frontends) > 0 {
		t.Errorf("%s: serves\n%s\nforetold was\n%s", name, g, w)
	}
}

// TestStartWithoutAValidFile: the error of Run is what a preview says.
func TestStartWithoutAValidFile(t *testing.T) {
	i := prepare(t, "kind: [\n")
	err := Run(context.Background(), i.Options)
	p := i.preview()
	if err == nil || p.State != nil || len(p.Remarks) != 1 || p.Remarks[0].String() != err.Error() {
		t.Errorf("Run says %v, the preview %v", err, p.Remarks)
	}
	must(t, os.Remove(filepath.Join(i.dir, "web.yaml")))
	err = Run(context.Background(), i.Options)
	if p = i.preview(); err == nil || p.State != nil || len(p.Remarks) != 1 || !p.Remarks[0].Unread || p.Remarks[0].Message != err.Error() {
		t.Errorf("of an empty directory Run says %v, the preview %v", err, p.Remarks)
	}
}
