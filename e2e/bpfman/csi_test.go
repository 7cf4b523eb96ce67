// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package bpfman

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pb "github.com/bpfman/bpfman/clients/gobpfman/v1"
	"github.com/cilium/ebpf"
	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// application is what a ClusterBpfApplication is called, by which bpfman's
// CSI driver finds its program.
const application = "blixt-test"

// node is bpfman on a node of a cluster, with its clients there: its agent and the
// kubelet.
type node struct {
	*labtest.Managed
	loader pb.BpfmanClient
	csi    csi.NodeClient
	object string // the file that bpfman reads
	maps   []string
}

func newNode(t *testing.T, name string) *node {
	t.Helper()
	n := &node{Managed: labtest.NewManaged(t, name, 2)}
	conn, err := n.Bpfman.Dial(lab.BpfmanSocket)
	n.Check(err)
	n.loader = pb.NewBpfmanClient(conn)
	conn, err = n.Bpfman.Dial(lab.CSISocket)
	n.Check(err)
	n.csi = csi.NewNodeClient(conn)
	object, err := bytecode.ParseObject(bpf.Object())
	n.Check(err)
	object, err = object.Resize(bytecode.Sizes{Flows: 65536})
	n.Check(err)
	for _, m := range object.Maps {
		n.maps = append(n.maps, m.Name)
	}
	n.object = filepath.Join(n.Dir(), "blixt.o")
	n.Check(os.WriteFile(n.object, object.Bytes, 0o644))
	return n
}

// loadProgram loads a program of the object under the application's name.
func (n *node) loadProgram(name string, kind pb.BpfmanProgramType) *pb.LoadResponseInfo {
	n.Helper()
	r, err := n.loader.Load(n.Context(), &pb.LoadRequest{
		Bytecode: &pb.BytecodeLocation{Location: &pb.BytecodeLocation_File{File: n.object}},
		Metadata: map[string]string{"bpfman.io/ProgramName": application},
		Info:     []*pb.LoadInfo{{Name: name, ProgramType: kind}},
	})
	n.Check(err)
	return r.Programs[0]
}

// load loads and attaches, as bpfman's agent does for an application.
func (n *node) load() *pb.LoadResponseInfo {
	n.Helper()
	loaded, netns := n.loadProgram(bpf.BlixtProgBlixt, pb.BpfmanProgramType_TCX), n.Balancer.Path()
	for _, dev := range []string{"eth0", "eth1"} {
		for _, direction := range []string{"egress", "ingress"} {
			_, err := n.loader.Attach(n.Context(), &pb.AttachRequest{Id: loaded.KernelInfo.Id, Attach: &pb.AttachInfo{
				Info: &pb.AttachInfo_TcxAttachInfo{TcxAttachInfo: &pb.TCXAttachInfo{Iface: dev, Direction: direction, Priority: 50, Netns: &netns}},
			}})
			n.Check(err)
		}
	}
	return loaded
}

func (n *node) unload(p *pb.LoadResponseInfo) {
	n.Helper()
	_, err := n.loader.Unload(n.Context(), &pb.UnloadRequest{Id: p.KernelInfo.Id})
	n.Check(err)
}

// target returns the path at which the kubelet wants a volume of a pod.
func (n *node) target(volume string) string { return filepath.Join(n.Dir(), "pods", volume, "mount") }

// publish requests an ephemeral volume, as the kubelet does.
func (n *node) publish(volume, program string, names ...string) error {
	_, err := n.csi.NodePublishVolume(n.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: volume, TargetPath: n.target(volume),
		VolumeCapability: &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{VolumeMountGroup: fmt.Sprint(nobody)}},
		},
		VolumeContext: map[string]string{
			"csi.bpfman.io/program": program, "csi.bpfman.io/maps": strings.Join(names, ","),
			"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": "agent",
		},
	})
	return err
}

func (n *node) unpublish(volume string) {
	n.Helper()
	_, err := n.csi.NodeUnpublishVolume(context.WithoutCancel(n.Context()), &csi.NodeUnpublishVolumeRequest{VolumeId: volume, TargetPath: n.target(volume)})
	n.Check(err)
}

// mapIDs returns the kernel's ids of the maps pinned in a directory of bpfman's.
func (n *node) mapIDs(dir string) map[string]ebpf.MapID {
	n.Helper()
	ids := map[string]ebpf.MapID{}
	pins, err := os.ReadDir(n.Bpfman.Path(dir))
	n.Check(err)
	for _, pin := range pins {
		if strings.Contains(pin.Name(), ".") { // made by the kernel
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(n.Bpfman.Path(dir), pin.Name()), nil)
		n.Check(err)
		info, err := m.Info()
		n.Check(err)
		ids[pin.Name()], _ = info.ID()
		n.Check(m.Close())
	}
	return ids
}

// mounts returns what bpfman has mounted for volumes.
func (n *node) mounts() (found []string) {
	n.Helper()
	text, err := n.Bpfman.Shell("cat /proc/self/mounts")
	n.Check(err)
	for line := range strings.Lines(text) {
		path := strings.Fields(line)[1]
		if strings.HasPrefix(path, n.Dir()) || strings.HasPrefix(path, filepath.Dir(lab.CSISocket)) {
			found = append(found, path)
		}
	}
	return found
}

