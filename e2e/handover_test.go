// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/bpfman"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// The halves of the source ports, unless others are chosen.
var halves = []lb.PortRange{{First: 11000, Last: 20499}, {First: 20500, Last: 29999}}

// handover is what status says of an upgrade.
type handover struct {
	lab.Status
	Older []struct {
		Program uint32    `json:"program"`
		Digest  string    `json:"digest"`
		Flows   *uint64   `json:"flows"`
		Since   time.Time `json:"since"`
		Until   time.Time `json:"until"`
	} `json:"older"`
	Ended *bpfman.Ended `json:"ended"`
}

func (m *managed) handover() (h handover) {
	m.Helper()
	out, err := m.blixt.Run("status", "-o", "json")
	m.check(err)
	m.check(json.Unmarshal([]byte(out), &h))
	return h
}

// version makes the next start that of another version: another number of
// flows is another object.
func (m *managed) version(flows int, args ...string) {
	i := slices.Index(m.blixt.Args, "--flows")
	m.blixt.Args = append(slices.Clone(m.blixt.Args[:i+2]), append([]string{"--loader", "bpfman", "--interface", "eth0", "--interface", "eth1"}, args...)...)
	m.blixt.Args[i+1] = strconv.Itoa(flows)
}

// upgrade kills Blixt and starts another version, and returns when the program
// of before drains.
func (m *managed) upgrade(flows int, args ...string) {
	m.Helper()
	m.check(m.blixt.Kill())
	m.version(flows, args...)
	m.check(m.blixt.AwaitLog(") drains: it serves the flows that it has", patience, m.blixt.Start))
}

// chain fails the test unless exactly these programs are at every hook, in
// this order.
func (m *managed) chain(what string, ids ...uint32) {
	m.Helper()
	var want []ebpf.ProgramID
	for range 2 { // ingress and egress
		for _, id := range ids {
			want = append(want, ebpf.ProgramID(id))
		}
	}
	for _, dev := range []string{"eth0", "eth1"} {
		// A link that bpfman has closed ends a moment later.
		m.check(lab.Eventually(patience, func() error {
			if got := m.programs(dev); !slices.Equal(got, want) {
				return fmt.Errorf("%s: %s has programs %v, want %v", what, dev, got, want)
			}
			return nil
		}))
	}
	list, err := m.bpfman.Run("list", "links")
	m.check(err)
	if n := strings.Count(list, "gress"); n != 4*len(ids) {
		m.Errorf("%s: bpfman lists %d links, want %d:\n%s", what, n, 4*len(ids), list)
	}
}

// listed returns the programs that bpfman lists.
func (m *managed) listed() (ids []string) {
	m.Helper()
	list, err := m.bpfman.Run("list", "programs")
	m.check(err)
	for _, line := range strings.Split(list, "\n") {
		if words := strings.Fields(line); slices.Contains(words, "tcx") {
			ids = append(ids, words[0])
		}
	}
	return ids
}

// ended waits until no older program is left, and returns what became of it.
func (m *managed) ended(program uint32) bpfman.Ended {
	m.Helper()
	var h handover
	m.check(lab.Eventually(30*time.Second, func() error {
		if h = m.handover(); len(h.Older) > 0 || h.Ended == nil || h.Ended.Program != program {
			return fmt.Errorf("program %d is not unloaded: %+v, %+v", program, h.Older, h.Ended)
		}
		return nil
	}))
	return *h.Ended
}

// maps returns where the maps of a program are pinned.
func (m *managed) maps(program uint32) string {
	return m.bpfman.Path(fmt.Sprintf("/run/bpfman/fs/maps/%d", program))
}

// counter reads a counter of a program, whichever version it is of.
func (m *managed) counter(program uint32, name string) uint64 {
	m.Helper()
	tables, err := datapath.Open(m.maps(program))
	m.check(err)
	defer tables.Close()
	names, err := datapath.CounterNames()
	m.check(err)
	values, err := tables.Counters()
	m.check(err)
	return values[slices.Index(names, name)]
}

// expire ends the UDP flows of a program, which last two minutes else.
func (m *managed) expire(program uint32) {
	m.Helper()
	tables, err := datapath.Open(m.maps(program))
	m.check(err)
	defer tables.Close()
	var keys []datapath.FlowKey
	m.check(tables.EachFlow(func(entries []datapath.FlowEntry) bool {
		for _, e := range entries {
			if e.Key.Protocol == unix.IPPROTO_UDP {
				keys = append(keys, e.Key)
			}
		}
		return true
	}))
	for _, key := range keys {
		m.check(tables.DeleteFlow(key))
	}
}
