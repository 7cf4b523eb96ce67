// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/masquerade"
)

// left is what a load balancer has on the host.
type left struct {
	links, addresses, files int
}

// left counts what there is.
func (i *instance) left() (l left) {
	i.Helper()
	if info, err := loader.Inspect(i.bpffs, i.Name); err == nil {
		l.links = len(info.Links)
	}
	for _, name := range []string{"lo", "eth0"} {
		for _, a := range addresses(i.TB, name) {
			if a != netip.MustParseAddr(host4) {
				l.addresses++
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(i.RunDir, i.Name+".*"))
	must(i.TB, err)
	l.files = len(files)
	return l
}

// serving is a load balancer that serves, of which keep says what it leaves when it ends.
func serving(t *testing.T, keep bool) *instance {
	t.Helper()
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", host4+"/24")
	i := prepare(t, files(80, near4))
	i.Keep = keep
	i.start()
	i.serves(near4 + ":80")
	i.attached("eth0", "lo", "peer-eth0")
	eventuallyHas(t, "eth0", host4, near4)
	return i
}

// ends stops the load balancer, and checks what it leaves.
func (i *instance) ends(all bool) {
	i.Helper()
	before := i.left()
	i.stop()
	after := i.left()
	if all && (after.links != before.links || after.addresses != before.addresses || after.links == 0) {
		i.Fatalf("of %+v is left %+v, want all of it", before, after)
	}
	if !all && after != (left{}) {
		i.Errorf("left behind: %+v", after)
	}
}

func TestRestartLeavesEverythingAndAStopNothing(t *testing.T) {
	i := serving(t, false)
	restarting := true
	i.stop()
	i.Restarting = func() (bool, error) { return restarting, nil }
	i.start()
	i.serves(near4 + ":80")
	eventuallyHas(t, "eth0", host4, near4)
	i.ends(true)
	i.logs("stopped", "goes on serving", "blixt unload --name test")
	i.start()
	i.serves(near4 + ":80")
	restarting = false
	i.ends(false)
	i.logs("stopped", "nothing is left")
}

func TestStopThatCannotBeToldFromARestartLeavesNothing(t *testing.T) {
	i := serving(t, false)
	i.stop()
	i.Restarting = func() (bool, error) { return false, errors.New("no answer") }
	i.start()
	i.serves(near4 + ":80")
	i.ends(false)
	i.logs("level=WARN", "restart", "no answer", "--keep")
}

func TestReloadReadsTheFilesAgain(t *testing.T) {
	i := serving(t, false)
	i.stop()
	reload := make(chan os.Signal)
	i.Reload = reload
	i.start()
	i.serves(near4 + ":80")
	reload <- unix.SIGHUP
	reload <- unix.SIGHUP // received only if the first one did not end it
	i.logs("read", "again")
	i.serves(near4 + ":80")
}

// TestFailedStartLeavesWhatServes has every step of a start fail, one by one.
func TestFailedStartLeavesWhatServes(t *testing.T) {
	i := serving(t, true)
	i.ends(true)
	i.Keep = false
	before := i.left()
	good := i.Options
	load := func(change func(*loader.Options)) func([]hostnet.Interface) (*Loaded, error) {
		return func(interfaces []hostnet.Interface) (*Loaded, error) {
			o := loader.Options{Name: i.Name, BPFFS: i.bpffs, RunDir: i.RunDir, Interfaces: interfaces, Flows: 4096, RingSlots: 1 << 20}
			change(&o)
			l, err := loader.Load(o)
			if err != nil {
				return nil, err
			}
			return &Loaded{Loader: l, SNATPorts: func() lb.PortRange { return i.SNATPorts }, Adopted: l.Adopted()}, nil
		}
	}
	for name, change := range map[string]func(*testing.T, *Options){
		"an interface that does not exist": func(_ *testing.T, o *Options) { o.Interfaces = []string{"missing0"} },
		"SNAT ports of the host":           func(_ *testing.T, o *Options) { o.SNATPorts = lb.PortRange{First: 1, Last: 65535} },
		"a file that is no directory of state": func(_ *testing.T, o *Options) {
			o.RunDir = filepath.Join(i.dir, "web.yaml")
		},
		"a metrics address that is in use": func(t *testing.T, o *Options) {
			l, err := net.Listen("tcp", metricsAddress)
			must(t, err)
			t.Cleanup(func() { must(t, l.Close()) })
			o.MetricsAddress = metricsAddress
		},
		"no program": func(_ *testing.T, o *Options) {
			o.Load = func([]hostnet.Interface) (*Loaded, error) { return nil, errors.New("no such image") }
		},
		"an object that is none": func(_ *testing.T, o *Options) {
			o.Load = load(func(o *loader.Options) { o.Object = []byte("no ELF") })
		},
		"tables of another size": func(_ *testing.T, o *Options) {
			o.Load = load(func(o *loader.Options) { o.Flows = 8192 })
		},
		"an object that is none, in place of the old one": func(_ *testing.T, o *Options) {
			o.Load = load(func(o *loader.Options) { o.Object, o.Replace = []byte("no ELF"), true })
		},
		"a name that is taken": func(t *testing.T, o *Options) {
			lock, err := loader.Acquire(o.RunDir, o.Name)
			must(t, err)
			t.Cleanup(func() { must(t, lock.Release()) })
		},
		"no directory for the image's name": func(t *testing.T, o *Options) {
			must(t, os.Mkdir(filepath.Join(o.RunDir, o.Name+".image"), 0o755))
			t.Cleanup(func() { must(t, os.Remove(filepath.Join(o.RunDir, o.Name+".image"))) })
			o.Load = load(func(o *loader.Options) { o.Image = "registry.example.com/x@sha256:1" })
		},
		"maps that cannot be written": func(_ *testing.T, o *Options) {
			// What fails after Load, fails in serve.
			adopt := load(func(*loader.Options) {})
			o.Load = func(interfaces []hostnet.Interface) (*Loaded, error) {
				l, err := adopt(interfaces)
				if err == nil {
					l.Loader = elsewhere{l.Loader}
				}
				return l, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			o.Load = load(func(*loader.Options) {})
			change(t, &o)
			if err := Run(t.Context(), o); err == nil {
				t.Fatal("it starts")
			}
		})
		if after := i.left(); after.links != before.links || after.addresses != before.addresses || after.files < before.files {
			t.Fatalf("%s: of %+v is left %+v", name, before, after)
		}
	}
	i.start()
	i.serves(near4 + ":80")
	i.ends(false)
}

// elsewhere is a program whose maps cannot be opened.
type elsewhere struct{ Loader }

func (elsewhere) Dir() string { return "/nonexistent" }

func TestStartThatFailsLeavesNothingOfItsOwn(t *testing.T) {
	i := serving(t, false)
	i.ends(false)
	load := i.Load
	i.Load = func(interfaces []hostnet.Interface) (*Loaded, error) {
		l, err := load(interfaces)
		if err == nil {
			l.Loader = elsewhere{l.Loader}
		}
		return l, err
	}
	if err := Run(t.Context(), i.Options); err == nil {
		t.Fatal("it starts")
	}
	if after := i.left(); after != (left{}) {
		t.Errorf("left behind: %+v", after)
	}
}

func TestLeftoversAreWhatAnEndedRunHasLeft(t *testing.T) {
	i := serving(t, true)
	i.ends(true)
	must(t, masquerade.Set(i.Name, lb.DefaultMasqueradeMark))
	for _, again := range []bool{false, true} {
		var names []string
		mine, err := Leftovers(i.RunDir, i.Name)
		must(t, err)
		pinned, err := loader.Leftovers(loader.Options{Name: i.Name, BPFFS: i.bpffs, RunDir: i.RunDir})
		must(t, err)
		for _, l := range append(mine, pinned...) {
			names = append(names, l.What)
			must(t, l.Remove())
		}
		if again {
			if len(names) != 0 {
				t.Errorf("still there: %v", names)
			}
			continue
		}
		for _, want := range []string{near4, "state.json", "ingress of eth0", "egress of lo", "maps", "nftables"} {
			if !strings.Contains(strings.Join(names, "\n"), want) {
				t.Errorf("%v has no %s", names, want)
			}
		}
	}
	if after := i.left(); after != (left{}) {
		t.Errorf("left behind: %+v", after)
	}
}
