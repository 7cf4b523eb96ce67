// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// haproxyCfg has what HAProxy and Blixt can both do: what is inherited, weights, a disabled
// server, rules about clients with a list in a file, balance source, a backup server, a
// backend that stands by for another one, and a range of ports.
const haproxyCfg = `
global
    maxconn 4000
    setenv WEB 10.77.0.11
defaults tcp
    mode tcp
    timeout connect 2s
    timeout client 1m
    timeout server 1m
defaults checked from tcp
    default-server check inter 1s fall 1 rise 1

frontend web from tcp
    bind VIP:80
    default_backend web
frontend guarded from tcp
    bind VIP:81
    acl allowed src -f DIR/allowed.lst
    tcp-request connection reject if { src 10.66.0.2 }
    tcp-request connection reject unless allowed
    default_backend web
frontend preferred from tcp
    bind VIP:84
    use_backend spare if { nbsrv(main) lt 1 }
    default_backend main
listen sticky from tcp
    bind VIP:82
    balance source
    server one 10.77.0.11:8080
    server two 10.77.0.12:8080
    server three 10.77.0.13:8080
listen standby from checked
    bind VIP:83
    server main 10.77.0.11:9090
    server standby 10.77.0.12:9090 backup
listen range from tcp
    bind VIP:8080-8081
    server four 10.77.0.14

backend web from tcp
    balance static-rr
    server one "${WEB}:8080" weight 3
    server two 10.77.0.12:8080
    server three 10.77.0.13:8080 disabled
backend main from checked
    server main 10.77.0.11:9090
backend spare from checked
    server standby 10.77.0.12:9090
`

// TestHAProxy has HAProxy serve, and then Blixt with what blixt migrate has written: clients
// meet the same servers, with the same parts, and the same ones are kept out.
func TestHAProxy(t *testing.T) {
	p := newPlace(t, "migrate-haproxy")
	_, err := p.Backends[1].Serve("standby", labtest.At(p.Backends[1].IPv4, 9090))
	p.Check(err)
	conf, list := filepath.Join(p.Dir(), "haproxy.cfg"), filepath.Join(p.Dir(), "allowed.lst")
	p.Check(os.WriteFile(list, []byte("# the office\n10.66.0.0/24\n"), 0o644))
	p.Check(os.WriteFile(conf, []byte(strings.NewReplacer("DIR", p.Dir(), "VIP", lab.VIP4).Replace(haproxyCfg)), 0o644))

	stop, err := p.Balancer.Daemon("haproxy", "-db", "-f", conf)
	p.Check(err)
	p.listening(80)
	p.checkAsHAProxy("HAProxy")
	p.Check(stop())
	notes := p.instead("haproxy", conf, list)
	p.checkAsHAProxy("Blixt")
	if got := strings.Count(notes, ": changed: "); got != 1 || strings.Contains(notes, ": lost: ") || !strings.Contains(notes, "three 10.77.0.13:8080 disabled") {
		t.Errorf("all is carried over but the disabled server, and:\n%s", notes)
	}
}

// checkAsHAProxy fails the test unless what serves does what the configuration says.
func (p *place) checkAsHAProxy(who string) {
	p.Helper()
	p.checkShares(who, "tcp", 80, map[string]float64{"backend-1": .75, "backend-2": .25})
	p.checkAnswer(who, 81, labtest.Refused)
	if got, _ := p.answer("tcp", otherClient, 81); got != "backend-1" && got != "backend-2" {
		p.Errorf("%s: %s answers who is allowed", who, got)
	}
	p.checkSticky(who, 82)
	p.checkAnswer(who, 8080, "backend-4")
	p.checkAnswer(who, 8081, labtest.Refused) // nobody listens at that port
	p.checkBackup(who, 83, 9090)
	p.checkBackup(who, 84, 9090)
}
