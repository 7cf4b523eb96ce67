// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Need is a feature of the kernel that an object uses.
type Need struct {
	Feature string `json:"feature"`
	// Kernel is the first version that has it.
	Kernel string `json:"kernel"`
	// Optional: the object loads without the feature, with the consequence in Without.
	Optional bool   `json:"optional,omitempty"`
	Without  string `json:"without,omitempty"`
}

// helperKernels are the first kernels that have a helper, for helpers newer than 4.18:
// that kernel has all others that a classifier calls.
var helperKernels = map[asm.BuiltinFunc]string{
	asm.FnSpinLock:            "5.1",
	asm.FnSkLookupTcp:         "4.20",
	asm.FnSkLookupUdp:         "4.20",
	asm.FnSkRelease:           "4.20",
	asm.FnSkcLookupTcp:        "5.2",
	asm.FnSkAssign:            "5.7",
	asm.FnCsumLevel:           "5.8",
	asm.FnRingbufOutput:       "5.8",
	asm.FnRingbufReserve:      "5.8",
	asm.FnKtimeGetBootNs:      "5.8",
	asm.FnRedirectNeigh:       "5.10",
	asm.FnRedirectPeer:        "5.10",
	asm.FnKtimeGetCoarseNs:    "5.11",
	asm.FnCheckMtu:            "5.12",
	asm.FnForEachMapElem:      "5.13",
	asm.FnTimerInit:           "5.15",
	asm.FnLoop:                "5.17",
	asm.FnMapLookupPercpuElem: "5.19",
	asm.FnKtimeGetTaiNs:       "6.1",
	asm.FnSkbSetTstamp:        "5.18",
}

// needs returns the needs of the instructions, and of attaching the program: the oldest
// kernel first, optional needs last.
func needs(spec *ebpf.CollectionSpec) []Need {
	found := map[string]Need{}
	add := func(n Need) { found[n.Feature] = n }
	add(Need{Feature: "TCX", Kernel: "6.6", Optional: true, Without: "attach by TC, which bpfman can"})
	add(Need{Feature: "maps written without capabilities", Kernel: "5.19", Optional: true, Without: "the writer needs CAP_BPF"})
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			if ins.OpCode.Class() == asm.Jump32Class {
				add(Need{Feature: "32-bit jumps (-mcpu=v3)", Kernel: "5.1"})
			}
			if ins.OpCode.JumpOp() == asm.Call && ins.Src == asm.PseudoCall {
				add(Need{Feature: "functions", Kernel: "4.16"})
			}
			// Global functions, which the verifier checks separately, follow the
			// program's own function. To the verifier their arguments are plain
			// memory, which it accepts as a map's key since 6.2; 6.1 rejects it.
			if fn := btf.FuncMetadata(ins); i > 0 && fn != nil && fn.Linkage == btf.GlobalFunc {
				add(Need{Feature: "map keys given to global functions", Kernel: "6.2"})
			}
			// The flag is computed at run time; that it is possible shows in the
			// source line that the object carries.
			if line := ins.Source(); line != nil && strings.Contains(line.String(), "BPF_FIB_LOOKUP_SRC") {
				add(Need{Feature: "SNAT source chosen by the kernel", Kernel: "6.7", Optional: true, Without: "the agent names the node's address"})
			}
			if !ins.IsBuiltinCall() {
				continue
			}
			helper := asm.BuiltinFunc(ins.Constant)
			if version, ok := helperKernels[helper]; ok {
				add(Need{Feature: "helper " + helperName(helper), Kernel: version})
			}
			if helper == asm.FnFibLookup {
				add(Need{Feature: "helper bpf_fib_lookup", Kernel: "4.18"})
			}
		}
	}
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".rodata") {
			add(Need{Feature: "constants (.rodata)", Kernel: "5.2"})
		}
		if m.Flags&mmapable != 0 {
			add(Need{Feature: "arrays mapped into memory", Kernel: "5.5"})
		}
	}
	all := make([]Need, 0, len(found))
	for _, n := range found {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Need) int {
		if a.Optional != b.Optional {
			if a.Optional {
				return 1
			}
			return -1
		}
		return cmp.Or(compareKernels(a.Kernel, b.Kernel), cmp.Compare(a.Feature, b.Feature))
	})
	return all
}

// mmapable is BPF_F_MMAPABLE.
const mmapable = 1 << 10

// helperName turns FnKtimeGetNs into bpf_ktime_get_ns.
func helperName(f asm.BuiltinFunc) string {
	var b strings.Builder
	b.WriteString("bpf")
	for _, r := range strings.TrimPrefix(f.String(), "Fn") {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Kernel returns the oldest kernel that the object can be loaded by.
func (o *Object) Kernel() string {
	least := "4.18"
	for _, n := range o.Needs {
		if !n.Optional && compareKernels(n.Kernel, least) > 0 {
			least = n.Kernel
		}
	}
	return least
}

// compareKernels compares versions such as 5.9 and 5.10.
func compareKernels(a, b string) int {
	parse := func(v string) (numbers []int) {
		for part := range strings.SplitSeq(v, ".") {
			n, _ := strconv.Atoi(part)
			numbers = append(numbers, n)
		}
		return numbers
	}
	return slices.Compare(parse(a), parse(b))
}
