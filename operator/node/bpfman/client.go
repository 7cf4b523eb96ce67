// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"

	pb "github.com/bpfman/bpfman/clients/gobpfman/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Metadata by which our programs are recognised among bpfman's.
const (
	metadataApplication = "bpfman_application" // shown by bpfman's own command
	metadataName        = "blixt.name"
	metadataDigest      = "blixt.digest"
)

// digest identifies the object to load, whether it comes from an image or a file.
func (o *Options) digest() string {
	sum := sha256.Sum256(o.Object)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// client is a connection to bpfman.
type client struct {
	pb.BpfmanClient
	conn *grpc.ClientConn
	// pid of the process that listens, 0: it is in another PID namespace.
	pid int
}

// connect connects to bpfman. Returns an error if nobody listens at the socket, or
// this process may not connect.
func connect(socket string) (*client, error) {
	pid, err := listener(socket)
	if err != nil {
		return nil, unreachable(socket, err)
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	conn, err := grpc.NewClient("passthrough:///localhost", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to bpfman at %s: %w", socket, err)
	}
	return &client{BpfmanClient: pb.NewBpfmanClient(conn), conn: conn, pid: pid}, nil
}

func (c *client) close() { _ = c.conn.Close() } // all calls have returned

// program is one of ours that bpfman has.
type program struct {
	id     uint32
	name   string
	tag    string
	digest string
	image  string
	dir    string
	links  []uint32
	// Handover is read from its maps.
	datapath.Handover
}

func newProgram(info *pb.ProgramInfo, kernel *pb.KernelProgramInfo) *program {
	return &program{
		id: kernel.GetId(), name: info.GetMetadata()[metadataName], tag: kernel.GetTag(), digest: info.GetMetadata()[metadataDigest],
		image: info.GetBytecode().GetImage().GetUrl(), dir: info.GetMapPinPath(), links: info.GetLinks(),
	}
}

// find returns the programs of a name.
func (c *client) find(ctx context.Context, name string) (found []*program, err error) {
	own := true
	list, err := c.List(ctx, &pb.ListRequest{BpfmanProgramsOnly: &own, MatchMetadata: map[string]string{metadataName: name}})
	if err != nil {
		return nil, refused("list programs", err)
	}
	for _, r := range list.GetResults() {
		// In some versions of bpfman, a list leaves out the links.
		p, err := c.get(ctx, r.GetKernelInfo().GetId())
		if err != nil {
			return nil, err
		}
		if p.name == name {
			found = append(found, p)
		}
	}
	return found, nil
}

// get returns a program by its id.
func (c *client) get(ctx context.Context, id uint32) (*program, error) {
	got, err := c.Get(ctx, &pb.GetRequest{Id: id})
	if err != nil {
		return nil, refused(fmt.Sprintf("get program %d", id), err)
	}
	return newProgram(got.GetInfo(), got.GetKernelInfo()), nil
}

// objectFile returns the file from which bpfman reads an object that comes from no
// image.
func (o *Options) objectFile() string { return filepath.Join(o.RunDir, o.Name+".bpfman.o") }

// load has bpfman load the program.
func (c *client) load(ctx context.Context, o *Options, digest string) (*program, error) {
	file := ""
	if o.Image == "" {
		file = o.objectFile()
		if err := os.WriteFile(file, o.Object, 0o644); err != nil {
			return nil, fmt.Errorf("write object for bpfman: %w", err)
		}
		defer os.Remove(file) // bpfman copies it into its database
	}
	call := "load " + o.Image + file
	res, err := c.Load(ctx, &pb.LoadRequest{
		Bytecode: o.location(file),
		Metadata: map[string]string{metadataApplication: "blixt", metadataName: o.Name, metadataDigest: digest},
		Info:     []*pb.LoadInfo{{Name: bpf.BlixtProgBlixt, ProgramType: pb.BpfmanProgramType_TCX}},
	})
	if err != nil {
		return nil, refused(call, err)
	}
	if n := len(res.GetPrograms()); n != 1 {
		return nil, fmt.Errorf("bpfman: %s: it loaded %d programs, want 1", call, n)
	}
	return newProgram(res.Programs[0].GetInfo(), res.Programs[0].GetKernelInfo()), nil
}

func (c *client) unload(ctx context.Context, id uint32) error {
	if _, err := c.Unload(ctx, &pb.UnloadRequest{Id: id}); err != nil {
		return refused(fmt.Sprintf("unload program %d", id), err)
	}
	return nil
}

func (c *client) attach(ctx context.Context, id uint32, to *pb.TCXAttachInfo) (link uint32, err error) {
	res, err := c.Attach(ctx, &pb.AttachRequest{Id: id, Attach: &pb.AttachInfo{Info: &pb.AttachInfo_TcxAttachInfo{TcxAttachInfo: to}}})
	if err != nil {
		return 0, refused(fmt.Sprintf("attach program %d", id), err)
	}
	return res.GetLinkId(), nil
}

func (c *client) detach(ctx context.Context, link uint32) error {
	if _, err := c.Detach(ctx, &pb.DetachRequest{LinkId: link}); err != nil {
		return refused(fmt.Sprintf("detach link %d", link), err)
	}
	return nil
}
