// SPDX-License-Identifier: Apache-2.0

package overview

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// silence is how long the process of a load balancer that works may say nothing.
const silence = time.Minute

// nearlyFull is the part of a table from which on it is said to be.
const nearlyFull = 0.9

// Check returns what is not well, the worst first; none: all is.
func (h *Host) Check() []finding.Finding {
	var all []finding.Finding
	for _, why := range h.Unread {
		all = append(all, unread("", why))
	}
	for i := range h.Instances {
		all = append(all, h.check(&h.Instances[i])...)
	}
	if len(h.Instances) == 0 && len(all) == 0 {
		all = append(all, finding.Finding{Check: "process", Verdict: finding.Unknown, Seen: "no load balancer runs on this host, or has left anything",
			Remedy: "Start one: blixt run --help. Of a cluster: blixt status cluster"})
	}
	finding.Sort(all)
	return all
}

func unread(object, why string) finding.Finding {
	f := finding.Finding{Check: "read", Verdict: finding.Unknown, Object: object, Seen: why}
	if strings.Contains(why, "permission denied") || strings.Contains(why, "not permitted") {
		f.Remedy = "Run blixt status as root."
	}
	return f
}

func (h *Host) check(i *Instance) (all []finding.Finding) {
	add := func(check string, verdict finding.Level, remedy, format string, args ...any) {
		all = append(all, finding.Finding{Check: check, Verdict: verdict, Object: i.Name, Seen: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	for _, why := range i.Unread {
		all = append(all, unread(i.Name, why))
	}
	h.checkProcess(i, add)
	if i.believed() != nil {
		for _, p := range i.Says.Problems {
			all = append(all, problem(i.Name, p))
		}
		if i.Says.More > 0 {
			add("objects", finding.Warning, "The log of the process has them.", "%d more problems", i.Says.More)
		}
	}
	checkDrained(i.Drained, h.Now, add)
	p := i.Program
	if p == nil {
		return all
	}
	if p.ID != 0 && len(p.Interfaces) == 0 {
		add("program", finding.Failed, "Start blixt run again: it attaches the program. --interface names interfaces", "program %d is attached to no interface: no packet reaches it", p.ID)
	}
	if len(p.Refusing) > 0 {
		add("backends", finding.Failed, "Add endpoints that are ready to the Services of their routes, or weight to a backendRef.",
			"no backend serves, so that new connections are refused: %s", phrase.SampleOf(p.Refusing, p.MoreRefusing))
	}
	var without []string
	for _, s := range p.Policies {
		if !s.InForce && !slices.Contains(without, s.Policy) {
			without = append(without, s.Policy)
		}
	}
	if len(without) > 0 {
		add("policies", finding.Failed, "Shorten lists of sources, delete policies, or load bytecode with larger tables.",
			"the tables have no room for what these policies say now; what they said before holds, and where nothing did, all new connections are refused: %s", phrase.Sample(without))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Tables)) {
		if t := p.Tables[name]; t.Size > 0 && float64(t.Used) >= nearlyFull*float64(t.Size) {
			add("tables", finding.Warning, "Serve less, or start with larger tables: blixt run --help", "table %s has %d of %d entries", name, t.Used, t.Size)
		}
	}
	if p.Rates != nil && len(p.Rates.Lost) > 0 {
		names := slices.SortedFunc(maps.Keys(p.Rates.Lost), func(a, b string) int { return cmp.Or(cmp.Compare(p.Rates.Lost[b], p.Rates.Lost[a]), cmp.Compare(a, b)) })
		var parts []string
		for _, name := range names {
			parts = append(parts, fmt.Sprintf("%s %.3g/s", name, p.Rates.Lost[name]))
		}
		add("packets", finding.Warning, cure(names[0]), "packets are lost: %s", strings.Join(parts, ", "))
	}
	return all
}

// cure returns what to do about a counter that counts.
func cure(counter string) string {
	for _, r := range observe.Reasons {
		if r.Name == counter && r.Cure != "" {
			return r.Cure + " (blixt drops has all reasons, with packets.)"
		}
	}
	return "blixt drops tells cause and cure of each."
}

// believed returns what the process says of itself; nil: nothing, or it was another one.
func (i *Instance) believed() *standalone.ProcessStatus {
	if i.Process == nil || i.Says == nil || i.Process.PID != 0 && i.Process.PID != i.Says.PID {
		return nil
	}
	return i.Says
}

func (h *Host) checkProcess(i *Instance, add func(check string, verdict finding.Level, remedy, format string, args ...any)) {
	start := "Start it again with the flags that it had: it takes over without breaking a flow. Or remove what is left: blixt unload --name " + i.Name
	says := i.believed()
	switch {
	case i.Process == nil && i.Program == nil && len(i.Unread) == 0:
		add("process", finding.Warning, "Remove it: blixt unload --name "+i.Name, "no process runs and nothing is loaded, but files are left")
	case i.Process == nil && i.Says != nil && i.Says.Kept:
		add("process", finding.Warning, start, "the process has ended as it was asked to with --keep: the kernel goes on serving, and changes of files and backends have no effect")
	case i.Process == nil && i.Program != nil:
		was := ""
		if i.Says != nil {
			was = fmt.Sprintf(" %d", i.Says.PID)
		}
		add("process", finding.Failed, start, "process%s is gone, and has not ended in order: the kernel goes on serving what it has, and changes of files and backends have no effect", was)
	case i.Process == nil:
		add("process", finding.Failed, start, "no process runs")
	case i.Process.stopped():
		add("process", finding.Failed, fmt.Sprintf("kill -CONT %d", i.Process.PID), "%s is stopped: changes have no effect", i.Process)
	case says == nil && i.Says == nil:
		add("process", finding.Unknown, "Look again in a second, or name its --run-dir, or upgrade it.", "%s does not say how it is: it begins, or is of an earlier version, or has another run directory", i.Process)
	case says == nil:
		add("process", finding.Unknown, "Look again in a second.", "%s has just begun: what was said is of process %d", i.Process, i.Says.PID)
	case h.Awake-says.Alive > silence:
		add("process", finding.Failed, fmt.Sprintf("See its log, and restart it: kill -9 %d and blixt run break no flow", says.PID),
			"%s has not been able to make a change for %s", i.Process, (h.Awake - says.Alive).Round(time.Second))
	case i.Program == nil && len(i.Unread) == 0:
		add("program", finding.Failed, "See the log of the process, or name the --bpffs that it uses.", "%s runs and nothing is loaded", i.Process)
	case !says.Serves:
		add("process", finding.Failed, "See the log of the process.", "%s does not serve yet", i.Process)
	}
}

// surely are what a problem is about if it loses packets, though it was logged as a
// warning.
var surely = []string{"forwarding", "firewall"}

// problem returns the finding of a problem that a process has logged. Its remedy stands at
// the end of most messages.
func problem(name string, p standalone.Problem) finding.Finding {
	f := finding.Finding{Check: "host", Verdict: finding.Warning, Object: name, Seen: p.Message}
	if p.Level >= slog.LevelError || slices.Contains(surely, p.About) {
		f.Verdict = finding.Failed
	}
	switch p.About {
	case "file", "files":
		f.Check, f.Remedy = "files", "Mend the file. What it said when it was valid last goes on serving; one that never was is left out."
	case "drained file", "drained":
		f.Check = "drained"
	case "mistake", "problem":
		f.Check = "objects"
	case "health":
		f.Check, f.Remedy = "backends", "Mend the backend: it is tried again by itself. blixt policy shows what is asked of it."
	case "health check":
		f.Check, f.Remedy = "backends", "Look at the check's type, port, path and expected answer, and whether the backends let this host in; or all of them are down."
	case "health panic":
		f.Check, f.Remedy = "backends", "Mend the backends that fail, or add others. health.panicPercent of the policy says how few are too few."
	case "refusing":
		f.Check, f.Remedy = "policies", "Mend the policy that is named: it refuses everybody rather than admit whom it does not mean. blixt policy shows what holds."
	}
	if seen, command, is := strings.Cut(p.Message, "; run: "); is {
		f.Seen, f.Remedy = seen, command
	}
	return f
}

// forgotten is how old a drain is that may have been forgotten.
const forgotten = 24 * time.Hour

// checkDrained reminds of what somebody has drained by hand: of few addresses one by one.
func checkDrained(set lb.DrainedSet, now time.Time, add func(check string, verdict finding.Level, remedy, format string, args ...any)) {
	const most = 3
	order := slices.SortedFunc(maps.Keys(set), func(a, b netip.AddrPort) int {
		return cmp.Or(set[a].Since.Compare(set[b].Since), a.Compare(b))
	})
	for n, at := range order {
		if n == most && len(order) > most+1 {
			add("drained", finding.Warning, "blixt drain lists them.", "%d more addresses are drained by hand", len(order)-n)
			return
		}
		name, long := standalone.DrainedName(at), ""
		if age := now.Sub(set[at].Since); age >= forgotten {
			long = fmt.Sprintf(", for %s: is it forgotten?", phrase.Count(int(age/forgotten), "day"))
		}
		add("drained", finding.Warning, "blixt undrain "+name, "%s is drained %s%s", name, set[at], long)
	}
}
