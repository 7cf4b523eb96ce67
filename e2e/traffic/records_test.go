// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// records are what `blixt flows` prints.
type records []observe.Record

// flows runs blixt flows.
func flows(w *labtest.World, args ...string) (all records) {
	w.Helper()
	out, err := w.Blixt.Run(append([]string{"flows", "-o", "json"}, args...)...)
	w.Check(err)
	for line := range strings.Lines(out) {
		var r observe.Record
		w.Check(json.Unmarshal([]byte(line), &r))
		all = append(all, r)
	}
	return all
}

// awaitFlow runs blixt flows until it prints exactly one record.
func awaitFlow(w *labtest.World, args ...string) (one observe.Record) {
	w.Helper()
	w.Check(lab.Eventually(2*labtest.Patience, func() error {
		all := flows(w, args...)
		if len(all) != 1 {
			return fmt.Errorf("blixt flows %s prints %+v", strings.Join(args, " "), all)
		}
		one = all[0]
		return nil
	}))
	return one
}

// TestRecords_TellWhoTalked has connections that end, that last and that fail, and asks who
// was behind the addresses and ports that the backends have seen.
func TestRecords_TellWhoTalked(t *testing.T) {
	w := labtest.New(t, "records", 2, 1)
	config := labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...), toPods: lab.On("balancer", lab.Endpoints(8080, w.Pods...)), 9000: lab.Endpoints(9999, w.Backends...),
	})
	b, err := w.Standard.Blixt(w.Balancer, labtest.Binary, config)
	w.Check(err)
	file := filepath.Join(t.TempDir(), "flows.json")
	b.Args = append(b.Args, "--flow-records", "--flow-log", file)
	w.Blixt, w.Config = b, config
	w.Check(b.Start())

	for _, family := range []int{4, 6} {
		// A connection of the client's that it ends. The backend knows whom it has seen.
		began := time.Now()
		ended := w.Dial(w.Client, "tcp", labtest.VIP(family, toRemote))
		seen := w.Ask(ended, "who am I?").Client
		w.Check(ended.(*net.TCPConn).CloseWrite())
		_, err := io.Copy(io.Discard, ended) // until the server has closed, too
		w.Check(err)
		w.Check(ended.Close())
		// Others that last: to a pod of this host, which sees the client, and by UDP.
		lasts := w.Dial(w.Client, "tcp", labtest.VIP(family, toPods))
		w.Ask(lasts, "are you there?")
		datagrams := w.Dial(w.Client, "udp", labtest.VIP(family, toRemote))
		seenUDP := w.Ask(datagrams, "and you?").Client

		r := awaitFlow(w, seen, "--at", began.Format("15:04"), "--snat", seen)
		backend := ""
		if r.Backend != nil {
			backend = r.Backend.String()
		}
		if r.Event != observe.EventEnd || r.Reason != "fin" || r.EndedBy != "client" || r.Protocol != "tcp" ||
			r.Client.String() != ended.LocalAddr().String() || r.Server.String() != labtest.VIP(family, toRemote) ||
			r.SNAT == nil || r.SNAT.String() != seen || !slices.Contains(addressesOf(w.Backends, 8080), backend) ||
			!strings.HasPrefix(r.Gateway, "default/") || !strings.HasPrefix(r.Route, "TCPRoute/default/") || !strings.HasPrefix(r.Service, "default/") || r.Listener == "" {
			t.Errorf("the connection that ended: %+v, to %s, seen as %s", r, backend, seen)
		}
		// The client's SYN, ACK, question and FIN at least, and what the server answers to them.
		if r.In == nil || r.Out == nil || r.In.Packets < 4 || r.Out.Packets < 3 || r.In.Bytes < 40*r.In.Packets || r.Connect <= 0 || r.RTT <= 0 || r.Duration <= 0 ||
			r.Start.Before(began.Add(-time.Second)) || r.Start.After(time.Now().Add(time.Second)) {
			t.Errorf("the connection that ended has %+v in, %+v out, from %s: %+v", r.In, r.Out, r.Start, r)
		}
		r = awaitFlow(w, "--client", lasts.LocalAddr().String())
		if r.Event != observe.EventOpen || r.SNAT != nil || r.Backend == nil || r.In == nil || r.In.Packets < 3 {
			t.Errorf("the connection that lasts: %+v", r)
		}
		r = awaitFlow(w, "--snat", seenUDP, "--protocol", "udp")
		if r.Event != observe.EventOpen || r.Client.String() != datagrams.LocalAddr().String() || r.Connect <= 0 || r.Out == nil || r.Out.Packets != 1 {
			t.Errorf("the datagrams: %+v", r)
		}
		w.Check(lasts.Close())

		// Nobody listens there: the backend refuses.
		local := labtest.At([]string{lab.Client4, lab.Client6}[family/6], int(labtest.NewPort()))
		if c, err := w.Client.Dial("tcp", local, labtest.VIP(family, 9000), labtest.Patience); err == nil {
			c.Close()
			t.Error("a port without a listener is connected")
		}
		r = awaitFlow(w, "--client", local)
		if r.Reason != "refused" || r.EndedBy != "backend" {
			t.Errorf("the connection that was refused: %+v", r)
		}
		// No listener of the Gateway: the packet is rejected, and its sample says which.
		unserved := labtest.At([]string{lab.Client4, lab.Client6}[family/6], int(labtest.NewPort()))
		if c, err := w.Client.Dial("tcp", unserved, labtest.VIP(family, 7), labtest.Patience); err == nil {
			c.Close()
			t.Error("a port without a frontend is connected")
		}
		r = awaitFlow(w, "--client", unserved, "--reason", "reject_*")
		if r.Event != observe.EventRejected || r.Reason != "reject_unserved" || r.Interface != "eth0" || !strings.HasPrefix(r.Packet, map[int]string{4: "45", 6: "60"}[family]) {
			t.Errorf("the packet that was rejected: %+v", r)
		}
	}
	out, err := w.Blixt.Run("drops", "reject_unserved")
	w.Check(err)
	if !strings.Contains(out, "reject_unserved: 2\n") || !strings.Contains(out, "Cure:") || strings.Count(out, " reject_unserved tcp ") != 2 {
		t.Errorf("blixt drops says\n%s", out)
	}
	checkLines(w, file)
}

func addressesOf(nodes []*lab.Node, port int) (all []string) {
	for _, e := range lab.Endpoints(port, nodes...) {
		all = append(all, e.Addr)
	}
	return all
}

// checkLines compares the lines of the file with what blixt flows tells.
func checkLines(w *labtest.World, file string) {
	w.Helper()
	info, err := os.Stat(file)
	w.Check(err)
	if info.Mode().Perm() != 0o600 {
		w.Errorf("the file has mode %v", info.Mode())
	}
	told := flows(w, "--open=false", "--last", "0")
	w.Check(lab.Eventually(labtest.Patience, func() error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		seqs := map[uint64]bool{}
		for line := range strings.Lines(string(text)) {
			var r observe.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return err
			}
			seqs[r.Seq] = true
		}
		for _, r := range told {
			if !seqs[r.Seq] {
				return fmt.Errorf("the file has no line of %+v", r)
			}
		}
		return nil
	}))
}
