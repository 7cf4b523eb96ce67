// SPDX-License-Identifier: Apache-2.0

// Package standalone is the load balancer without Kubernetes. In come a directory
// of Gateway API YAML and the host's network; out goes the state that package writer
// writes into the maps of the program that a loader has loaded. A change of a file or an
// address makes another state; one of an interface, only where the program is attached.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/admission"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/advice"
	"github.com/kubernetes-sigs/blixt/operator/node/flowlog"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/metrics"
	"github.com/kubernetes-sigs/blixt/operator/node/others"
	"github.com/kubernetes-sigs/blixt/operator/node/prober"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/systemd"
	"github.com/kubernetes-sigs/blixt/operator/node/vip"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// DefaultStateDir holds, for each load balancer, the files that were valid last.
const DefaultStateDir = "/var/lib/blixt"

// Options are what to serve, and on which interfaces.
type Options struct {
	// Files are what to serve.
	Files source.Options
	// RemovalGrace is how long what files do not ask for any more is served nevertheless.
	RemovalGrace time.Duration
	// Interfaces to attach to; none: all that are up, except ports of a bridge, a
	// bond or the like.
	Interfaces []string
	// NetworkGrace is how long an address or a default route that the host has lost
	// counts as if it were there.
	NetworkGrace time.Duration
	// NodeName is the nodeName of endpoints on this host.
	NodeName string
	// SNATPorts are the source ports for backends on other machines. Programs of
	// several versions share them.
	SNATPorts lb.PortRange
	// Seed keys the hash of clients: hosts with the same one choose the same
	// backend for a client.
	Seed uint64
	// Peering is with other hosts that run Blixt.
	Peering Peering
	// ThroughStack has all backends reached through the host's network stack, so
	// that its firewall holds for frontends.
	ThroughStack bool
	// MasqueradeMark is the bit of a packet's mark by which the host's NAT translates
	// its source.
	MasqueradeMark uint32
	// FlowRecords has flows recorded of those Gateways whose BlixtGatewayConfig does not
	// choose.
	FlowRecords bool
	// Lenient has mistakes in objects take effect: what is invalid is not served.
	// Otherwise what was good last goes on.
	Lenient bool
	// Keep leaves the kernel serving when Run returns.
	Keep bool
	// Restarting reports whether this process ends because another one is to follow at
	// once. Then the kernel goes on serving, as with Keep.
	Restarting func() (bool, error)
	// Reload has the files and the network read again; nil: never.
	Reload <-chan os.Signal
	// MetricsAddress is where to serve /metrics, /healthz and /readyz; "": nowhere.
	MetricsAddress string
	// MetricsTokenFile has the bearer token that readers of /metrics must have; "": none.
	MetricsTokenFile string
	// RouteMetrics is which frontends and backendRefs have metrics of their own.
	RouteMetrics metrics.Routes
	// Version is that of this program, for the log.
	Version string
	// LeaveAddresses leaves it to somebody else to give this host the addresses of
	// Gateways, and to tell neighbours: keepalived, or a router.
	LeaveAddresses bool
	// Name distinguishes load balancers on one host.
	Name string
	// Others finds other load balancers on this host; nil: they are not looked for.
	Others *others.Finder
	// othersEvery is how often, 0: as often as the constant says.
	othersEvery time.Duration
	// RunDir holds the files that outlive the process.
	RunDir string
	// FlowLines gets a line of JSON for each flow that has ended, and each packet that was
	// rejected or dropped, as far as they have records; nil: nobody does.
	FlowLines io.Writer
	// Started is called when the process has begun, before anything is loaded, and what it
	// returns before Run returns; nil: nobody is to be told. An error ends Run.
	Started func(*Inside) (stop func(), err error)
	// Load loads the program, or adopts what an earlier run left, and attaches it
	// to the interfaces. It returns loader.AttachError if it can attach to none.
	Load func(interfaces []hostnet.Interface) (*Loaded, error)
}

// Loaded is what Options.Load has loaded.
type Loaded struct {
	Loader
	// SNATPorts returns those of this program alone. They may be others when a
	// previous program is gone.
	SNATPorts func() lb.PortRange
	// Previous are the programs of other versions. They are unloaded when their
	// flows have ended.
	Previous []Previous
	// Adopted reports that an earlier run had left it, and that it served.
	Adopted bool
	// Lost returns an error if somebody else has unloaded the program. A nil Lost
	// means that nobody else can.
	Lost func() error
}

// Loader holds a program in the kernel: loader.Loader or bpfman.Loader.
type Loader interface {
	// Dir is where its maps are pinned.
	Dir() string
	// Notes returns messages about what loading did beyond the usual.
	Notes() []string
	// SetInterfaces attaches to exactly these interfaces.
	SetInterfaces([]hostnet.Interface) error
	// Check looks whether it is still attached to them, and attaches it again. It
	// returns messages about what somebody has changed.
	Check() ([]string, error)
	// Close releases the program. With keep the kernel goes on serving; else
	// everything is detached and removed.
	Close(keep bool) error
}

