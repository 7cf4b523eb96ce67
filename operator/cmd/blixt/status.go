// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/bpfman"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// status is what `blixt status` shows.
type status struct {
	Name string `json:"name,omitempty"`
	// Program is nil where only maps are known.
	Program *loader.Info `json:"program,omitempty"`
	writer.Status
	// Announcing is nil where no clients are announced or undone.
	Announcing *announce.Status `json:"announcing,omitempty"`
	// Older are programs of previous versions that still serve their flows. Ended
	// describes the last one that was unloaded.
	Older []older       `json:"older,omitempty"`
	Ended *bpfman.Ended `json:"ended,omitempty"`
}

// older is a program of a previous version.
type older struct {
	*bpfman.Previous
	// Flows is how many it still has, nil: unknown.
	Flows *uint64 `json:"flows"`
}

func statusCommand() *cobra.Command {
	var name, dir string
	var here hostFlags
	var clusters clusterFlags
	var o viewOptions
	c := &cobra.Command{
		Use:   "status [host|cluster]",
		Short: "Tell whether all is well, or show one load balancer: frontends, backends, flows, counters",
		Long: `Tells in 20 lines whether all is well. On a host: its load balancers, whether their
processes run and make changes, which files and objects are wrong, and rates. In a
cluster: the operator, nodes and their versions, Gateways and routes with problems, and
what blixt doctor finds. What is wrong comes first, with its remedy; -o wide has no
limit. --watch shows it again and again. Without an argument, it is the host if load
balancers of blixt run are on it and nothing names a cluster, neither a flag nor
KUBECONFIG.

Exits with 0 if all is well, with 1 if something is not, and with 2 if that cannot be
told.

With --name the command shows what one load balancer serves, whether or not its process
runs: it reads the maps. So it does with -o json or yaml alone; blixt status host -o json
has the overview. A backend's share of the ring is its intended share of new connections;
its share of flows is what it has received since it was added.

With --maps the command reads the maps in a directory, such as an agent's in
Kubernetes. Names of routes and weights are not in maps.`,
		Example: `  blixt status
  blixt status --watch
  blixt status cluster --context production -o wide
  blixt status --name default
  blixt status -o json | jq .frontends
  kubectl -n blixt-system exec AGENT -- /blixt status --maps /maps`,
		ValidArgs: places,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, args []string) error {
			var s *status
			var err error
			given := c.Flags().Changed
			inCluster := given("kubeconfig") || given("context") || given("namespace")
			switch detail := dir != "" || given("name") || len(args) == 0 && !inCluster && (o.output == "json" || o.output == "yaml"); {
			case detail && (len(args) > 0 || o.watch || inCluster):
				return errors.New("host, cluster, --watch and flags of a cluster are for the overview: leave out --name and --maps")
			case !detail && given("interval") && o.interval < leastInterval:
				return fmt.Errorf("--interval %s: want at least %s", o.interval, leastInterval)
			case !detail && (here.isMeant(args, c.Flags()) || len(args) == 0 && !inCluster && !clusters.found()):
				return o.host(c.Context(), c.OutOrStdout(), &here.Reader)
			case !detail:
				return o.showCluster(c.Context(), c.OutOrStdout(), &clusters)
			case dir != "":
				s, err = readMaps(dir, "", "")
			default:
				s, err = readStatus(here.BPFFS, here.RunDir, name)
			}
			if err != nil {
				return err
			}
			return o.output.print(c.OutOrStdout(), s, s.table)
		},
	}
	f := c.Flags()
	o.output.addWide(f)
	f.BoolVarP(&o.watch, "watch", "w", false, "show the overview again and again")
	f.DurationVar(&o.interval, "interval", 0, "time between two looks, from which rates come (default 1s, of a cluster 10s)")
	f.StringVar(&dir, "maps", "", "directory of the maps' pins")
	f.StringVar(&name, "name", loader.DefaultName, "name of the load balancer to show")
	here.add(f)
	clusters.add(f)
	for _, other := range []string{"name", "bpffs", "run-dir"} {
		c.MarkFlagsMutuallyExclusive("maps", other)
	}
	return c
}

