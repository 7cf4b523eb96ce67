// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// pattern is what a stream consists of, again and again. Its length has no factor in
// common with a packet's: bytes that are lost, or come twice, are noticed.
var pattern = func() []byte {
	one := make([]byte, 251)
	for i := range one {
		one[i] = byte(i)
	}
	return bytes.Repeat(one, 1+(1<<18)/len(one))
}()

// serveStream sends to every client without end.
func serveStream(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			for err := error(nil); err == nil; {
				_, err = conn.Write(pattern)
			}
			_ = conn.Close()
		}()
	}
}

// download is a stream that is being read.
type download struct {
	conn net.Conn
	got  atomic.Int64
	done chan error
}

func startDownload(addr string) (*download, error) {
	conn, err := usual.Dial("tcp", "", addr, askLimit)
	if err != nil {
		return nil, err
	}
	d := &download{conn: conn, done: make(chan error, 1)}
	go func() { d.done <- d.read() }()
	return d, nil
}

func (d *download) read() error {
	buffer := make([]byte, 1<<17)
	for at := 0; ; {
		if err := d.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		n, err := d.conn.Read(buffer)
		if err != nil {
			return fmt.Errorf("%s, after %d bytes: %w", d.conn.RemoteAddr(), d.got.Load(), err)
		}
		if !bytes.Equal(buffer[:n], pattern[at:at+n]) {
			return fmt.Errorf("%s, after %d bytes: other bytes than were sent", d.conn.RemoteAddr(), d.got.Load())
		}
		at = (at + n) % 251
		d.got.Add(int64(n))
	}
}

// end closes the connection, and returns an error if it was broken before.
func (d *download) end() error {
	_ = d.conn.(*net.TCPConn).SetLinger(0)
	_ = d.conn.Close()
	if err := <-d.done; !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// questions asks by datagrams, from one port, without waiting for answers.
type questions struct {
	conn                 net.Conn
	sent, answered, seen atomic.Int64
}

func startQuestions(t *testing.T, addr string, each time.Duration) *questions {
	t.Helper()
	port++
	conn, err := usual.Dial("udp", fmt.Sprintf(":%d", port), addr, askLimit)
	if err != nil {
		t.Fatal(err)
	}
	q := &questions{conn: conn}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for {
			if _, err := conn.Write([]byte("?")); errors.Is(err, net.ErrClosed) {
				return // any other error is of a datagram that the network has lost
			}
			q.sent.Add(1)
			time.Sleep(each)
		}
	}()
	host, _, _ := net.SplitHostPort(addr)
	go func() {
		buffer := make([]byte, 100)
		for {
			n, err := conn.Read(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			var a answer
			if _, e := fmt.Sscan(string(buffer[:n]), &a.node, &a.sees); err != nil || e != nil {
				continue
			}
			q.answered.Add(1)
			if a.sees == usual.ip(host) {
				q.seen.Add(1)
			}
		}
	}()
	return q
}

// testCutOff cuts off a node that clients came in by, and leads the addresses to
// another: that one knows none of the connections, and all of them go on.
func testCutOff(t *testing.T) {
	lost, next := c.Nodes[0], c.Nodes[1]
	applyUntilEnd(t, "survivor.yaml", "AWAY", lost.Name)
	awaitPods(t, "default")
	applyUntilEnd(t, "seen.yaml", "NAME", "survivor")
	vips := awaitProgrammed(t, "survivor")
	awaitCondition(t, gatewayCondition(t, "survivor", gateway.GatewayConditionClientAddressPreserved), "True Preserved")
	t.Run("clients that ask", func(t *testing.T) { testCutOffQuestions(t, vips, lost, next) })
	awaitCondition(t, gatewayCondition(t, "survivor", gateway.GatewayConditionClientAddressPreserved), "True Preserved")
	t.Run("clients that receive", func(t *testing.T) { testCutOffDownloads(t, vips, lost, next) })
}

// unplug cuts off a node until the test ends.
func unplug(t *testing.T, m *cluster.Machine) {
	t.Helper()
	if err := c.Unplug(m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Plug(m); err != nil {
			t.Error(err)
		}
		if _, err := c.Kubectl(context.Background(), "wait", "--for=condition=Ready", "--timeout=60s", "node/"+m.Name); err != nil {
			t.Error(err)
		}
	})
}

// testCutOffDownloads leads the addresses elsewhere a second after the node is cut off:
// all acknowledgements are lost by then, and clients that only receive send nothing
// unless something arrives.
func testCutOffDownloads(t *testing.T, vips []string, lost, next *cluster.Machine) {
	routeAddresses(t, vips, lost)
	var downloads []*download
	for _, vip := range vips {
		for range 10 {
			d, err := startDownload(net.JoinHostPort(vip, "8082"))
			if err != nil {
				t.Fatal(err)
			}
			downloads = append(downloads, d)
		}
	}
	await := func(when string) (total int64) {
		t.Helper()
		got := map[*download]int64{}
		for _, d := range downloads {
			got[d] = d.got.Load()
			total += got[d]
		}
		kube.Wait(t, patience, "downloads that go on "+when, len(downloads), func() (n int, _ error) {
			for _, d := range downloads {
				if d.got.Load() > got[d]+1<<20 {
					n++
				}
			}
			return n, nil
		})
		return total
	}
	await("before")
	unplug(t, lost)
	time.Sleep(time.Second)
	routeAddresses(t, vips, next)
	before := await("after")
	total, broken := int64(0), 0
	for _, d := range downloads {
		total += d.got.Load()
		if err := d.end(); err != nil {
			broken++
			t.Error(err)
		}
	}
	t.Logf("%d of %d connections broken, %d MB before, %d MB after", broken, len(downloads), before>>20, (total-before)>>20)
}

// testCutOffQuestions leads the addresses elsewhere a second after the node is cut off,
// as long as it may take somebody to notice.
func testCutOffQuestions(t *testing.T, vips []string, lost, next *cluster.Machine) {
	routeAddresses(t, vips, lost)
	l := &load{stop: make(chan struct{})}
	t.Cleanup(l.end)
	var asked []*questions
	for _, vip := range vips {
		for i := range 10 {
			conn, err := usual.Dial("tcp", "", net.JoinHostPort(vip, "8081"), askLimit)
			if err != nil {
				t.Fatal(err)
			}
			l.start(conn, fmt.Sprintf("connection %d to %s", i, vip))
		}
		asked = append(asked, startQuestions(t, net.JoinHostPort(vip, "80"), time.Second/35))
	}
	await := func(when string) {
		t.Helper()
		before := map[*questions]int64{}
		for _, q := range asked {
			before[q] = q.seen.Load()
		}
		kube.Wait(t, patience, "whether datagrams are answered "+when, true, func() (bool, error) {
			on := true
			for _, q := range asked {
				on = on && q.seen.Load() >= before[q]+70
			}
			return on, nil
		})
	}
	await("before")
	l.during(t, func() {
		unplug(t, lost)
		time.Sleep(time.Second)
		routeAddresses(t, vips, next)
	})
	await("after")
	for _, q := range asked {
		sent, answered, seen := q.sent.Load(), q.answered.Load(), q.seen.Load()
		t.Logf("datagrams to %s: %d sent, %d answered, %d of a server that saw the client", q.conn.RemoteAddr(), sent, answered, seen)
		if seen != answered {
			t.Errorf("%d of %d datagrams to %s were seen from another address", answered-seen, answered, q.conn.RemoteAddr())
		}
	}
}
