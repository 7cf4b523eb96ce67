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

// nginxConf has what nginx and Blixt can both do: weights, allow and deny, a hash of the
// client's address, a backup server, TCP and UDP, a range of ports.
const nginxConf = `
daemon off;
worker_processes 1;
pid DIR/nginx.pid;
error_log DIR/error.log;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events { worker_connections 4000; }
stream {
    include DIR/upstreams/*.conf;
    server { listen VIP:80; proxy_pass web; }
    server { listen VIP:53 udp; proxy_pass web; proxy_timeout 30s; }
    server {
        listen VIP:81;
        proxy_pass web;
        deny 10.66.0.2;
        allow 10.66.0.0/24;
        deny all;
    }
    server { listen VIP:82; proxy_pass sticky; }
    server { listen VIP:83; proxy_pass standby; }
    server { listen VIP:8080-8081; proxy_pass 10.77.0.14:$server_port; }
}
`

const nginxUpstreams = `
upstream web {
    server 10.77.0.11:8080 weight=3;
    server 10.77.0.12:8080;
    server 10.77.0.13:8080 down;
}
upstream sticky {
    hash $remote_addr consistent;
    server 10.77.0.11:8080;
    server 10.77.0.12:8080;
    server 10.77.0.13:8080;
}
upstream standby {
    server 10.77.0.11:9090 fail_timeout=1s;
    server 10.77.0.12:9090 fail_timeout=1s backup;
}
`

// TestNginx has nginx serve, then Blixt beside it at another address with what blixt migrate has
// written, then Blixt at nginx's address, then nginx again. Clients meet the same servers, with
// the same parts, and the same ones are kept out.
func TestNginx(t *testing.T) {
	p := newPlace(t, "migrate-nginx")
	_, err := p.Backends[1].Serve("standby", labtest.At(p.Backends[1].IPv4, 9090))
	p.Check(err)
	fill := strings.NewReplacer("DIR", p.Dir(), "VIP", lab.VIP4).Replace
	p.Check(os.MkdirAll(filepath.Join(p.Dir(), "upstreams"), 0o755))
	conf := filepath.Join(p.Dir(), "nginx.conf")
	p.Check(os.WriteFile(filepath.Join(p.Dir(), "upstreams", "all.conf"), []byte(nginxUpstreams), 0o644))
	p.Check(os.WriteFile(conf, []byte(fill(nginxConf)), 0o644))

	_, err = p.Balancer.Daemon("nginx", "-c", conf)
	p.Check(err)
	p.listening(80)
	p.checkAsNginx("nginx")

	written, notes := p.migrated("nginx", conf)
	for line := range strings.Lines(notes) {
		switch {
		case strings.Contains(line, ": unneeded: "), strings.Contains(line, ": changed: upstream standby: it has backup servers"):
		case strings.HasPrefix(line, "changed: rules of the host's INPUT hook"): // said of every host
		default:
			t.Errorf("all is carried over, but: %s", line)
		}
	}
	p.beside(written)
	p.checkAnswer("nginx, beside Blixt,", 8080, "backend-4")
	p.move("address del "+lab.VIP4+"/32 dev eth0", written)
	p.checkAsNginx("Blixt")
	p.Check(p.Blixt.Stop())
	p.Balancer.IP("address add " + lab.VIP4 + "/32 dev eth0")
	p.Check(p.Err())
	p.listening(80)
	p.checkAnswer("nginx, again,", 8080, "backend-4")
}

// trialVIP is an address that nobody has, for a try.
const trialVIP = "198.51.100.11"

// beside has Blixt serve at another address, while the other one goes on.
func (p *place) beside(written string) {
	p.Helper()
	p.Check(os.WriteFile(filepath.Join(p.Blixt.Dir, "lb.yaml"), []byte(strings.ReplaceAll(written, lab.VIP4, trialVIP)), 0o644))
	p.Check(p.Blixt.Start())
	c := p.Dial(p.Client, "tcp", labtest.At(trialVIP, 8080))
	if got := p.Ask(c, "who?").Server; got != "backend-4" {
		p.Errorf("Blixt, beside: %s answers", got)
	}
}

// move takes the address from the host, and has Blixt serve it from its start on.
func (p *place) move(ip, written string) {
	p.Helper()
	p.Check(p.Blixt.Stop())
	p.Balancer.IP(ip)
	p.Check(p.Err())
	p.Check(lab.Replace(filepath.Join(p.Blixt.Dir, "lb.yaml"), written))
	p.Check(p.Blixt.Start())
}

// checkAsNginx fails the test unless what serves does what the configuration says.
func (p *place) checkAsNginx(who string) {
	p.Helper()
	web := map[string]float64{"backend-1": .75, "backend-2": .25}
	p.checkShares(who, "tcp", 80, web)
	p.checkShares(who, "udp", 53, web)
	p.checkAnswer(who, 81, labtest.Refused)
	if got, _ := p.answer("tcp", otherClient, 81); got != "backend-1" && got != "backend-2" {
		p.Errorf("%s: %s answers who is allowed", who, got)
	}
	p.checkSticky(who, 82)
	p.checkAnswer(who, 8080, "backend-4")
	p.checkAnswer(who, 8081, labtest.Refused) // nobody listens at that port
	p.checkBackup(who, 83, 9090)
}
