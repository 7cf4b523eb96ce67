// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// drainOutput is what blixt drain -o json prints.
type drainOutput struct {
	Runs    bool
	Flows   int
	Drained []struct {
		Address, By string
		Flows       int
		Backends    []struct{ Backend, Frontend, Service, State string }
	}
}

// drain runs blixt drain, or undrain, which must succeed.
func drain(w *labtest.World, args ...string) (out drainOutput) {
	w.Helper()
	text, err := w.Blixt.Run(append(args, "-o", "json")...)
	w.Check(err)
	w.Check(json.Unmarshal([]byte(text), &out))
	return out
}

// refused runs a command that must fail, and whose error must have all these words.
func refused(w *labtest.World, args []string, words ...string) {
	w.Helper()
	out, err := w.Blixt.Run(args...)
	if err == nil {
		w.Errorf("blixt %v is no error: %s", args, out)
		return
	}
	for _, word := range words {
		if text := out + err.Error(); !strings.Contains(text, word) {
			w.Errorf("blixt %v says %s, not %q", args, text, word)
		}
	}
}

// newcomersReach fails the test unless new connections reach exactly these backends.
func newcomersReach(w *labtest.World, when string, want ...string) {
	w.Helper()
	got := w.Tally(60, func(i int) (string, error) { return w.Answerer(labtest.VIP(4+i%2*2, 80)) })
	for _, name := range want {
		if got[name] == 0 {
			w.Errorf("%s: no new connection reached %s: %v", when, name, got)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		w.Errorf("%s: new connections reached others than %v: %v", when, want, got)
	}
}

// A backend is drained under load, through everything that happens to a process, and
// nobody notices who is connected.
func TestDrainUnderLoad(t *testing.T) {
	w := labtest.New(t, "drained", 3, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	tcp := w.StartClients(60, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	udp := w.StartClients(20, "udp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	first := backendAddresses(w, "backend-1")
	unharmed := func(what string) {
		t.Helper()
		tcp.CheckUnharmed(what)
		udp.CheckUnharmed(what)
	}
	had := tcp.ByServer()["backend-1"] + udp.ByServer()["backend-1"]
	if had == 0 {
		t.Fatal("no client has backend-1")
	}
	newcomersReach(w, "before", "backend-1", "backend-2", "backend-3")

	out := drain(w, append([]string{"drain"}, first...)...)
	if !out.Runs || out.Flows < had {
		t.Errorf("%d clients have backend-1, and blixt drain says %+v", had, out)
	}
	unharmed("draining")
	others := []string{"backend-2", "backend-3"}
	newcomersReach(w, "drained", others...)
	for range 2 {
		w.Check(w.Blixt.Kill())
		unharmed("no process")
		newcomersReach(w, "killed", others...)
		w.Check(w.Blixt.Start())
		unharmed("a new process")
		newcomersReach(w, "started again", others...)
	}
	w.Check(w.Blixt.Kill())
	out = drain(w, append([]string{"undrain"}, first...)...)
	if out.Runs {
		t.Errorf("a process that was killed answers: %+v", out)
	}
	newcomersReach(w, "undrained while no process runs", others...)
	out = drain(w, append([]string{"drain"}, first...)...)
	if out.Runs || len(out.Drained) != len(first) {
		t.Errorf("drained without a process: %+v", out)
	}
	w.Check(w.Blixt.Start())
	newcomersReach(w, "drained while no process ran", others...)

	// The files change meanwhile.
	config := labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...), 81: lab.Endpoints(8080, w.Backends...)})
	w.Check(w.Blixt.Apply(config))
	unharmed("another listener")
	newcomersReach(w, "after a change of files", others...)

	refused(w, append([]string{"drain", "--wait", "--timeout", "2s"}, first...), "left after 2s", "stay drained")
	tcp.Stop()
	udp.Stop()
	drain(w, append([]string{"undrain"}, first...)...)
	newcomersReach(w, "undrained", "backend-1", "backend-2", "backend-3")
	checkNoDrainedFile(w)
}

// backendAddresses returns the addresses of a backend, of both families.
func backendAddresses(w *labtest.World, name string) (all []string) {
	w.Helper()
	for _, n := range w.Backends {
		if n.Name == name {
			all = append(all, n.IPv4, n.IPv6)
		}
	}
	return all
}

func drainedFile(w *labtest.World) string {
	return standalone.DrainedFile(loader.DefaultRunDir, w.Blixt.Name)
}

func checkNoDrainedFile(w *labtest.World) {
	w.Helper()
	if _, err := os.Lstat(drainedFile(w)); !os.IsNotExist(err) {
		w.Errorf("%s is left: %v", drainedFile(w), err)
	}
}

// Who waits for a drain hears when the last flow has ended.
func TestDrainWaitsForTheLastFlow(t *testing.T) {
	w := labtest.New(t, "waits", 2, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	clients := w.StartClients(12, "tcp", labtest.VIP(4, 80))
	drain(w, append([]string{"drain"}, backendAddresses(w, "backend-1")...)...)
	time.AfterFunc(3*time.Second, clients.Close)
	began := time.Now()
	out := drain(w, append([]string{"drain", "--wait", "--timeout", "9s"}, backendAddresses(w, "backend-1")...)...)
	if took := time.Since(began); out.Flows != 0 || took < 2*time.Second {
		t.Errorf("after %s: %+v", took, out)
	}
}

// What cannot be meant is refused, and says what can be.
func TestDrainRefusesWhatCannotBeMeant(t *testing.T) {
	w := labtest.New(t, "refuses", 2, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	one, two := backendAddresses(w, "backend-1"), backendAddresses(w, "backend-2")
	at := netip.AddrPortFrom(netip.MustParseAddr(one[0]), 8080).String()

	refused(w, []string{"drain", at + "0"}, at+"0", "want an address")
	refused(w, []string{"drain", netip.AddrPortFrom(netip.MustParseAddr(one[0]), 8081).String()}, "is no backend", at, "--force")
	refused(w, []string{"drain", "web"}, `"web"`, "want an address")
	refused(w, append([]string{"drain"}, append(one, two...)...), "would be refused", "the last of", "--force")
	refused(w, []string{"undrain", at}, "nothing is")
	refused(w, []string{"undrain"}, "--all")
	checkNoDrainedFile(w)

	// An address stands for all its ports, however it is written.
	out := drain(w, "drain", "::ffff:"+one[0])
	if len(out.Drained) != 1 || out.Drained[0].Address != one[0] || len(out.Drained[0].Backends) == 0 {
		t.Errorf("an IPv4-mapped address: %+v", out)
	}
	refused(w, []string{"undrain", at}, "with all ports", "undrain "+one[0])
	refused(w, []string{"undrain", two[0]}, "is not drained, but "+one[0])
	refused(w, append([]string{"drain"}, two...), "would be refused", "the last of")

	// With --force new connections are refused, and status tells why.
	drain(w, append([]string{"drain", "--force"}, append(one, two...)...)...)
	got := w.Tally(10, func(int) (string, error) { return w.Answerer(labtest.VIP(4, 80)) })
	for name := range got {
		if strings.HasPrefix(name, "backend-") {
			t.Errorf("all are drained, and new connections reach %v", got)
		}
	}
	text, err := w.Blixt.Node.Run(20*time.Second, w.Blixt.Binary, "status", "host", "-o", "wide")
	if err == nil || !strings.Contains(text, one[0]+" is drained by") || !strings.Contains(text, "blixt undrain "+one[0]) || !strings.Contains(text, "no backend serves") {
		t.Errorf("status (%v) says:\n%s", err, text)
	}
	drain(w, "undrain", "--all")
	newcomersReach(w, "undrained", "backend-1", "backend-2")
	checkNoDrainedFile(w)
}

// Two commands at once lose nothing of each other, and never drain both of two backends.
func TestDrainsAtOnce(t *testing.T) {
	w := labtest.New(t, "at-once", 3, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	for round := range 3 {
		errs := make(chan error, 3)
		for i := range 3 {
			go func() {
				_, err := w.Blixt.Run(append([]string{"drain"}, backendAddresses(w, fmt.Sprintf("backend-%d", i+1))...)...)
				errs <- err
			}()
		}
		failed := 0
		for range 3 {
			if err := <-errs; err != nil {
				failed++
				if !strings.Contains(err.Error(), "would be refused") {
					t.Errorf("round %d: %v", round, err)
				}
			}
		}
		set, err := standalone.ReadDrained(drainedFile(w))
		w.Check(err)
		if failed != 1 || len(set) != 2*len(backendAddresses(w, "backend-1")) {
			t.Errorf("round %d: %d of three were refused, and %d addresses are drained", round, failed, len(set))
		}
		drain(w, "undrain", "--all")
	}
}

// A file that nobody can read, or that is not root's, changes nothing, and status says so.
func TestBrokenFileOfDrainsChangesNothing(t *testing.T) {
	w := labtest.New(t, "broken-drain", 2, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	clients := w.StartClients(20, "tcp", labtest.VIP(4, 80))
	path := drainedFile(w)
	one, two := backendAddresses(w, "backend-1"), backendAddresses(w, "backend-2")
	drain(w, append([]string{"drain"}, one...)...)
	good, err := os.ReadFile(path)
	w.Check(err)
	lie := fmt.Sprintf(`{"drained": [{"address": %q, "since": "2026-01-01T00:00:00Z", "by": "x"}]}`, two[0])
	next := path + ".new" // so that there is always a file
	write := func(text string) error { return os.WriteFile(next, []byte(text), 0o644) }
	for _, c := range []struct {
		name string
		make func() error
		want string
	}{
		{"half", func() error { return write(string(good[:len(good)/2])) }, "it is no JSON: unexpected EOF"},
		{"empty", func() error { return write("") }, "it is no JSON: EOF"},
		{"of another user", func() error { return errors.Join(write(lie), os.Chown(next, 1000, 1000)) }, "belongs to user 1000"},
		{"that others may write", func() error { return errors.Join(write(lie), os.Chmod(next, 0o666)) }, "others may write it"},
		{"a link", func() error {
			return errors.Join(os.WriteFile(path+".x", []byte(lie), 0o644), os.Symlink(path+".x", next))
		}, "it is a link"},
		{"a hard link", func() error { return os.Link(path+".x", next) }, "hard link"},
		{"huge", func() error { return errors.Join(write(""), os.Truncate(next, 1<<40)) }, "bytes"},
		{"a directory", func() error { return os.Mkdir(next, 0o755) }, "no regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.In(t)
			w.Check(c.make())
			w.Check(unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE))
			w.Check(os.RemoveAll(next))
			w.Check(lab.Eventually(10*time.Second, func() error {
				if log := w.Blixt.Log(); !strings.Contains(log, c.want) {
					return fmt.Errorf("the log has no %q: %s", c.want, log)
				}
				return nil
			}))
			newcomersReach(w, c.name, "backend-2")
			refused(w, append([]string{"drain"}, one...), c.want, "mend the file")
		})
	}
	w.Check(os.Remove(path))
	w.Check(os.Remove(path + ".x"))
	// Without the file nothing is drained, and a start with a broken one serves.
	w.Check(lab.Eventually(10*time.Second, func() error {
		if got, err := w.Answerer(labtest.VIP(4, 80)); got != "backend-1" {
			return fmt.Errorf("%s answers: %w", got, err)
		}
		return nil
	}))
	w.Check(w.Blixt.Kill())
	w.Check(os.WriteFile(path, good[:9], 0o644))
	w.Check(w.Blixt.Start())
	newcomersReach(w, "started with a broken file", "backend-1", "backend-2")
	clients.CheckUnharmed("broken files")
	if text, err := w.Blixt.Node.Run(20*time.Second, w.Blixt.Binary, "status", "host", "-o", "wide"); err == nil || !strings.Contains(text, "what is drained by hand is not known") {
		t.Errorf("status (%v) says:\n%s", err, text)
	}
	w.Check(os.WriteFile(path, good, 0o644))
	w.Check(lab.Eventually(10*time.Second, func() error {
		for _, f := range w.Status().Frontends {
			for _, b := range f.Backends {
				if strings.HasPrefix(b.Address, one[0]+":") && (b.Drained == nil || b.State != lb.StateDraining) {
					return fmt.Errorf("%+v", b)
				}
			}
		}
		return nil
	}))
}