// inspect finds the load balancer of a name on this host.
func inspect(bpffs, runDir, name string) (loader.Info, error) {
	info, err := bpfman.Inspect(runDir, name)
	if errors.Is(err, fs.ErrNotExist) && !bpfman.Loaded(runDir, name) {
		info, err = loader.Inspect(bpffs, name)
		info.Image = loader.Image(runDir, name)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: run as root", err)
	}
	return info, err
}

func readStatus(bpffs, runDir, name string) (*status, error) {
	info, err := inspect(bpffs, runDir, name)
	if err != nil { // its pins may be in another mount namespace, and it answers nevertheless
		if s, failed := overview.Ask(standalone.SocketFile(runDir, name)); failed == nil {
			return &status{Name: name, Status: s}, nil
		}
		r := overview.Reader{BPFFS: bpffs, RunDir: runDir}
		if names := r.Names(); len(names) > 0 && !slices.Contains(names, name) {
			err = fmt.Errorf("there is no load balancer %s on this host, but %s: choose with --name", name, phrase.Sample(names))
		}
		return nil, err
	}
	s, err := readMaps(info.Dir, standalone.StateFile(runDir, name), standalone.PeersFile(runDir, name))
	if err != nil {
		return nil, err
	}
	s.Name, s.Program = name, &info
	if info.Loader == "bpfman" {
		err = s.readOlder(runDir)
	}
	return s, err
}

// readMaps reads the maps in a directory. Names and weights come from the writer's
// state file, and how peers answer from the file of peers; "": there is none.
func readMaps(dir, stateFile, peersFile string) (*status, error) {
	tables, err := datapath.Open(dir)
	if err != nil {
		return nil, err
	}
	defer tables.Close()
	s, err := writer.ReadStatus(tables, stateFile)
	if err != nil {
		return nil, err
	}
	announcing, err := readPeers(tables, peersFile)
	return &status{Status: s, Announcing: announcing}, err
}

// readPeers returns nil if no clients are announced or undone.
func readPeers(tables *datapath.Maps, peersFile string) (*announce.Status, error) {
	var recorded announce.Status
	if peersFile != "" {
		text, err := os.ReadFile(peersFile)
		if err == nil {
			err = json.Unmarshal(text, &recorded)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read how peers answer from %s: %w", peersFile, err)
		}
	}
	s, err := announce.ReadStatus(tables, recorded)
	if err != nil || len(s.Keys)+len(s.Pairs) == 0 {
		return nil, err
	}
	return &s, nil
}

func (s *status) readOlder(runDir string) error {
	replaced, ended, err := bpfman.ReadPrevious(runDir, s.Name)
	if err != nil {
		return err
	}
	s.Ended = ended
	for _, o := range replaced {
		n, err := unfinished(o.Dir())
		if errors.Is(err, fs.ErrNotExist) { // unloaded, but not recorded yet
			continue
		}
		it := older{Previous: o}
		if err == nil {
			it.Flows = &n
		}
		s.Older = append(s.Older, it)
	}
	return nil
}

