// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/e2e/lib/umask"
	"github.com/kubernetes-sigs/blixt/operator/control/certs"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath/pins"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// asBlixt is set in a process that is blixt and no test.
const asBlixt = "BLIXT_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asBlixt) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// nobody is the user that the agent runs as.
const nobody = 65532

// agentProcess is blixt agent with real maps, as it runs in a cluster: without
// any privilege, and confined by itself.
type agentProcess struct {
	*exec.Cmd
	out          bytes.Buffer
	url, metrics string
}

func startAgent(t *testing.T, maps, files, operator string) *agentProcess {
	t.Helper()
	var addresses []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
		l.Close()
	}
	listen, metrics := addresses[0], addresses[1]
	a := &agentProcess{url: "http://" + listen, metrics: "http://" + metrics + "/metrics"}
	a.Cmd = exec.Command("/proc/self/exe", "agent", "--maps", maps, "--operator", operator, "--application", "blue",
		"--token-file", filepath.Join(files, "token"), "--ca-file", filepath.Join(files, "ca.crt"), "--listen", listen,
		"--metrics-address", metrics, "--metrics-token-file", filepath.Join(files, "metrics-token"))
	a.Env = append(os.Environ(), asBlixt+"=1", "NODE_NAME=n1")
	a.Stdout, a.Stderr = &a.out, &a.out
	a.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.Process.Kill()
		_ = a.Wait()
		if t.Failed() {
			t.Logf("agent:\n%s", a.out.String())
		}
	})
	return a
}

// testFleet is an operator of which node n1 may have an agent.
func testFleet(t *testing.T, files string) (*fleet.Server, string) {
	t.Helper()
	c, _, err := certs.Certificates{}.Renew(time.Now(), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := c.Pair()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"token": []byte("secret\n"), "ca.crt": c.Bundle(), "metrics-token": []byte("to read metrics\n")} {
		if err := os.WriteFile(filepath.Join(files, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := fleet.NewServer(fleet.ServerOptions{
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}},
		Authenticate: func(_ context.Context, token string) (fleet.Identity, error) {
			if token != "secret" {
				return fleet.Identity{}, &fleet.RefusedError{Reason: fleet.ReasonToken, Message: token}
			}
			return fleet.Identity{Node: "n1", Pod: "blixt/agent"}, nil
		},
	})
	s.SetNodes([]fleet.Node{{Name: "n1"}})
	s.SetSettings("blue", fleet.Settings{SNAT: lb.PortRange{First: 11000, Last: 29999}})
	s.Lead(1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return s, "localhost:" + port
}

// fleetSnapshot is one frontend with backends 10.0.0.1, 10.0.0.2 and so on.
func fleetSnapshot(backends int) fleet.Snapshot {
	vip := netip.MustParseAddr("192.0.2.1")
	web := types.NamespacedName{Namespace: "default", Name: "web"}
	port := gateway.EndpointPort{Protocol: lb.TCP}
	for i := range backends {
		port.Endpoints = append(port.Endpoints, gateway.Endpoint{
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 8080), State: gateway.Ready,
		})
	}
	return fleet.Snapshot{
		Unresolved: gateway.Unresolved{
			Addresses: []lb.Address{{IP: vip, Exclusive: true}},
			Frontends: []gateway.Frontend{{
				Key: lb.Key{Addr: vip, Protocol: lb.TCP, Port: 80}, IdleTimeout: time.Minute, Refs: []gateway.Ref{{Service: web, Weight: 1}},
			}},
		},
		Endpoints: gateway.Endpoints{web: {Ports: []gateway.EndpointPort{port}}},
	}
}

func waitFor(t *testing.T, check func() string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		wrong := check()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(wrong)
		}
	}
}

func holds(s *fleet.Server, v lb.Version, backends int) func() string {
	return func() string {
		if all := s.Reports(); len(all) != 1 || all[0].Version != v || all[0].Backends != backends || all[0].Error != "" {
			return fmt.Sprintf("reports %+v, want version %+v with %d backends", all, v, backends)
		}
		return ""
	}
}

