// SPDX-License-Identifier: Apache-2.0

// Package overview tells whether all is well on a host that runs load balancers of its
// own. A Reader reads what their processes say and what the kernel has, and Check derives
// Findings from it. Check is pure. Nothing is written.
package overview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/bpfman"
	"github.com/kubernetes-sigs/blixt/operator/node/clock"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
)

// Host is what the load balancers of a host are and do.
type Host struct {
	Instances []Instance `json:"instances"`
	// Unread says what of the host could not be read, and why.
	Unread []string `json:"unread,omitempty"`

	// Awake is clock.Monotonic when it was read, and Now the time of day.
	Awake time.Duration `json:"-"`
	Now   time.Time     `json:"-"`
}

// Instance is a load balancer.
type Instance struct {
	Name string `json:"name"`
	// Process is nil if none runs.
	Process *Process `json:"process,omitempty"`
	// Says is what its process has said, of which only a running one is believed.
	Says *standalone.ProcessStatus `json:"says,omitempty"`
	// Program is nil if nothing is loaded, or what is cannot be read.
	Program *Program `json:"program,omitempty"`
	// Drained is what somebody has drained by hand, by address.
	Drained lb.DrainedSet `json:"-"`
	// Unread says what could not be read, and why.
	Unread []string `json:"unread,omitempty"`
}

// Process is one that runs a load balancer.
type Process struct {
	// PID is 0 if it is in another container.
	PID int `json:"pid"`
	// State is that of proc(5) in a letter: T is stopped, Z has ended. "": unknown.
	State string `json:"state,omitempty"`
}

// Program is what the kernel has, and what it does.
type Program struct {
	// ID is 0 if the pins cannot be seen, and only its process tells of the program.
	ID         uint32            `json:"id,omitempty"`
	Loader     string            `json:"loader,omitempty"`
	Interfaces []string          `json:"interfaces"`
	Applied    *time.Time        `json:"applied,omitempty"`
	Frontends  int               `json:"frontends"`
	Backends   int               `json:"backends"`
	Flows      uint64            `json:"flows"`
	Tables     map[string]lb.Use `json:"tables"`
	// Refusing are frontends that refuse every new connection, with their routes, and
	// MoreRefusing is how many are left out.
	Refusing     []string `json:"refusing,omitempty"`
	MoreRefusing int      `json:"moreRefusing,omitempty"`
	// Rates are nil at the first look.
	Rates *Rates `json:"rates,omitempty"`
	// SNAT are the source ports towards backends elsewhere.
	SNAT lb.PortRange `json:"snat"`
	// Policies are what restricts new flows.
	Policies []writer.PolicyStatus `json:"policies,omitempty"`

	counts counts
}

// Rates are those of a while, by second.
type Rates struct {
	Seconds  float64 `json:"seconds"`
	NewFlows float64 `json:"newFlows"`
	// BytesIn are those from clients.
	BytesIn  float64 `json:"bytesIn"`
	BytesOut float64 `json:"bytesOut"`
	// Lost are packets that were dropped or rejected, by counter, but not as a policy says.
	Lost map[string]float64 `json:"lost,omitempty"`
}

// counts are counters at a time.
type counts struct {
	at                    time.Time
	flows, bytes, replies uint64
	counters              map[string]uint64
}

func (p *Process) stopped() bool { return p.State == "T" || p.State == "t" || p.State == "Z" }

func (p *Process) String() string {
	if p.PID == 0 {
		return "the process, of another container,"
	}
	return fmt.Sprintf("process %d", p.PID)
}

// A Reader reads a Host, again and again.
type Reader struct {
	BPFFS, RunDir string
	before        map[string]counts // by name and program
	loaded        struct {          // of ReadSelf
		info *loader.Info
		err  error
		at   time.Time
	}
}

// Names returns the load balancers of which something is there.
func (r *Reader) Names() []string {
	running, _ := standalone.Running() // Read says why
	return slices.Sorted(maps.Keys(r.names(running)))
}

// files end the names of what a load balancer has in its run directory.
var files = []string{".lock", ".state.json", ".process.json", ".bpfman.json", ".sock"}

func (r *Reader) names(running map[string]int) map[string]bool {
	all := map[string]bool{}
	for name := range running {
		all[name] = true
	}
	for _, name := range loader.Names(r.BPFFS) {
		all[name] = true
	}
	entries, _ := os.ReadDir(r.RunDir) // none: nothing has run
	for _, e := range entries {
		for _, suffix := range files {
			if name, is := strings.CutSuffix(e.Name(), suffix); is && loader.CheckName(name) == nil {
				all[name] = true
			}
		}
	}
	return all
}

