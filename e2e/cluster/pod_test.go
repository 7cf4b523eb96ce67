// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// The test's own program is what runs in the pods.
var pods = map[string]func() error{"server": serve, "writer": write, "client": askAll, "trader": trade, "transfer": transfer, "web": web, "attempt": attempt}

// serve answers on TCP and UDP with the node's name and whom it sees. On another
// port it repeats what it hears, and on a third it sends without end.
func serve() error {
	node := os.Getenv("NODE")
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	echo, err := net.Listen("tcp", ":8081")
	if err != nil {
		return err
	}
	go serveEcho(echo)
	stream, err := net.Listen("tcp", ":8082")
	if err != nil {
		return err
	}
	go serveStream(stream)
	p, err := net.ListenPacket("udp", ":8080")
	if err != nil {
		return err
	}
	go func() {
		buffer := make([]byte, 1500)
		for {
			_, from, err := p.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = p.WriteTo(fmt.Appendf(nil, "%s %s\n", node, host(from)), from)
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go writeAnswer(c, fmt.Sprintf("%s %s\n", node, host(c.RemoteAddr())))
	}
}

// writeAnswer says it, and closes when the client has. Who closes first keeps the
// connection's ports for a minute, and a program that has just been loaded does
// not know which: a SYN that meets them is not answered before it is repeated.
func writeAnswer(c net.Conn, what string) {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, what)
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}

// askAll asks a server from a pod: its arguments are the network, the address,
// the port that the first question is to come from, and how many there are.
func askAll() error {
	network, addr := os.Args[2], os.Args[3]
	port, err := strconv.Atoi(os.Args[4])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Args[5])
	if err != nil {
		return err
	}
	for ; n > 0; n-- {
		a, err := ask(here{}, network, fmt.Sprintf(":%d", port), addr)
		if err != nil {
			return err
		}
		fmt.Println(a.node, a.sees)
		port++
	}
	os.Exit(0)
	return nil
}

// here is where this process runs.
type here struct{}

func (here) Dial(network, from, addr string, limit time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: limit}
	local, err := net.ResolveTCPAddr("tcp", from)
	if err != nil {
		return nil, err
	}
	d.LocalAddr = local
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{Port: local.Port}
	}
	return d.Dial(network, addr)
}

func host(a net.Addr) string {
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return err.Error()
	}
	return h
}

// write has a node serve its state, by maps alone, and is ready when it does.
func write() error {
	if err := unprivileged(); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join("/states", os.Getenv("NODE")))
	if err != nil {
		return err
	}
	var s lb.State
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	maps, err := datapath.Open("/maps")
	if err != nil {
		return err
	}
	if _, err := writer.New(maps, writer.Options{}).Apply(context.Background(), s); err != nil {
		return err
	}
	return serve()
}

func unprivileged() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65532\t65532\t65532\t65532"} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("not as it should be: no %q in\n%s", want, status)
		}
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err == nil {
		_ = m.Close()
		return fmt.Errorf("a process without privilege has made a map")
	}
	return nil
}
