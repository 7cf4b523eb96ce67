// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestFrontendsObeyTheFirewall runs Blixt with --through-stack: what the host's chain
// FORWARD says about clients holds for a frontend, and what it lets pass is carried.
func TestFrontendsObeyTheFirewall(t *testing.T) {
	w := labtest.New(t, "firewall", 2, 1)
	b, err := w.Standard.Blixt(w.Balancer, labtest.Binary, labtest.ConfigOf(map[int][]lab.Endpoint{
		80: lab.Endpoints(8080, w.Backends...),
		81: lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}))
	w.Check(err)
	b.Args = append(b.Args, "--through-stack")
	w.Blixt = b
	w.Check(b.Start())
	for _, family := range []int{4, 6} {
		host, client := lab.Inside4, lab.Client4
		saddr := "ip saddr " + client
		if family == 6 {
			host, client = lab.Inside6, lab.Client6
			saddr = "ip6 saddr " + client
		}
		for _, network := range []string{"tcp", "udp"} {
			for _, port := range []int{80, 81} {
				t.Run(fmt.Sprintf("%s%d to %d", network, family, port), func(t *testing.T) {
					w := w.In(t)
					addr := labtest.VIP(family, port)
					firewall(w, false, "prerouting", "input", "forward", "output", "postrouting")
					c := w.Dial(w.Client, network, addr)
					a := w.Ask(c, "hello")
					want := map[int]string{80: host, 81: client}[port]
					if seen := netip.MustParseAddrPort(a.Client).Addr().String(); seen != want {
						t.Errorf("the server sees %s, want %s", seen, want)
					}
					if n := firewallDrops(w); n > 0 {
						t.Errorf("conntrack calls %d packets invalid", n)
					}

					forward(w, saddr+" drop")
					if _, err := lab.Ask(c, "again", unanswered); err == nil {
						t.Error("a connection goes on that the firewall drops")
					}
					if answered, _ := reaches(w, w.Client, network, addr, unanswered); answered {
						t.Error("a client is answered whom the firewall drops")
					}
					forward(w, saddr+" reject")
					began := time.Now()
					answered, _ := reaches(w, w.Client, network, addr, labtest.Patience)
					if took := time.Since(began); answered || took > labtest.Patience/2 {
						t.Errorf("a client whom the firewall rejects is answered: %v, after %s", answered, took)
					}
					_, err := w.Client.Dial("tcp", "", addr, labtest.Patience)
					if network == "tcp" && !errors.Is(err, unix.ECONNREFUSED) {
						t.Errorf("a client whom the firewall rejects gets: %v", err)
					}
					forward(w, "")
					w.Ask(w.Dial(w.Client, network, addr), "hello")
				})
			}
		}
	}
}

// forward sets what the load balancer's chain FORWARD says.
func forward(w *labtest.World, rule string) {
	w.Helper()
	path := w.Dir() + "/forward.nft"
	rules := "table inet site\ndelete table inet site\ntable inet site { chain forward { type filter hook forward priority 0; " + rule + "\n}\n}\n"
	w.Check(os.WriteFile(path, []byte(rules), 0o600))
	_, err := w.Balancer.Run(labtest.Patience, "nft", "-f", path)
	w.Check(err)
}
