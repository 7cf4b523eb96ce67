// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package upgrade

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/bpfman"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// The source ports that programs begin with, unless others are chosen, and those
// that they have when they are alone.
var (
	ends  = lb.DefaultSNATPorts.Ends()
	alone = []lb.PortRange{lb.DefaultSNATPorts.Alone(ends[0]), lb.DefaultSNATPorts.Alone(ends[1])}
)

// handover is the part of the status that is about an upgrade.
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

func readHandover(m *labtest.Managed) (h handover) {
	m.Helper()
	out, err := m.Blixt.Run("status", "-o", "json")
	m.Check(err)
	m.Check(json.Unmarshal([]byte(out), &h))
	return h
}

// setVersion has the next start be that of another version: another size of the flow
// table is another object.
func setVersion(m *labtest.Managed, flows int, args ...string) {
	i := slices.Index(m.Blixt.Args, "--flows")
	m.Blixt.Args = append(slices.Clone(m.Blixt.Args[:i+2]), append([]string{"--loader", "bpfman", "--interface", "eth0", "--interface", "eth1"}, args...)...)
	m.Blixt.Args[i+1] = strconv.Itoa(flows)
}

// upgrade kills Blixt and starts another version, and returns when the previous program
// drains.
func upgrade(m *labtest.Managed, flows int, args ...string) {
	m.Helper()
	m.Check(m.Blixt.Kill())
	setVersion(m, flows, args...)
	m.Check(m.Blixt.AwaitLog(") drains: it serves the flows that it has", labtest.Patience, m.Blixt.Start))
}

// listPrograms returns the programs that bpfman lists.
func listPrograms(m *labtest.Managed) (ids []string) {
	m.Helper()
	list, err := m.Bpfman.Run("list", "programs")
	m.Check(err)
	for _, line := range strings.Split(list, "\n") {
		if words := strings.Fields(line); slices.Contains(words, "tcx") {
			ids = append(ids, words[0])
		}
	}
	return ids
}

// awaitEnd waits until no previous program is left, and returns what became of it.
func awaitEnd(m *labtest.Managed, program uint32) bpfman.Ended {
	m.Helper()
	var h handover
	m.Check(lab.Eventually(30*time.Second, func() error {
		if h = readHandover(m); len(h.Older) > 0 || h.Ended == nil || h.Ended.Program != program {
			return fmt.Errorf("program %d is not unloaded: %+v, %+v", program, h.Older, h.Ended)
		}
		return nil
	}))
	return *h.Ended
}

// mapsDir returns where the maps of a program are pinned.
func mapsDir(m *labtest.Managed, program uint32) string {
	return m.Bpfman.Path(fmt.Sprintf("/run/bpfman/fs/maps/%d", program))
}

// readCounter reads a counter of a program of any version.
func readCounter(m *labtest.Managed, program uint32, name string) uint64 {
	m.Helper()
	tables, err := datapath.Open(mapsDir(m, program))
	m.Check(err)
	defer tables.Close()
	names, err := datapath.CounterNames()
	m.Check(err)
	values, err := tables.Counters()
	m.Check(err)
	return values[slices.Index(names, name)]
}

// expireUDP deletes the UDP flows of a program, which would last two minutes.
func expireUDP(m *labtest.Managed, program uint32) {
	m.Helper()
	tables, err := datapath.Open(mapsDir(m, program))
	m.Check(err)
	defer tables.Close()
	var keys []datapath.FlowKey
	m.Check(tables.EachFlow(func(entries []datapath.FlowEntry) bool {
		for _, e := range entries {
			if e.Key.Protocol == unix.IPPROTO_UDP {
				keys = append(keys, e.Key)
			}
		}
		return true
	}))
	for _, key := range keys {
		_, err := tables.DeleteFlow(key)
		m.Check(err)
	}
}