// Read reads the host. What cannot be read is said so, and the rest is read. From the
// second time on it knows rates.
func (r *Reader) Read() *Host {
	h := &Host{Awake: clock.Monotonic(), Now: time.Now()}
	// Others' files could say anything, of anybody's process.
	if info, err := os.Stat(r.RunDir); err == nil {
		if s, is := info.Sys().(*syscall.Stat_t); is && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
			h.Unread = append(h.Unread, fmt.Sprintf("%s belongs to user %d, whose files are not believed", r.RunDir, s.Uid))
			return h
		}
	}
	running, err := standalone.Running(slices.Collect(maps.Keys(r.names(nil)))...)
	if err != nil {
		h.Unread = append(h.Unread, "which load balancers run: "+err.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(r.names(running))) {
		h.Instances = append(h.Instances, r.instance(name, running))
	}
	r.addRates(h)
	return h
}

// addRates adds the rates since the last time.
func (r *Reader) addRates(h *Host) {
	before := r.before
	r.before = map[string]counts{}
	for i := range h.Instances {
		p := h.Instances[i].Program
		if p == nil {
			continue
		}
		key := fmt.Sprintf("%s %d", h.Instances[i].Name, p.ID)
		if was, is := before[key]; is {
			p.Rates = rates(was, p.counts)
		}
		r.before[key] = p.counts
	}
}

// Self is what the process of a load balancer knows of itself.
type Self struct {
	Name string
	Says standalone.ProcessStatus
	// Report is the answer to a question about no Gateway.
	Report func() (top.Report, error)
}

// inspectEvery is how often ReadSelf looks what is loaded, and where it is attached.
const inspectEvery = 10 * time.Second

// ReadSelf reads what there is of the load balancer whose process this is. It costs little:
// nobody is asked.
func (r *Reader) ReadSelf(self Self) *Host {
	i := Instance{Name: self.Name, Process: &Process{PID: os.Getpid(), State: "R"}, Says: &self.Says}
	if l := &r.loaded; l.info == nil || time.Since(l.at) >= inspectEvery {
		l.at = time.Now()
		l.info, l.err = r.inspect(self.Name)
	}
	if err := r.loaded.err; err != nil {
		i.Unread = append(i.Unread, err.Error())
	}
	if report, err := self.Report(); err == nil {
		i.Program = newProgram(r.loaded.info, report)
	} else if r.loaded.info != nil { // else there is nothing yet
		i.Unread = append(i.Unread, err.Error())
	}
	h := &Host{Instances: []Instance{i}, Awake: clock.Monotonic()}
	r.addRates(h)
	return h
}

func (r *Reader) instance(name string, running map[string]int) Instance {
	i := Instance{Name: name}
	pid, is := running[name]
	if !is { // in another network namespace it has the lock nevertheless
		pid = loader.Holder(r.RunDir, name)
	}
	if is || pid != 0 {
		i.Process = &Process{PID: pid, State: processState(pid)}
	}
	if h, err := standalone.ReadProcessStatus(r.RunDir, name); err == nil {
		i.Says = &h
	} else if !errors.Is(err, fs.ErrNotExist) {
		i.Unread = append(i.Unread, err.Error())
	}
	drained, err := standalone.ReadDrained(standalone.DrainedFile(r.RunDir, name))
	if err != nil && i.Process == nil { // one that runs says so itself
		i.Unread = append(i.Unread, err.Error())
	}
	i.Drained = drained
	p, err := r.program(name, i.Process)
	if err != nil {
		i.Unread = append(i.Unread, err.Error())
	}
	i.Program = p
	return i
}