// runner is a running load balancer.
type runner struct {
	Options
	vips   *vip.Holder
	source *source.Source
	log    onceLog
	paths  stackPaths
	// status tells other processes how this one is, nil: nothing is loaded yet.
	status  *statusFile
	started time.Time
	alive   atomic.Int64 // see ProcessStatus.Alive
	// awake has an item when reconcile is to be called.
	awake chan struct{}

	// reconciling guards byHand, loaded, planes, paths, network, what was seen there, and
	// incumbents. reconcile holds it.
	reconciling sync.Mutex
	loaded      *Loaded
	planes      []*plane
	// memory is what was good last. lenient, lastGood is, and memory has the incumbents.
	memory *admission.Memory
	// resolved is what the last files said, for the next.
	resolved *resolved
	// assumed is the capacity of tables before the program is loaded.
	assumed    lb.Capacity
	kept       *memoryFile
	byHand     byHand
	changes    changeLog
	network    *observer
	interfaces []hostnet.Interface
	// seen is the network as it was last seen.
	seen *hostnet.Snapshot
	// served is the network that the last state was made for, nil: make it again.
	served *hostnet.View
	// forget is when something that is away stops counting.
	forget   *time.Timer
	lastGood gateway.LastGood

	// others are the other load balancers that the last look has found, and takenBefore is
	// what they served when the last state was made.
	others      []*others.DataPlane
	takenBefore taken

	judging judging

	// announcing is how this host announces clients to others.
	announcing announcing

	removals removals
	// later reconciles when what is held is to go.
	later *time.Timer

	// forwarded are the backends that need the host's help, opens the frontends that the
	// host's firewall does not restrict. reconcile sets both.
	forwarded []advice.Backend
	opens     []advice.Open

	// state is the last one that was sent. newState says so.
	state    atomic.Pointer[sent]
	newState chan struct{}
	// declared is what the files said last, for readers that do not wait for r.reconciling.
	declared atomic.Pointer[Declared]
	// ours is our program's plane, for readers that do not wait for r.reconciling: see
	// readMaps.
	ours  atomic.Pointer[plane]
	flows *flowlog.Log
	// answerer answers commands that ask this process; nil: none can.
	answerer observe.Answerer
	health   health
	passes   *scrape.Passes
	// ready is closed when our program serves its first state; nil before it was loaded.
	ready chan struct{}
	// loading is true while the program is loaded again.
	loading atomic.Bool
}

// Run serves until the context ends. It returns an error if it cannot begin:
// because of files of which none is valid or was valid before, a missing privilege or
// kernel feature, or SNAT ports that the host uses.
func Run(ctx context.Context, o Options) (err error) {
	if err := CheckHostPorts(o.SNATPorts); err != nil {
		return err
	}
	if err := os.MkdirAll(o.RunDir, 0o755); err != nil {
		return err
	}
	claim, err := NewClaim(o.Name)
	if err != nil {
		return err
	}
	defer claim.Close()
	r := &runner{Options: o, newState: make(chan struct{}, 1), log: onceLog{last: map[string]string{}}, removals: removals{grace: o.RemovalGrace}, passes: scrape.NewPasses(), awake: make(chan struct{}, 1), started: time.Now()}
	r.judging.probes, r.judging.failovers.Now = prober.New(), time.Now
	r.flows = newFlowLog(o)
	r.answerer = r.answers()
	r.health.manager = systemd.NewManager()
	stopTelling := r.tellManager()
	defer stopTelling()
	r.health.waits("the program is not loaded yet")
	stop, err := r.listen()
	if err != nil {
		return err
	}
	defer stop()
	r.lives()
	if r.Started != nil {
		stop, err := r.Started(&Inside{r})
		if err != nil {
			return err
		}
		defer stop()
	}
	if err := r.openPeering(); err != nil {
		return err
	}
	o.Files.MayBeEmpty = len(o.Peering.Peers) > 0 // a host of backends alone has nothing to serve
	if r.source, err = source.Open(o.Files); err != nil {
		return err
	}
	defer r.source.Close()
	stateDir := o.Files.StateDir
	if o.Lenient { // mistakes are nothing to remember
		stateDir = ""
	}
	var kept *memoryFile
	kept, r.memory, err = openMemory(stateDir, o.Files.Paths, func(err error) { r.log.failure("memory", err) })
	if err != nil {
		slog.Warn(text(err))
	}
	defer kept.close()
	r.kept = kept
	r.byHand.path = DrainedFile(o.RunDir, o.Name)
	r.lookAtDrained()
	r.vips = vip.New(vip.Options{Name: o.Name, Grace: o.NetworkGrace, Changed: r.wake})
	if err := vip.AdoptNoted(filepath.Join(o.RunDir, o.Name+".addresses"), o.Name); err != nil {
		slog.Warn("addresses of an earlier version may be left", "error", err)
	}
	r.network = newObserver(o.Interfaces, o.NetworkGrace)
	defer r.network.watcher.Close()
	n, err := r.network.look()
	if err != nil {
		return err
	}
	slog.Info("starting", "version", o.Version, "name", o.Name, "files", strings.Join(o.Files.Names(), " "), "run-dir", o.RunDir, "state-dir", o.Files.StateDir,
		"addresses", fmt.Sprint(n.HostAddresses()), "interfaces", len(n.interfaces))
	// If no file is valid, that is an error before anything is loaded.
	if _, err := r.read(n); err != nil {
		return err
	}
	if r.loaded, err = r.load(n); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer r.answer(ctx)()
	defer r.writeFlows()()
	defer cancel()
	r.lives()
	r.status = openStatus(StatusFile(o.RunDir, o.Name), r.statusNow, func(err error) { r.log.warning("status", err) })
	r.log.follow(r.status.touch)
	return r.run(ctx)
}

