// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
)

// flowTable creates a table of flows of the contract, with its own size if n is 0.
func flowTable(t *testing.T, name string, n uint32) *ebpf.Map {
	t.Helper()
	spec, err := LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	if n > 0 {
		spec.Maps[name].MaxEntries = n
	}
	m, err := ebpf.NewMap(spec.Maps[name])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// fill inserts n entries, as two CPUs do.
func fill(t *testing.T, m *ebpf.Map, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for first := range 2 {
		wg.Go(func() {
			for i := first; i < n; i += 2 {
				if err := m.Put(numbered(i), BlixtFlow{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func numbered(i int) (key BlixtFlowKey) {
	binary.NativeEndian.PutUint32(key.Src.Bytes[:], uint32(i))
	return key
}

// All UDP flows that the size promises fit into the table, although it is an
// LRU table.
func TestUDPTableKeepsAllItsFlows(t *testing.T) {
	const flows = 65536
	m := flowTable(t, BlixtMapUdpFlows, FlowTables(flows)[BlixtMapUdpFlows])
	fill(t, m, 2*flows)
	for i := range 2 * flows {
		var f BlixtFlow
		if err := m.Lookup(numbered(i), &f); err != nil {
			t.Fatalf("entry %d of %d: %v", i, 2*flows, err)
		}
	}
}

// The sizes that are compiled are those that follow from the number of flows.
func TestFlowTablesAreAsCompiled(t *testing.T) {
	spec, err := LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range FlowTables(uint32(BlixtLimitMAX_FLOWS)) {
		if got := spec.Maps[name].MaxEntries; got != want {
			t.Errorf("%s has %d entries, want %d", name, got, want)
		}
	}
}

//go:embed limits.h
var limits string // the test may run where its source is not

// limits.h tells what memory the tables of flows take, as the kernel says.
func TestMemoryOfFlowTables(t *testing.T) {
	for limit, table := range map[string]string{
		"MAX_FLOWS": BlixtMapFlows, "MAX_NEW_FLOWS": BlixtMapNewFlows, "MAX_UDP_FLOWS": BlixtMapUdpFlows,
	} {
		said := regexp.MustCompile(`(\d+) MB[^\n]*\*/\n\t` + limit + ` =`).FindStringSubmatch(limits)
		if said == nil {
			t.Fatalf("limits.h says nothing of the memory of %s", limit)
		}
		want, err := strconv.Atoi(said[1])
		if err != nil {
			t.Fatal(err)
		}
		m := flowTable(t, table, 0)
		fill(t, m, int(m.MaxEntries()))
		if got := (memoryOf(t, m) + 500_000) / 1_000_000; got != want {
			t.Errorf("%s takes %d MB when full, limits.h says %d", table, got, want)
		}
	}
}

func memoryOf(t *testing.T, m *ebpf.Map) int {
	t.Helper()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", m.FD()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(info), "memlock:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
