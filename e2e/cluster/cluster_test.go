// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"bytes"
	"context"
	"debug/elf"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// patience is how long anything may take that works within seconds on a machine
// that is not busy.
const patience = time.Minute

var c *cluster.Cluster

// scratch is a folder for what more than one test uses.
var scratch string

// buildOnce builds blixt of this source, if no test has done so before.
var buildOnce = sync.OnceValues(func() (string, error) { return lab.Build(scratch) })

func builtBlixt(t *testing.T) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && pods[os.Args[1]] != nil {
		fmt.Fprintln(os.Stderr, pods[os.Args[1]]())
		os.Exit(1)
	}
	var o cluster.Options
	flag.StringVar(&o.Name, "name", "test", "name of the cluster")
	flag.StringVar(&o.Proxy, "proxy", "", "kube-proxy's mode: nftables or iptables")
	flag.BoolVar(&o.Overlay, "overlay", false, "join pods by VXLAN instead of routes")
	flag.StringVar(&o.Flannel, "flannel", "", "join pods by flannel: vxlan or host-gw")
	flag.IntVar(&o.Nodes, "nodes", 2, "number of nodes")
	flag.BoolVar(&o.NoBpfman, "no-bpfman", false, "do not install bpfman")
	running := flag.Bool("running", false, "test in the cluster that runs, and leave it running")
	var g cluster.Given
	flag.StringVar(&g.Kubeconfig, "kubeconfig", "", "test in the cluster of this file, what can be tested in one that others run")
	flag.StringVar(&g.Registry, "registry", "", "host and path to push images to that its nodes pull")
	flag.StringVar(&g.CA, "ca-file", "", "certificate of the registry's authority, if that is none of the system's")
	flag.StringVar(&givenPool, "pool", "", "addresses that Gateways get, which lead to its nodes, as FIRST-LAST or CIDR; none: the nodes' own")
	flag.Parse()
	os.Exit(func() int {
		err := checkStatic() // before all the work
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if scratch, err = os.MkdirTemp("", "blixt-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(scratch)
		switch {
		case g.Kubeconfig != "":
			c, err = cluster.Use(context.Background(), g)
		case *running:
			c, err = cluster.Find(o.Name)
		default:
			c, err = cluster.Up(context.Background(), o)
		}
		if err == nil {
			err = pushImages()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if c.IsGiven() {
			if _, err := c.Kubectl(context.Background(), "delete", "--filename=testdata/servers.yaml"); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		if *running || c.IsGiven() {
			return code
		}
		if code != 0 {
			fmt.Fprintf(os.Stderr, "the cluster stays as it is: go run ./e2e/cluster/cmd --name %s status, logs are in %s\n", c.Options.Name, c.Dir())
			return code
		}
		if err := c.Down(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}())
}

// pushImages pushes the image of the test's program and starts its servers.
func pushImages() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if image, err = c.Push(ctx, "blixt/test:1", cluster.Image{Files: map[string]string{"/test": self}, Entrypoint: []string{"/test"}}); err != nil {
		return err
	}
	servers, err := testdata("servers.yaml", "", "")
	if err != nil {
		return err
	}
	if err := c.ApplyYAML(ctx, servers); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.AwaitPods(ctx, "default")
}

// checkStatic returns an error if this program does not run in an image that has nothing
// else.
func checkStatic() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err == nil && len(libraries) > 0 {
		err = fmt.Errorf("the test's program, which pods run too, needs %v: set CGO_ENABLED=0, as make e2e does", libraries)
	}
	return err
}

// image is the name of the test's program by its digest: under its tag nodes may
// have an older one.
var image string

// testdata reads a file of testdata, with a word replaced and the image's digest
// inserted.
func testdata(file, word, with string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join("testdata", file))
	text = bytes.ReplaceAll(text, []byte(word), []byte(with))
	return bytes.ReplaceAll(text, []byte("blixt/test:1"), []byte(image)), err
}

// requireMachines skips a test that enters machines if the cluster has none to enter.
func requireMachines(t *testing.T) {
	t.Helper()
	if len(c.Nodes) == 0 {
		t.Skip("cluster lacks: a way into its nodes")
	}
}

// answer is what a server answers: the node that it is on, and the client that it sees.
type answer struct{ node, sees string }

// dialer is a machine, or the pod that this process runs in.
type dialer interface {
	Dial(network, from, addr string, limit time.Duration) (net.Conn, error)
}

// askLimit is how long an answer may take.
const askLimit = 2 * time.Second

// ask sends one question from a machine, and from a port if one is given.
func ask(from dialer, network, port, addr string) (a answer, err error) {
	conn, err := from.Dial(network, port, addr, askLimit)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askLimit)); err != nil {
		return a, err
	}
	if network == "udp" {
		if _, err := io.WriteString(conn, "?"); err != nil {
			return a, err
		}
	}
	buffer := make([]byte, 100)
	n, err := conn.Read(buffer)
	if err != nil {
		return a, err
	}
	_, err = fmt.Sscan(string(buffer[:n]), &a.node, &a.sees)
	return a, err
}

// TestNetwork checks what Blixt needs of a cluster, without Blixt: pods reach pods of
// other nodes and Services, in both families, and names are resolved.
func TestNetwork(t *testing.T) {
	requireMachines(t)
	var service corev1.Service
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "server"}, &service); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"node-1": true, "node-2": true}
	for _, m := range c.Nodes {
		resolver := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			return m.Dial("udp", "", cluster.DNS+":53", 2*time.Second)
		}}
		kube.Wait(t, patience, "addresses of the Service that "+m.Name+" finds", slices.Sorted(slices.Values(service.Spec.ClusterIPs)), func() ([]string, error) {
			found, err := resolver.LookupHost(t.Context(), "server.default.svc.cluster.local.")
			slices.Sort(found)
			return found, err
		})
		for _, ip := range service.Spec.ClusterIPs {
			for _, network := range []string{"tcp", "udp"} {
				kube.Wait(t, patience, network+" from "+m.Name+" to "+ip, want, func() (map[string]bool, error) {
					got := map[string]bool{}
					for range 20 {
						a, err := ask(m, network, "", net.JoinHostPort(ip, "80"))
						if err != nil {
							return got, err
						}
						got[a.node] = true
					}
					return got, nil
				})
			}
		}
	}
}

func awaitPods(t *testing.T, namespace string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.AwaitPods(ctx, namespace); err != nil {
		out, _ := c.Kubectl(t.Context(), "--namespace="+namespace, "describe", "pods") // only adds to the failure
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestDaemons halts and kills processes of the cluster, as other tests do.
func TestDaemons(t *testing.T) {
	requireMachines(t)
	if err := c.Control.Halt("kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Kubectl(t.Context(), "get", "--raw=/readyz"); err == nil {
		t.Errorf("an API server that was halted says %s", out)
	}
	node := c.Nodes[1]
	before := node.Pid("kubelet")
	if err := node.Kill(t.Context(), "kubelet"); err != nil {
		t.Fatal(err)
	}
	if err := c.Control.Resume("kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, patience, "the API server's word", "ok", func() (string, error) { return c.Kubectl(t.Context(), "get", "--raw=/readyz") })
	kube.Wait(t, patience, "another kubelet", true, func() (bool, error) {
		pid := node.Pid("kubelet")
		return pid != 0 && pid != before, nil
	})
}