// wake has reconcile called soon, by another goroutine.
func (r *runner) wake() {
	select {
	case r.awake <- struct{}{}:
	default:
	}
}

// run serves until the context ends. If somebody unloads the program, run loads it
// again.
func (r *runner) run(ctx context.Context) error {
	for r.loaded != nil {
		for _, note := range r.loaded.Notes() {
			slog.Info(note)
		}
		r.health.waits("the program does not serve the files yet")
		lost, err := r.serve(ctx)
		if err != nil {
			return errors.Join(err, r.abandon())
		}
		if lost == nil {
			return r.end()
		}
		slog.Error(text(lost) + ": loading it again")
		r.health.waits(lost.Error() + ": it is being loaded again")
		r.loading.Store(true)
		r.reconciling.Lock() // reconcile may still run
		if err := r.loaded.Close(true); err != nil {
			slog.Error(text(err))
		}
		r.loaded = r.reload(ctx)
		r.reconciling.Unlock()
		r.loading.Store(false)
	}
	return r.end()
}

// reload tries to load once a second until it succeeds. It returns nil if the
// context ends before.
func (r *runner) reload(ctx context.Context) *Loaded {
	for {
		n, err := r.network.look()
		var l *Loaded
		if err == nil {
			l, err = r.load(n)
		}
		r.log.failure("load", err)
		r.health.tried(false, err)
		if err == nil {
			return l
		}
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// pause waits for d. It returns false if the context ends before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// load loads the program and attaches it to the interfaces. If those that were chosen
// have gone since, load chooses again.
func (r *runner) load(n *network) (*Loaded, error) {
	for {
		if len(n.interfaces) == 0 && len(n.missing) > 0 {
			return nil, fmt.Errorf("there is no interface %s", strings.Join(n.missing, ", "))
		}
		l, err := r.Load(n.interfaces)
		if _, is := errors.AsType[*loader.AttachError](err); !is {
			return l, err
		}
		before := n.Snapshot
		var failed error
		if n, failed = r.network.look(); failed != nil || n.Snapshot == before {
			return nil, errors.Join(err, failed)
		}
	}
}

// StateFile returns the file in which a load balancer of a name keeps the part of
// its state that maps have no place for.
func StateFile(runDir, name string) string { return filepath.Join(runDir, name+".state.json") }

// PeersFile returns the file in which a load balancer of a name writes down how its peers
// answer.
func PeersFile(runDir, name string) string { return filepath.Join(runDir, name+".peers.json") }

// end ends what this process was told to end. It detaches and removes everything, or
// leaves it serving.
func (r *runner) end() error {
	r.health.waits("it is ending")
	if err := r.health.manager.Stopping(); err != nil {
		slog.Warn(text(err))
	}
	keep := r.Keep
	if !keep && r.Restarting != nil {
		restarting, err := r.Restarting()
		if err != nil {
			slog.Warn("cannot tell whether this is a restart, so that all is removed as for a stop: --keep would leave it", "error", err)
		}
		keep = restarting
	}
	if err := r.release(keep, keep); err != nil {
		return err
	}
	if keep {
		slog.Info("stopped: the kernel goes on serving without this process", "undo", r.unload())
	} else {
		slog.Info("stopped: nothing is left on this host")
	}
	return nil
}

// abandon ends after an error, which is no order to stop serving. What serves goes on:
// what an earlier run left, or this one has begun.
func (r *runner) abandon() error {
	keep := r.loaded.Adopted
	select {
	case <-r.ready:
		keep = true
	default:
	}
	if keep {
		slog.Warn("the kernel goes on serving what it has without this process", "undo", r.unload())
	}
	return r.release(keep, false)
}

// unload returns the command that removes what this load balancer leaves.
func (r *runner) unload() string { return "blixt unload --name " + r.Name }

// release releases the program, and with keep leaves everything as it is. asked says
// that somebody has asked for that.
func (r *runner) release(keep, asked bool) error {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	r.status.close(keep, asked)
	if keep {
		r.vips.Close()
	} else {
		r.leaveStack()
		if err := r.vips.Remove(); err != nil {
			slog.Error(text(err))
		}
		for _, path := range []string{StateFile(r.RunDir, r.Name), PeersFile(r.RunDir, r.Name)} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				slog.Error(text(err))
			}
		}
	}
	if r.loaded == nil {
		return nil
	}
	if err := r.loaded.Close(keep); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}
