// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// Who removes a backend reads in the log how many connections that has cost, whether they
// were busy or idle.
func TestLogCountsWhatWasReset(t *testing.T) {
	w := labtest.New(t, "counted", 3, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	busy := w.StartClients(40, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	var idle []net.Conn
	for range 20 {
		c := w.Dial(w.Client, "tcp", labtest.VIP(4, 80))
		if w.Ask(c, "who are you").Server == "backend-1" {
			idle = append(idle, c)
		}
	}
	busy.AwaitRound()
	want := busy.ByServer()["backend-1"] + len(idle)
	if want == len(idle) || len(idle) == 0 {
		t.Fatalf("of %d connections with backend-1 %d are idle", want, len(idle))
	}
	w.Check(w.Blixt.AwaitLog("flows reset, as their backend is gone", labtest.Patience, func() error {
		return w.Blixt.Apply(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends[1:]...)}))
	}))
	busy.AwaitRound()
	reset := regexp.MustCompile(`INFO ([0-9,]+) flows? reset, as their backend is gone(.*)`)
	w.Check(lab.Eventually(15*time.Second, func() error {
		got := 0
		for _, m := range reset.FindAllStringSubmatch(w.Blixt.Log(), -1) {
			n, err := strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
			w.Check(err)
			got += n
		}
		if got != want {
			return fmt.Errorf("%d connections had backend-1, and the log counts %d:\n%s", want, got, w.Blixt.Log())
		}
		return nil
	}))
	one := w.Backends[0]
	for _, text := range []string{"changed: -" + one.IPv4 + ":8080 of default/", ": " + one.IPv4 + ":8080 of default/"} {
		if !strings.Contains(w.Blixt.Log(), text) {
			t.Errorf("the log has no %q:\n%s", text, w.Blixt.Log())
		}
	}
	busy.Close()
}
