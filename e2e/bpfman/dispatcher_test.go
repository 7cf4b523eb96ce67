// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package bpfman

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	pb "github.com/bpfman/bpfman/clients/gobpfman/v1"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// counterSource counts packets, and lets them pass.
const counterSource = `
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static int count(int verdict)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&seen, &zero);

	if (n)
		__sync_fetch_and_add(n, 1);
	return verdict;
}

SEC("classifier") int skb_counter(struct __sk_buff *ctx) { return count(-1); }
SEC("xdp") int xdp_counter(struct xdp_md *ctx) { return count(XDP_PASS); }
`

// needsExtensions skips a test where bpfman's dispatcher cannot work: it replaces
// functions by programs, which kernels in lockdown refuse.
func needsExtensions(t *testing.T) {
	t.Helper()
	err := features.HaveProgramType(ebpf.Extension)
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EPERM) {
		t.Skipf("kernel lacks: programs of type EXT, by which bpfman attaches XDP and TC: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestBpfmanAttachesByEveryHook shows on which kernels bpfman offers more than TCX,
// which needs no dispatcher.
func TestBpfmanAttachesByEveryHook(t *testing.T) {
	n := newNode(t, "hooks")
	n.object = filepath.Join(n.Dir(), "counter.o")
	source := filepath.Join(n.Dir(), "counter.c")
	n.Check(os.WriteFile(source, []byte(counterSource), 0o644))
	out, err := exec.Command("clang-19", "-target", "bpfel", "-O2", "-g", "-nostdlibinc", "-I", "../../bpf/headers", "-c", source, "-o", n.object).CombinedOutput()
	if err != nil {
		t.Fatalf("compile (apt-get install clang-19): %v\n%s", err, out)
	}
	netns := n.Balancer.Path()
	for _, hook := range []struct {
		name, program string
		kind          pb.BpfmanProgramType
		attach        *pb.AttachInfo
		dispatched    bool
	}{
		{"tcx", "skb_counter", pb.BpfmanProgramType_TCX, &pb.AttachInfo{Info: &pb.AttachInfo_TcxAttachInfo{
			TcxAttachInfo: &pb.TCXAttachInfo{Iface: "eth0", Direction: "ingress", Priority: 50, Netns: &netns}}}, false},
		{"tc", "skb_counter", pb.BpfmanProgramType_TC, &pb.AttachInfo{Info: &pb.AttachInfo_TcAttachInfo{
			TcAttachInfo: &pb.TCAttachInfo{Iface: "eth0", Direction: "ingress", Priority: 50, Netns: &netns}}}, true},
		{"xdp", "xdp_counter", pb.BpfmanProgramType_XDP, &pb.AttachInfo{Info: &pb.AttachInfo_XdpAttachInfo{
			XdpAttachInfo: &pb.XDPAttachInfo{Iface: "eth0", Priority: 50, Netns: &netns}}}, true},
	} {
		t.Run(hook.name, func(t *testing.T) {
			if hook.dispatched {
				needsExtensions(t)
			}
			n := &node{Managed: &labtest.Managed{World: n.In(t), Bpfman: n.Bpfman}, loader: n.loader, object: n.object}
			loaded := n.loadProgram(hook.program, hook.kind)
			_, err := n.loader.Attach(t.Context(), &pb.AttachRequest{Id: loaded.KernelInfo.Id, Attach: hook.attach})
			n.Check(err)
			n.counts(filepath.Join(n.Bpfman.Path(loaded.Info.MapPinPath), "seen"))
			n.unload(loaded)
			n.CheckNothingLeft()
		})
	}
}

// counts sends datagrams to the balancer, and fails the test unless the one value of a
// pinned array rises by as many.
func (n *node) counts(pin string) {
	n.Helper()
	m, err := ebpf.LoadPinnedMap(pin, nil)
	n.Check(err)
	defer m.Close()
	var before, after uint64
	n.Check(m.Lookup(uint32(0), &before))
	const datagrams = 10
	c, err := n.Client.ListenPacket("udp4", ":0")
	n.Check(err)
	defer c.Close()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(labtest.At(lab.Outside4, 9)))
	for range datagrams {
		_, err := c.WriteTo([]byte("x"), to)
		n.Check(err)
	}
	n.Check(lab.Eventually(labtest.Patience, func() error {
		if err := m.Lookup(uint32(0), &after); err != nil || after-before >= datagrams {
			return err
		}
		return fmt.Errorf("%d packets counted, want %d", after-before, datagrams)
	}))
}
