// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/e2e/bench/report"
)

// Memory returns what memory a balancer takes, with tables for two numbers of flows.
func Memory(o Options) (samples []report.Samples, err error) {
	for _, flows := range []int{usual * 64, usual * 1024} {
		r, err := newRig("blixt-bench-memory")
		if err != nil {
			return nil, err
		}
		process, maps, err := r.memory(o.Binary, flows)
		if err := errors.Join(err, r.close()); err != nil {
			return nil, err
		}
		name := "tables for " + flowsName(flows)
		samples = append(samples,
			report.Samples{Part: report.Memory, Name: name, Unit: "process-MB", Rounds: []float64{process}},
			report.Samples{Part: report.Memory, Name: name, Unit: "maps-MB", Rounds: []float64{maps}})
	}
	return samples, nil
}

// memory returns the MB of the process and of the kernel's maps.
func (r *rig) memory(binary string, flows int) (process, maps float64, err error) {
	if err := r.startBlixt(binary, flows); err != nil {
		return 0, 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.blixt.Pid()))
	if err != nil {
		return 0, 0, err
	}
	at := bytes.Index(text, []byte("VmRSS:"))
	if _, err := fmt.Fscan(strings.NewReader(string(text[at+len("VmRSS:"):])), &process); err != nil {
		return 0, 0, fmt.Errorf("read memory of process: %w", err)
	}
	status, err := r.blixt.Status()
	if err != nil {
		return 0, 0, err
	}
	var ids []uint32 // a map may have two names
	for _, id := range status.Program.Maps {
		if slices.Contains(ids, id) {
			continue
		}
		ids = append(ids, id)
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			return 0, 0, err
		}
		info, err := m.Info()
		if err := errors.Join(err, m.Close()); err != nil {
			return 0, 0, err
		}
		if bytes, is := info.Memlock(); is {
			maps += float64(bytes)
		}
	}
	return process / 1e3, maps / 1e6, nil
}