// table prints the status for people.
func (s *status) table(out io.Writer) {
	w := printer{out}
	if s.Program != nil {
		w.printf("Load balancer %s: program %d (tag %s), ", s.Name, s.Program.ProgramID, s.Program.ProgramTag)
	}
	w.printf("map layout %d, state %s", s.Layout, s.StateHash)
	if s.Applied != nil {
		w.printf(" of %s", s.Applied.Local().Format(time.DateTime))
	}
	if s.Draining {
		w.printf(", draining")
	}
	if p := s.Program; p != nil {
		if p.Image != "" {
			w.printf("\nLoaded from %s", p.Image)
		}
		if p.Loader == "bpfman" {
			w.printf("\nLoaded by bpfman from %s", p.Digest)
		}
		w.printf("\nAttached to %s", links(p.Links))
	}
	w.printf("\nSNAT ports %s\n", s.SNAT)
	for _, o := range s.Older {
		w.printf("%s\n", o)
	}
	if s.Ended != nil {
		w.printf("Program %d (%s) was unloaded at %s: %s cut\n", s.Ended.Program, s.Ended.Digest, clock(s.Ended.Time), flows(s.Ended.Cut))
	}
	w.printf("\n")

	t, flush := newTable(w)
	t.printf("FRONTEND\tROUTE\tBACKEND\tSTATE\tWEIGHT\tRING\tFLOWS\tNEW\tACTIVE\n")
	for _, f := range s.Frontends {
		route := f.Route
		if route == "" {
			route = "-"
		}
		frontend := f.Frontend
		for _, b := range f.Backends {
			where := b.State
			if b.Drained != nil {
				where = fmt.Sprintf("drained %s", b.Drained)
			} else if b.Ejected != nil && b.State != lb.StateStandby {
				where = b.Ejected.String()
			}
			if b.Local {
				where += ", local"
			}
			weight := "-"
			if s.Known {
				weight = fmt.Sprintf("%.4g", b.Weight)
			}
			t.printf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", frontend, route, b.Address, where, weight, percent(b.RingShare), percent(b.FlowShare), b.NewFlows, b.ActiveFlows)
			frontend, route = "", ""
		}
		if f.RejectShare > 0 || len(f.Backends) == 0 {
			t.printf("%s\t%s\t-\trefused\t\t%s\t\t%d\t\n", frontend, route, percent(f.RejectShare), f.Rejected)
		}
	}
	flush()
	for _, f := range s.Frontends {
		if f.Refuses != "" {
			w.printf("\n%s refuses all new connections: %s.\n", f.Frontend, f.Refuses)
		}
	}
	policiesTable(w, s.Policies)
	for _, f := range s.Frontends {
		if f.HostListens {
			w.printf("\nA socket of this host listens at %s, and gets new connections: ss -lntup names the process.\n", f.Frontend)
		}
	}

	if len(s.Policies) > 0 {
		w.printf("\n")
		policyTable(w, s.Policies, 0)
	}
	if s.Announcing != nil {
		peersTable(w, s.Announcing)
	}
	w.printf("\n")
	w.printf("From %d established TCP flows on, each frontend may have %d.\n\n", s.FlowQuota.NearlyFull, s.FlowQuota.Share)
	t.printf("TABLE\tUSED\tSIZE\n")
	for _, name := range slices.Sorted(maps.Keys(s.Tables)) {
		t.printf("%s\t%d\t%d\n", name, s.Tables[name].Used, s.Tables[name].Size)
	}
	flush()
	if n := s.UndoneFlows + s.PlainFlows; n > 0 {
		w.printf("Of the flows, %d are of other nodes: %d with the client that the node has announced, %d with the node's address.\n", n, s.UndoneFlows, s.PlainFlows)
	}

	w.printf("\n")
	t.printf("COUNTER\tPACKETS\n")
	for _, name := range slices.Sorted(maps.Keys(s.Counters)) {
		if n := s.Counters[name]; n > 0 {
			t.printf("%s\t%d\n", name, n)
		}
	}
	flush()
	if n := s.Counters["flow_answered_elsewhere"]; n > 0 {
		w.printf("\nThis host routes the answers of %d flows by an interface without the program, and their clients get none.\nAttach the program there, too: ip route get CLIENT from BACKEND iif INTERFACE_OF_BACKEND names the interface.\n", n)
	}
}

// policiesTable prints what policies have refused.
func policiesTable(w printer, policies []writer.PolicyStatus) {
	if len(policies) == 0 {
		return
	}
	w.printf("\n")
	t, flush := newTable(w)
	t.printf("POLICY\tTARGET\tFRONTENDS\tSOURCES\tREFUSED\n")
	for _, p := range policies {
		var refused []string
		for _, reason := range slices.Sorted(maps.Keys(p.Refused)) {
			refused = append(refused, fmt.Sprintf("%s %d", reason, p.Refused[reason]))
		}
		text := strings.Join(refused, ", ")
		switch {
		case !p.InForce:
			text = "not in force: the tables have no room"
		case p.DryRun:
			text = "dry run, would be " + text
		}
		sources := "-"
		if p.Sources > 0 {
			sources = fmt.Sprint(p.Sources)
		}
		t.printf("%s\t%s\t%d\t%s\t%s\n", p.Policy, p.Target, p.Frontends, sources, text)
	}
	flush()
}

