// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// A world is a balancer between a client and a backend:
//
//	client eth0 ── in balancer out ── eth0 backend
type world struct {
	*lab.Lab
	client, balancer, backend *lab.Node
	blixt                     *lab.Blixt
	server                    *server
}

const (
	backendIP   = "10.71.0.2"
	backendPort = "8080"
	localPort   = "80"
	remotePort  = "81"
)

// target is where the backend's server listens, and vip and vip2 what a balancer serves.
// What goes past the balancer goes to a port of its own: a client that has a flow with
// the VIP cannot use the same port of its own to talk to the backend itself.
var (
	target = backendIP + ":" + backendPort
	direct = backendIP + ":8081"
	vip    = lab.VIP4 + ":" + localPort
	vip2   = lab.VIP4 + ":" + remotePort
)

func newWorld(name string) (w *world, err error) {
	l, err := lab.New(name)
	if err != nil {
		return nil, err
	}
	w = &world{Lab: l, client: l.Node("client"), balancer: l.Node("balancer"), backend: l.Node("backend")}
	w.balancer.Forward()
	l.Link(w.client, "eth0", w.balancer, "in")
	l.Link(w.balancer, "out", w.backend, "eth0")
	w.client.Addr("eth0", lab.Client4+"/24")
	w.balancer.Addr("in", lab.Outside4+"/24")
	w.balancer.Addr("out", "10.71.0.1/24")
	w.backend.Addr("eth0", backendIP+"/24")
	w.client.Route("default via " + lab.Outside4)
	w.backend.Route("default via 10.71.0.1")
	for _, n := range []*lab.Node{w.client, w.balancer} {
		// Connections follow each other faster than the usual ports allow.
		n.Sysctl("net.ipv4.ip_local_port_range=32768 65535", "net.ipv4.tcp_tw_reuse=1")
	}
	if err = l.Err(); err == nil {
		w.server, err = serve(w.backend, target, direct)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) close() error {
	if w.server != nil {
		w.server.close()
	}
	return w.Lab.Close()
}

// nft has the kernel's NAT do the job.
func (w *world) nft() error {
	_, err := w.balancer.Run(10*time.Second, "nft", fmt.Sprintf(
		`table ip bench { chain pre { type nat hook prerouting priority dstnat; ip daddr %s tcp dport %s dnat to %s; }; }`, lab.VIP4, localPort, target))
	return err
}

// startBlixt has Blixt do the job: with the backend as one of this node, and as one
// elsewhere.
func (w *world) startBlixt(binary string, flags ...string) (err error) {
	config := &lab.Config{Gateways: []lab.Gateway{{Name: "vip", Addresses: []string{lab.VIP4}}}}
	for port, node := range map[int]string{80: "balancer", 81: "elsewhere"} {
		listener := lab.Listener{Protocol: "TCP", Port: port}
		config.Gateways[0].Listeners = append(config.Gateways[0].Listeners, listener)
		config.Services = append(config.Services, lab.Service{Name: node, Endpoints: []lab.Endpoint{{Addr: target, Node: node}}})
		config.Routes = append(config.Routes, lab.Route{Name: node, Gateway: "vip", Listener: listener, Refs: []lab.Ref{{Service: node, Weight: 1}}})
	}
	if w.blixt, err = w.Lab.Blixt(w.balancer, binary, config, "in", "out"); err != nil {
		return err
	}
	// An earlier version has nothing that outlasts a file, nor flags for it.
	has, err := w.blixt.HasFlag("--removal-grace")
	if err != nil {
		return err
	}
	w.blixt.Lasting = !has
	w.blixt.Args = append(w.blixt.Args, flags...)
	return w.blixt.Start()
}

// proxy starts a program with a configuration, and waits until it serves.
func (w *world) proxy(text, program string, args ...string) error {
	w.balancer.IP("addr add " + lab.VIP4 + "/32 dev lo")
	if err := w.Err(); err != nil {
		return err
	}
	path := filepath.Join(w.Dir(), "config")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := w.balancer.Daemon(program, append(args, path)...); err != nil {
		return err
	}
	return lab.Eventually(10*time.Second, func() error {
		c, err := w.client.Dial("tcp", "", vip, time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

func (w *world) haproxy() error {
	return w.proxy(`global
  nbthread 2
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen bench
  bind `+vip+`
  server backend `+target+`
`, "haproxy", "-db", "-f")
}

func (w *world) nginx() error {
	return w.proxy(`daemon off;
worker_processes 2;
pid `+w.Dir()+`/nginx.pid;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
error_log stderr crit;
events { worker_connections 8000; }
stream { server { listen `+vip+` reuseport backlog=4096; proxy_pass `+target+`; } }
`, "nginx", "-c")
}
