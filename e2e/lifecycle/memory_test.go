// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// maxResident is how much memory blixt run may have at ten frontends, in kB: 40 MiB. It takes 35,000
// to 39,000; what differs from start to start is how much of the program's file the kernel maps
// around what is used.
const maxResident = 40 << 10

// resident returns what a process has in memory, in kB, by the names of /proc/PID/status.
func resident(w *labtest.World, pid int) map[string]int {
	w.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	w.Check(err)
	kB := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "VmRSS:" || strings.HasPrefix(f[0], "Rss")) {
			kB[f[0]], err = strconv.Atoi(f[1])
			w.Check(err)
		}
	}
	return kB
}

// TestMemory: with ten frontends of two backends each blixt run is small when it has begun to
// serve, and after its first rounds of sweeps and checks. One start of two may be larger.
func TestMemory(t *testing.T) {
	w := labtest.New(t, "memory", 2, 0)
	services := map[int][]lab.Endpoint{}
	for port := 81; port <= 85; port++ { // of TCP and of UDP
		services[port] = lab.Endpoints(8080, w.Backends...)
	}
	c := labtest.ConfigOf(services)
	c.Gateways[0].Addresses = []string{lab.VIP4}
	w.StartBlixt(c, "eth0", "eth1")
	if n := len(w.Status().Frontends); n != 10 {
		t.Fatalf("%d frontends, want 10", n)
	}
	if isSmall(w) {
		return
	}
	w.Check(w.Blixt.Stop())
	w.Check(w.Blixt.Start())
	if !isSmall(w) {
		t.Errorf("more than %d kB are in memory at both starts. See above of what: its own (RssAnon), the heap, by GODEBUG=gctrace=1; mapped (RssFile): the program's file, of which a larger one is more, and maps of the kernel, which /proc/PID/smaps lists", maxResident)
	}
}

// isSmall reports whether Blixt stays below maxResident.
func isSmall(w *labtest.World) bool {
	for _, after := range []time.Duration{2 * time.Second, 12 * time.Second} {
		time.Sleep(after)
		kB := resident(w, w.Blixt.Pid())
		w.Logf("after %s more: %d kB resident: own (RssAnon) %d, mapped (RssFile) %d", after, kB["VmRSS:"], kB["RssAnon:"], kB["RssFile:"])
		if kB["VmRSS:"] == 0 || kB["VmRSS:"] > maxResident {
			return false
		}
	}
	return true
}
