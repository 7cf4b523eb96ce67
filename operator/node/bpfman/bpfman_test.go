// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/bpfman/bpfman/clients/gobpfman/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// fake is a bpfman that loads nothing. Like the bpfman that is being rewritten in
// Go, it leaves links out of lists. Tests with a real bpfman are in e2e.
type fake struct {
	pb.UnimplementedBpfmanServer
	programs map[uint32]*pb.ProgramInfo
	// refuses is the error of a method.
	refuses map[string]error
	calls   []string
	// maps is where it claims to pin the maps of what it loads.
	maps string
}

func (f *fake) call(name string) error {
	f.calls = append(f.calls, name)
	return f.refuses[name]
}

func (f *fake) List(_ context.Context, r *pb.ListRequest) (*pb.ListResponse, error) {
	res := &pb.ListResponse{}
	for id, p := range f.programs {
		if p.Metadata[metadataName] == r.MatchMetadata[metadataName] {
			bare := &pb.ProgramInfo{Name: p.Name, Metadata: p.Metadata, MapPinPath: p.MapPinPath}
			res.Results = append(res.Results, &pb.ListResponse_ListResult{Info: bare, KernelInfo: &pb.KernelProgramInfo{Id: id}})
		}
	}
	return res, f.call("list")
}

func (f *fake) Get(_ context.Context, r *pb.GetRequest) (*pb.GetResponse, error) {
	return &pb.GetResponse{Info: f.programs[r.Id], KernelInfo: &pb.KernelProgramInfo{Id: r.Id}}, f.call("get")
}

func (f *fake) Load(_ context.Context, r *pb.LoadRequest) (*pb.LoadResponse, error) {
	if err := f.call("load"); err != nil {
		return nil, err
	}
	p := &pb.ProgramInfo{Name: r.Info[0].Name, Metadata: r.Metadata, MapPinPath: cmp.Or(f.maps, "/nonexistent/maps")}
	f.programs[7] = p
	return &pb.LoadResponse{Programs: []*pb.LoadResponseInfo{{Info: p, KernelInfo: &pb.KernelProgramInfo{Id: 7}}}}, nil
}

func (f *fake) Unload(_ context.Context, r *pb.UnloadRequest) (*pb.UnloadResponse, error) {
	delete(f.programs, r.Id)
	return &pb.UnloadResponse{}, f.call("unload")
}

// start starts the fake, and returns options for a program that it is to load.
func (f *fake) start(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{
		Name: "test", Socket: filepath.Join(dir, "sock"), RunDir: dir, Object: []byte("object"),
		SNATPorts: lb.PortRange{First: 1000, Last: 1999}, DrainTimeout: time.Hour,
		Unfinished: func(dir string) (uint64, error) {
			_, err := os.Stat(dir)
			return 0, err
		},
	}
	l, err := net.Listen("unix", o.Socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterBpfmanServer(s, f)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return o
}

func TestLinksThatAListLeavesOutAreFound(t *testing.T) {
	f := &fake{programs: map[uint32]*pb.ProgramInfo{
		3: {Metadata: map[string]string{metadataName: "test"}, Links: []uint32{1 << 31, 5}},
		4: {Metadata: map[string]string{metadataName: "other"}},
	}}
	c, err := connect(f.start(t).Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	found, err := c.find(t.Context(), "test")
	if err != nil || len(found) != 1 || found[0].id != 3 || !slices.Equal(found[0].links, []uint32{1 << 31, 5}) {
		t.Errorf("found %+v, %v", found, err)
	}
}

func TestProgramWhoseMapsAreOutOfSightIsUnloaded(t *testing.T) {
	f := &fake{programs: map[uint32]*pb.ProgramInfo{}}
	o := f.start(t)
	_, err := Load(o)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "maps of program 7 are pinned at /nonexistent/maps, which this process does not see") {
		t.Error(err)
	}
	if want := []string{"list", "load", "unload"}; !slices.Equal(f.calls, want) || len(f.programs) > 0 {
		t.Errorf("bpfman was asked to %v and has %v, want %v and nothing", f.calls, f.programs, want)
	}
	if Loaded(o.RunDir, o.Name) {
		t.Error("the record is left")
	}
}

func TestRefusalSaysWhatMayHelp(t *testing.T) {
	for _, c := range []struct {
		code         codes.Code
		said, advice string
	}{
		{codes.Aborted, "An error occurred. Failed to open target netns file: No such file", "name one that it sees with --netns"},
		{codes.Aborted, "Failed to acquire database lock, please try again later", "try again; after a full disk, restart bpfman"},
		{codes.Aborted, "`bpf_mprog_attach` failed", "bpfman list links"},
		{codes.Aborted, "Failed to pull bytecode Image: error sending request for url (xyz)", "reachable for it by HTTPS"},
		{codes.Aborted, "Failed to pull bytecode Image: Digest error: Invalid digest. Expected sha256:1, got sha256:2", "push the image again"},
		{codes.Aborted, "Unable to initialize ImageManager: error sending request for url (xyz)", "tuf-repo-cdn.sigstore.dev"},
		{codes.Aborted, "Failed to fetch sigstore's keys", "verify_enabled = false"},
		{codes.Aborted, "Error triangulating image: Failed to pull manifest", "--verify-key"},
		{codes.Unavailable, "connection refused", "after a full disk: see its log"},
		{codes.DeadlineExceeded, "context deadline exceeded", "restart it and try again"},
		{codes.Unimplemented, "unknown service", "no bpfman"},
		{codes.Aborted, "something that nobody knows", ""},
	} {
		f := &fake{programs: map[uint32]*pb.ProgramInfo{}, refuses: map[string]error{"load": status.Error(c.code, c.said)}}
		_, err := Load(f.start(t))
		if err == nil {
			t.Fatalf("%q: no error", c.said)
		}
		_, advice, found := strings.Cut(err.Error(), ": "+c.said)
		if !found || !strings.HasPrefix(err.Error(), "bpfman: load ") || !strings.Contains(advice, c.advice) || (advice == "") != (c.advice == "") {
			t.Errorf("%q: %v, want advice on %q", c.said, err, c.advice)
		}
		if slices.Contains(f.calls, "unload") {
			t.Errorf("%q: something was unloaded", c.said)
		}
	}
}