// peersTable prints how peers answer, and what the program counts of them.
func peersTable(w printer, a *announce.Status) {
	w.printf("\n")
	if a.Sign != nil {
		w.printf("Clients are announced to peers with key %d, and undone with any of %d keys. ", *a.Sign, len(a.Keys))
	} else {
		w.printf("Clients are not announced to peers: this node has no key that signs. ")
	}
	w.printf("Boot %d, ports of peers %s.\n", a.Boot, a.Ports)
	t, flush := newTable(w)
	t.printf("PEER\tANSWERS\tDOES NOT ANSWER\tBACKENDS\tSEE CLIENTS\tUNDONE\tPLAIN\tREFUSED\n")
	for _, p := range a.Pairs {
		forms := map[string][]string{}
		for _, c := range p.Probes {
			forms[c.State] = append(forms[c.State], c.Form)
		}
		list := func(state string) string {
			if len(forms[state]) == 0 {
				return "-"
			}
			return strings.Join(forms[state], ", ")
		}
		t.printf("%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", p.Node, list(announce.Answered), list(announce.Unanswered),
			p.Backends, p.Backends-p.Unannounced, p.Undone, p.Plain, p.Refused)
	}
	flush()
	for _, u := range a.Unannounced {
		w.printf("%d backends on other nodes see this node's address: %s.\n", u.Backends, reasonText(u.Reason))
	}
}

// reasonText returns a reason in words.
func reasonText(reason string) string {
	switch reason {
	case lb.ReasonNoKey:
		return "this node has no key that signs"
	case lb.ReasonNotProbed:
		return "their node has not been probed yet"
	case lb.ReasonNoAnswer:
		return "their node answers in neither form. It may not run Blixt or not have the key, or a firewall between drops what it does not know"
	case lb.ReasonNoPeer:
		return "they are on no peer that is known; on a host, name it with --peer"
	case lb.ReasonEarlier:
		return "the program here or there is of an earlier version"
	}
	return reason
}

func (o older) String() string {
	text := fmt.Sprintf("Before it, program %d (%s), %s left: ", o.Program, o.Digest, flows(o.Flows))
	if o.Since.IsZero() {
		return text + "serves until the new one does"
	}
	return text + fmt.Sprintf("drains since %s, at most until %s", clock(o.Since), clock(o.Until))
}

// flows returns a number of flows in words; nil: unknown.
func flows(n *uint64) string {
	if n == nil {
		return "an unknown number of flows"
	}
	return fmt.Sprintf("%d flows", *n)
}

func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }

// links names the interfaces, and what the kernel has at their hooks.
func links(all []loader.LinkInfo) string {
	hooks := map[string][]string{}
	for _, l := range all {
		name := cmp.Or(l.Interface, fmt.Sprintf("interface %d that is gone", l.Index))
		hooks[name] = append(hooks[name], hookText(l))
	}
	if len(hooks) == 0 {
		return "nothing"
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(hooks)) {
		if len(hooks[name]) == 1 {
			hooks[name] = append(hooks[name], "nothing in the other direction")
		}
		names = append(names, fmt.Sprintf("%s (%s)", name, strings.Join(hooks[name], ", ")))
	}
	return strings.Join(names, ", ")
}

func hookText(l loader.LinkInfo) string {
	text := fmt.Sprintf("%s link %d", l.Direction, l.ID)
	if l.Detached {
		return text + " detached"
	}
	var before []string
	for _, p := range l.Before {
		before = append(before, p.String())
	}
	if len(before) > 0 {
		text += " behind " + phrase.Join(before)
	}
	return text
}