// processState returns the state of a process in a letter, "" if it is not known.
func processState(pid int) string {
	if pid == 0 {
		return ""
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before it may be anything
	return rest[:min(1, len(rest))]
}

// program returns what the kernel has for a load balancer; nil: nothing. Where a process
// runs, it says that: its pins may be in another mount namespace. Otherwise the maps do.
func (r *Reader) program(name string, by *Process) (*Program, error) {
	info, err := r.inspect(name)
	if by != nil && !by.stopped() {
		if s, failed := Ask(standalone.SocketFile(r.RunDir, name)); failed == nil {
			return newProgram(info, top.Report{Status: s}), nil
		}
	}
	if info == nil || err != nil {
		return nil, err
	}
	tables, err := datapath.Open(info.Dir)
	if err != nil {
		return nil, err
	}
	defer tables.Close()
	s, err := writer.ReadStatus(tables, standalone.StateFile(r.RunDir, name))
	if err != nil {
		return nil, err
	}
	return newProgram(info, top.Report{Status: s}), nil
}

// inspect returns what is loaded for a load balancer; nil: nothing that can be seen.
func (r *Reader) inspect(name string) (*loader.Info, error) {
	info, err := bpfman.Inspect(r.RunDir, name)
	if errors.Is(err, fs.ErrNotExist) && !bpfman.Loaded(r.RunDir, name) {
		if _, failed := os.ReadDir(filepath.Join(loader.Pins(r.BPFFS, name), "maps")); errors.Is(failed, fs.ErrNotExist) {
			return nil, nil
		}
		info, err = loader.Inspect(r.BPFFS, name)
	}
	if err != nil {
		return nil, err
	}
	return &info, nil
}

// patience is how long a process may take to answer.
const patience = 2 * time.Second

// Ask asks the process that answers at a socket for its status.
func Ask(socket string) (s writer.Status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	to, err := dial.Dial(ctx, dial.Target{Socket: socket})
	if err != nil {
		return s, err
	}
	defer to.Close()
	err = to.Ask(ctx, observe.Query{Status: &observe.StatusQuery{}}, func(_ string, piece json.RawMessage) error {
		return json.Unmarshal(piece, &s)
	})
	return s, err
}

// newProgram returns what is loaded, of which info is nil if it cannot be seen, and what it
// reports.
func newProgram(info *loader.Info, r top.Report) *Program {
	if info == nil {
		info = &loader.Info{}
	}
	p := &Program{ID: info.ProgramID, Loader: info.Loader, Applied: r.Applied, Tables: r.Tables, SNAT: r.SNAT, Policies: r.Policies}
	for _, l := range info.Links {
		if !l.Detached && l.Direction == "ingress" && l.Interface != "" {
			p.Interfaces = append(p.Interfaces, l.Interface)
		}
	}
	if info.ProgramID == 0 { // where it is attached cannot be seen, but where it has seen packets
		for _, l := range r.Links {
			if i, err := net.InterfaceByIndex(l.Index); err == nil && l.Direction == "ingress" {
				p.Interfaces = append(p.Interfaces, i.Name)
			}
		}
	}
	slices.Sort(p.Interfaces)
	t := r.Totals
	if t == nil {
		t = totals(r.Frontends)
	}
	p.Frontends, p.Backends, p.Flows = t.Frontends, t.Backends, t.ActiveFlows
	p.Refusing, p.MoreRefusing = t.SomeRefusing, t.Refusing-len(t.SomeRefusing)
	p.counts = counts{time.Now(), t.NewFlows, t.Bytes, t.ReplyBytes, r.Counters}
	return p
}

// totals returns those of frontends, and the names of all that refuse connections.
func totals(frontends []writer.FrontendStatus) *top.Totals {
	t := &top.Totals{Frontends: len(frontends)}
	for i := range frontends {
		f := &frontends[i]
		t.Backends += len(f.Backends)
		t.ActiveFlows += f.ActiveFlows
		t.NewFlows += f.NewFlows
		t.Bytes += f.Bytes
		t.ReplyBytes += f.ReplyBytes
		if f.RejectShare == 1 {
			what := f.Frontend
			if f.Route != "" {
				what += " of " + f.Route
			}
			t.SomeRefusing = append(t.SomeRefusing, what)
		}
	}
	t.Refusing = len(t.SomeRefusing)
	return t
}

// meant are counters of what policies refuse: that is what they are for.
var meant = []string{"reject_source", "reject_rate", "reject_concurrent", "reject_unproven"}

// rates returns those between two looks. Counters that have fallen are of frontends that
// have gone, and have none.
func rates(was, now counts) *Rates {
	seconds := now.at.Sub(was.at).Seconds() // by the monotonic clock
	if seconds <= 0 {
		return nil
	}
	of := func(was, now uint64) float64 {
		if now < was {
			return 0
		}
		return float64(now-was) / seconds
	}
	r := &Rates{Seconds: seconds, NewFlows: of(was.flows, now.flows), BytesIn: of(was.bytes, now.bytes), BytesOut: of(was.replies, now.replies), Lost: map[string]float64{}}
	for name, n := range now.counters {
		if lost := of(was.counters[name], n); lost > 0 && (strings.HasPrefix(name, "drop_") || strings.HasPrefix(name, "reject_")) && !slices.Contains(meant, name) {
			r.Lost[name] = lost
		}
	}
	return r
}
