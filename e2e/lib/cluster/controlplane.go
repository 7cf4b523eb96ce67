// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// listen opens a socket of the host at an address of its own in 127.0.0.0/8, for
// connections to the API server.
func listen() (*net.TCPListener, string, error) {
	var r [3]byte
	_, _ = rand.Read(r[:])
	host := netip.AddrFrom4([4]byte{127, r[0], r[1], r[2] | 2}).String()
	l, err := net.Listen("tcp", net.JoinHostPort(host, apiPort))
	if err != nil {
		return nil, "", err
	}
	return l.(*net.TCPListener), host, nil
}

// makePKI makes the certificates by which all parts of the cluster authenticate each
// other. host is the host's address of the API server, which the administrator uses.
func (c *Cluster) makePKI(host string) error {
	p, err := newPKI(filepath.Join(c.dir, "pki"))
	if err != nil {
		return err
	}
	if _, err := p.writeKey("accounts"); err != nil {
		return err
	}
	if err := p.server("apiserver", "kube-apiserver", nil, Control4, Control6, host, "10.212.0.1", "fd00:212::1", "127.0.0.1", "kubernetes",
		"kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"); err != nil {
		return err
	}
	if err := p.server("registry", "registry", nil, Control4, Control6); err != nil {
		return err
	}
	if err := p.client("kubelet-client", "kube-apiserver", "system:masters"); err != nil {
		return err
	}
	inside := "https://" + net.JoinHostPort(Control4, apiPort)
	for _, u := range []struct{ name, user, group, server string }{
		{"admin", "admin", "system:masters", "https://" + net.JoinHostPort(host, apiPort)},
		{"controller-manager", "system:kube-controller-manager", "", inside},
		{"scheduler", "system:kube-scheduler", "", inside},
		{"flannel", "flannel", "", inside},
		{"kube-router", "kube-router", "", inside},
		{"kube-proxy", "system:kube-proxy", "system:node-proxier", inside},
	} {
		var groups []string
		if u.group != "" {
			groups = []string{u.group}
		}
		if err := p.client(u.name, u.user, groups...); err != nil {
			return err
		}
		if err := p.kubeconfig(u.name, u.server); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		if err := p.server(n.Name, "system:node:"+n.Name, []string{"system:nodes"}, n.IPv4, n.IPv6, n.Name); err != nil {
			return err
		}
		if err := p.kubeconfig(n.Name, inside); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) pki(name string) string { return filepath.Join(c.dir, "pki", name) }

// startStore starts etcd, the API server and a registry, for which everything else
// waits.
func (c *Cluster) startStore(l *net.TCPListener) error {
	m := c.Control
	if err := m.makeFolders(); err != nil {
		return err
	}
	err := m.Launch("etcd", c.software.path(etcd+"/etcd"), "--data-dir="+m.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	err = m.Launch("kube-apiserver", c.software.path(kubernetes+"/kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=::", "--advertise-address="+Control4, "--service-cluster-ip-range="+Services4+","+Services6,
		"--tls-cert-file="+c.pki("apiserver.crt"), "--tls-private-key-file="+c.pki("apiserver.key"), "--client-ca-file="+c.pki("ca.crt"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--service-account-issuer="+kube.Issuer, "--service-account-key-file="+c.pki("accounts.key"), "--service-account-signing-key-file="+c.pki("accounts.key"),
		"--kubelet-client-certificate="+c.pki("kubelet-client.crt"), "--kubelet-client-key="+c.pki("kubelet-client.key"),
		"--kubelet-certificate-authority="+c.pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP")
	if err != nil {
		return err
	}
	err = m.Launch("registry", c.bin("machine"), "registry", "-listen="+Registry, "-cert="+c.pki("registry.crt"), "-key="+c.pki("registry.key"), "-dir="+m.path("registry"))
	if err != nil {
		return err
	}
	return m.boot(c.bin("machine"), c.software.search(), l, "-share="+c.dir, "-share="+c.software.cache, "-forward="+net.JoinHostPort(Control4, apiPort))
}

// startControllers starts the daemons that give up without an API server.
func (c *Cluster) startControllers() error {
	config := c.pki("controller-manager.kubeconfig")
	err := c.Control.Launch("kube-controller-manager", c.software.path(kubernetes+"/kube-controller-manager"),
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--use-service-account-credentials", "--leader-elect=false", "--bind-address=127.0.0.1", "--allocate-node-cidrs=false",
		"--service-account-private-key-file="+c.pki("accounts.key"), "--root-ca-file="+c.pki("ca.crt"),
		"--cluster-signing-cert-file="+c.pki("ca.crt"), "--cluster-signing-key-file="+c.pki("ca.key"))
	if err != nil {
		return err
	}
	config = c.pki("scheduler.kubeconfig")
	return c.Control.Launch("kube-scheduler", c.software.path(kubernetes+"/kube-scheduler"), "--kubeconfig="+config,
		"--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config, "--leader-elect=false", "--bind-address=127.0.0.1")
}

// connect sets the administrator's configuration and client.
func (c *Cluster) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit
	admin, err := client.NewWithWatch(config, client.Options{Scheme: kube.Scheme})
	c.Server = &kube.Server{Config: config, Client: admin}
	return err
}

func (c *Cluster) awaitAPI(ctx context.Context) error {
	web, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return err
	}
	err = await(ctx, "the API server is ready", func() error {
		response, err := web.Get(c.Config.Host + "/readyz")
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz: %s", response.Status)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w\netcd said:\n%s\nkube-apiserver said:\n%s", err, c.Control.Log("etcd"), c.Control.Log("kube-apiserver"))
	}
	return nil
}

func (c *Cluster) awaitRegistry(ctx context.Context) error {
	err := await(ctx, "the registry listens", func() error {
		conn, err := c.Control.Dial("tcp", "", Registry, time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: it said:\n%s", err, c.Control.Log("registry"))
	}
	return nil
}
