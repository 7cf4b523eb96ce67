// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// The stack frames of functions that call each other may have 512 bytes
// together. Older kernels, such as 6.6, round each frame up to 32 bytes; newer
// ones to 16 if they have a JIT. So the kernel that runs this test may accept a
// program that older ones reject.
func TestStackFitsOlderKernels(t *testing.T) {
	const limit, granule = 512, 32
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(Object()))
	if err != nil {
		t.Fatal(err)
	}
	frames, calls, function := map[string]int{}, map[string]map[string]bool{}, ""
	for _, ins := range spec.Programs["blixt"].Instructions {
		if s := ins.Symbol(); s != "" && calls[s] == nil {
			function = s
			frames[s], calls[s] = granule, map[string]bool{}
		}
		below := 0
		switch {
		case ins.IsFunctionCall(), ins.IsLoadOfFunctionPointer(): // the latter: a callback of bpf_loop
			calls[function][ins.Reference()] = true
		case ins.Dst == asm.RFP, ins.Src == asm.RFP:
			below = -int(ins.Offset)
		case ins.OpCode == asm.Add.Op(asm.ImmSource) && ins.Constant >= -limit:
			below = -int(ins.Constant) // perhaps of a pointer into the frame
		}
		frames[function] = max(frames[function], (below+granule-1)/granule*granule)
	}
	if len(frames) < 10 {
		t.Fatalf("found only these functions in the program: %v", frames)
	}
	var deepest func(f string) (int, []string)
	deepest = func(f string) (most int, path []string) {
		for g := range calls[f] {
			if n, p := deepest(g); n > most {
				most, path = n, p
			}
		}
		return most + frames[f], append([]string{f}, path...)
	}
	depth, path := deepest("blixt")
	t.Logf("%d bytes of stack in %v", depth, path)
	if depth > limit {
		t.Errorf("calls %v use %d bytes of stack, want at most %d: frames are %v", path, depth, limit, frames)
	}
}