// asPod returns the command that runs another one as a container sees it: with the
// volume at /mnt, and without bpfman's other files.
func (n *node) asPod(volume string) []string {
	return slices.Concat(n.Bpfman.Via(), []string{"unshare", "--mount", "--propagation", "private",
		"bash", "-euc", `mount --bind "$0" /mnt; umount -l /run/bpfman/fs; exec "$@"`, n.target(volume)})
}

// read returns what the maps of a directory of bpfman's hold.
func (n *node) read(dir string) writer.Status {
	n.Helper()
	tables, err := datapath.Open(n.Bpfman.Path(dir))
	n.Check(err)
	defer tables.Close()
	s, err := writer.ReadStatus(tables, "")
	n.Check(err)
	return s
}

// TestCSIVolumeIsAllThatAnAgentNeeds follows a pod in a cluster, from the program to an
// agent without privilege.
func TestCSIVolumeIsAllThatAnAgentNeeds(t *testing.T) {
	n := newNode(t, "csi")
	program := n.load()
	if got, want := slices.Sorted(maps.Keys(n.mapIDs(program.Info.MapPinPath))), n.maps; !slices.Equal(got, want) {
		t.Errorf("bpfman pins %q, the object has %q", got, want)
	}
	n.Check(n.publish("agent-1", application, n.maps...))
	if diff := cmp.Diff(n.mapIDs(program.Info.MapPinPath), n.mapIDs(n.target("agent-1"))); diff != "" {
		t.Errorf("the volume holds other maps (-bpfman's +volume's):\n%s", diff)
	}
	runWriter(n.Managed.World, n.asPod("agent-1"), "/mnt")

	const flows, questions = 5, 4
	for _, network := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			for range flows {
				c := n.Dial(n.Client, network, labtest.VIP(family, 80))
				for i := range questions {
					if a := n.Ask(c, fmt.Sprintf("question %d", i)); a.Server != "backend-2" {
						t.Errorf("%s answers", a.Server)
					}
				}
			}
		}
	}
	s := lab.Status{Status: n.read(n.target("agent-1"))}
	for _, network := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			f := n.Frontend(s, network, labtest.VIP(family, 80))
			if f.NewFlows != flows || f.Packets < flows*questions || f.ReplyPackets < flows*questions {
				t.Errorf("%s: %d new flows, %d packets and %d replies, want %d, and %d at least", f.Frontend, f.NewFlows, f.Packets, f.ReplyPackets, flows, flows*questions)
			}
		}
	}
	if got := s.Counters["flow_new"]; got != 4*flows {
		t.Errorf("flow_new is %d, want %d", got, 4*flows)
	}
	n.CheckChecksums()

	n.unpublish("agent-1")
	if left := n.mounts(); len(left) > 0 {
		t.Errorf("still mounted: %q", left)
	}
	n.unload(program)
	n.CheckNothingLeft()
}

// TestCSIVolumeOfAnotherProgramGoesStale reloads the program beneath a volume. The
// volume keeps the maps that no program reads any more; only a new volume has the new
// ones.
func TestCSIVolumeOfAnotherProgramGoesStale(t *testing.T) {
	n := newNode(t, "csi-stale")
	before := n.load()
	n.Check(n.publish("agent-1", application, n.maps...))
	old := n.mapIDs(before.Info.MapPinPath)
	n.unload(before)
	after := n.load()
	fresh := n.mapIDs(after.Info.MapPinPath)
	for name, id := range fresh {
		if id == old[name] {
			t.Errorf("map %s outlived its program", name)
		}
	}
	n.Check(n.publish("agent-2", application, n.maps...))
	if diff := cmp.Diff(old, n.mapIDs(n.target("agent-1"))); diff != "" {
		t.Errorf("the volume of before has changed (-before +now):\n%s", diff)
	}
	if diff := cmp.Diff(fresh, n.mapIDs(n.target("agent-2"))); diff != "" {
		t.Errorf("a fresh volume holds other maps (-bpfman's +volume's):\n%s", diff)
	}
	runWriter(n.Managed.World, n.asPod("agent-1"), "/mnt")
	if s := n.read(after.Info.MapPinPath); len(s.Frontends) > 0 {
		t.Errorf("written by the stale volume: %+v", s.Frontends)
	}
	runWriter(n.Managed.World, n.asPod("agent-2"), "/mnt")
	if name, err := n.Answerer(labtest.VIP(4, 80)); name != "backend-2" {
		t.Errorf("%s answers: %v", name, err)
	}
	n.unpublish("agent-1")
	n.unpublish("agent-2")
	if left := n.mounts(); len(left) > 0 {
		t.Errorf("still mounted: %q", left)
	}
	n.unload(after)
	n.CheckNothingLeft()
}

// TestCSIVolumeOfNothingIsNotFound checks the error that has the kubelet retry until
// the program is there.
func TestCSIVolumeOfNothingIsNotFound(t *testing.T) {
	n := newNode(t, "csi-none")
	notFound := func(err error, says string) {
		t.Helper()
		if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want NotFound and %q", err, says)
		}
	}
	notFound(n.publish("agent-1", application, n.maps...), "Program "+application+" not found")
	program := n.load()
	notFound(n.publish("agent-1", "nosuch", n.maps...), "Program nosuch not found")
	n.Check(n.publish("agent-1", application, n.maps...))
	n.unpublish("agent-1")
	if left := n.mounts(); len(left) > 0 {
		t.Errorf("still mounted: %q", left)
	}
	notFound(n.publish("agent-2", application, bpf.BlixtMapFlows, "nosuch"), "map nosuch not found in "+application)
	n.unload(program)
	n.CheckNothingLeft()
}