// The agent of a cluster: nobody, with no capability, confined by itself.
func TestAgent(t *testing.T) {
	umask.Open(t)
	maps := pins.Make(t, nobody)
	files := t.TempDir()
	s, operator := testFleet(t, files)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // of this thread, which starts the agent
		t.Fatal(err)
	}
	a := startAgent(t, maps, files, operator)
	waitFor(t, holds(s, s.Publish(fleetSnapshot(3)), 3))
	waitFor(t, holds(s, s.Publish(fleetSnapshot(5)), 5))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t65532\t65532\t65532\t65532"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if r, err := http.Get(a.metrics); err != nil || r.StatusCode != http.StatusUnauthorized {
		t.Errorf("metrics without a token: %v, %v", r, err)
	}
	for url, want := range map[string]string{a.url + "/readyz": "ok", a.url + "/healthz": "ok", a.metrics: "blixt_backends 5"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer to read metrics")
		r, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(string(text), want) {
			t.Errorf("%s: %s, %v\n%s", url, r.Status, err, text)
		}
	}
	expectStatus(t, maps)
	if err := a.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := a.Wait(); err != nil {
		t.Errorf("the agent ends with %v", err)
	}
	waitFor(t, func() string {
		if r := s.Reports(); r[0].Connected {
			return fmt.Sprintf("%+v", r)
		}
		return ""
	})
	if served := servedBackends(t, maps); len(served) != 5 {
		t.Errorf("without the agent the maps serve %v", served)
	}
}

// expectStatus runs blixt status beside an agent with five backends, with no
// more rights than the agent has, as kubectl exec does.
func expectStatus(t *testing.T, maps string) {
	t.Helper()
	c := exec.Command("/proc/self/exe", "status", "--maps", maps)
	c.Env = append(os.Environ(), asBlixt+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("blixt status: %v: %s", err, out)
	}
	var got []string
	for _, m := range regexp.MustCompile(`(10\.0\.0\.\d:8080) +serving +(\S+) +(\d+)\.\d%`).FindAllStringSubmatch(string(out), -1) {
		share, _ := strconv.Atoi(m[3])
		if share < 19 || share > 20 {
			t.Errorf("backend %s has %d%% of the ring, want a fifth", m[1], share)
		}
		got = append(got, m[1]+" "+m[2])
	}
	want := []string{"10.0.0.1:8080 -", "10.0.0.2:8080 -", "10.0.0.3:8080 -", "10.0.0.4:8080 -", "10.0.0.5:8080 -"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("backends and their weights, which maps do not tell (-want +got):\n%s\n%s", diff, out)
	}
}

// servedBackends returns those that get new flows, sorted.
func servedBackends(t *testing.T, maps string) (all []string) {
	t.Helper()
	m, err := datapath.Open(maps)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := writer.ReadStatus(m, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range s.Frontends {
		for _, b := range f.Backends {
			if b.RingShare > 0 {
				all = append(all, b.Address)
			}
		}
	}
	slices.Sort(all)
	return all
}

// Whenever an agent is killed, the maps serve some version as a whole, and the
// next agent goes on from there.
func TestKilledAgentLeavesWholeVersions(t *testing.T) {
	umask.Open(t)
	maps := pins.Make(t, nobody)
	files := t.TempDir()
	s, operator := testFleet(t, files)
	done, load := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(load)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				s.Publish(fleetSnapshot(1 + i%9))
			}
		}
	}()
	seen := map[int]bool{}
	for range 15 {
		a := startAgent(t, maps, files, operator)
		waitFor(t, func() string {
			if r := s.Reports(); len(r) != 1 || !r[0].Connected {
				return fmt.Sprintf("reports %+v", r)
			}
			return ""
		})
		time.Sleep(rand.N(60 * time.Millisecond))
		if err := a.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = a.Wait()
		served := servedBackends(t, maps)
		seen[len(served)] = true
		for i, addr := range served {
			if want := fmt.Sprintf("10.0.0.%d:8080", i+1); addr != want {
				t.Errorf("no version has backends %v", served)
				break
			}
		}
		waitFor(t, func() string {
			if r := s.Reports(); len(r) != 1 || r[0].Connected {
				return fmt.Sprintf("reports %+v", r)
			}
			return ""
		})
	}
	close(done)
	<-load
	if len(seen) < 3 {
		t.Errorf("killed in %v: the test sees too little", seen)
	}
	v := s.Publish(fleetSnapshot(10))
	startAgent(t, maps, files, operator)
	waitFor(t, holds(s, v, 10))
	if served := servedBackends(t, maps); len(served) != 10 {
		t.Errorf("the maps serve %v", served)
	}
}
