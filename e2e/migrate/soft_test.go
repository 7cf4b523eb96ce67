// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestSoftStop moves from a proxy to Blixt and back, at an address of the host, which stays
// there. The host's sockets win over Blixt. So whoever closes its listening socket, and lets its
// connections end, hands new ones over, and no connection is lost.
func TestSoftStop(t *testing.T) {
	for _, proxy := range []struct {
		name, conf string
		args       []string
		soft       syscall.Signal
	}{
		{"nginx", `
daemon off;
worker_processes 1;
pid DIR/nginx.pid;
error_log DIR/error.log;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events { worker_connections 4000; }
stream { server { listen 80; proxy_pass 10.77.0.11:8080; } }
`, []string{"-c"}, syscall.SIGQUIT},
		{"haproxy", `
defaults
    mode tcp
    timeout connect 2s
    timeout client 1m
    timeout server 1m
listen web
    bind :80
    server one 10.77.0.11:8080
`, []string{"-db", "-f"}, syscall.SIGUSR1},
	} {
		t.Run(proxy.name, func(t *testing.T) {
			p := newPlace(t, "migrate-soft-"+proxy.name)
			conf := filepath.Join(p.Dir(), proxy.name+".conf")
			p.Check(os.WriteFile(conf, []byte(strings.ReplaceAll(proxy.conf, "DIR", p.Dir())), 0o644))
			old := p.proxy(proxy.name, append(proxy.args, conf)...)
			p.listeners(true)
			byProxy := p.talk()

			written, _ := p.migrated(proxy.name, conf)
			p.Check(os.WriteFile(filepath.Join(p.Blixt.Dir, "lb.yaml"), []byte(written), 0o644))
			p.Check(p.Blixt.Start())
			p.checkAnswers(proxy.name + ", beside Blixt,")
			p.Check(old.Process.Signal(proxy.soft))
			p.listeners(false)
			p.checkAnswers("Blixt, after " + proxy.name + ",")
			byBlixt := p.talk()
			p.Ask(byProxy, "still there?")

			p.proxy(proxy.name, append(proxy.args, conf)...)
			p.listeners(true)
			p.checkAnswers(proxy.name + ", in front of Blixt,")
			p.Ask(byBlixt, "still there?")
			p.Check(p.Blixt.Stop())
			p.Ask(byProxy, "still there?")
			p.checkAnswers(proxy.name + ", again,")
		})
	}
}

// proxy starts a program on the load balancer's host. It ends with the test, and its children do.
func (p *place) proxy(name string, args ...string) *exec.Cmd {
	p.Helper()
	cmd := p.Balancer.Command(context.Background(), name, args...)
	p.Check(p.Balancer.Start(cmd))
	p.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		time.AfterFunc(2*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // we end it: the error says so
	})
	return cmd
}

// listeners waits until a socket of the host listens at the port, or none does.
func (p *place) listeners(want bool) {
	p.Helper()
	p.Check(lab.Eventually(labtest.Patience, func() error {
		out, err := p.Balancer.Run(labtest.Patience, "ss", "-Hltn", "sport = :80")
		if err == nil && (out != "") != want {
			err = fmt.Errorf("sockets that listen at port 80: %q", out)
		}
		return err
	}))
}

// talk begins a connection that stays.
func (p *place) talk() net.Conn {
	p.Helper()
	c := p.Dial(p.Client, "tcp", labtest.At(lab.VIP4, 80))
	p.Ask(c, "who?")
	return c
}

// checkAnswers fails the test unless each of many connections, one after the other, is answered.
func (p *place) checkAnswers(who string) {
	p.Helper()
	for range 300 {
		if got, err := p.answer("tcp", lab.Client4, 80); got != "backend-1" {
			p.Fatalf("%s: %s answers, %v", who, got, err)
		}
	}
}
