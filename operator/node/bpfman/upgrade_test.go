// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "github.com/bpfman/bpfman/clients/gobpfman/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// version is a program that bpfman has.
type version struct {
	digest   string // "": that of what is to be loaded
	draining bool
	snat     lb.PortRange
	flows    uint64
	noted    bool // as the one that serves
	since    time.Duration
}

var (
	lower = lb.PortRange{First: 1000, Last: 1499}
	upper = lb.PortRange{First: 1500, Last: 1999}
)

// upgrading starts a fake that has these programs by id, and options to load another.
func upgrading(t *testing.T, have map[uint32]version) (*fake, Options) {
	t.Helper()
	f := &fake{programs: map[uint32]*pb.ProgramInfo{}, refuses: map[string]error{}, maps: t.TempDir()}
	o := f.start(t)
	n := note{}
	byDir := map[string]version{f.maps: {}}
	for id, v := range have {
		if v.digest == "" {
			v.digest = o.digest()
		}
		dir := filepath.Join(f.maps, strconv.Itoa(int(id)))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		byDir[dir] = v
		f.programs[id] = &pb.ProgramInfo{Metadata: map[string]string{metaName: o.Name, metaDigest: v.digest}, MapPinPath: dir}
		if v.noted {
			n.Program = id
		}
		if v.since > 0 {
			n.Older = append(n.Older, &Older{held: held{Program: id}, Since: time.Now().Add(-v.since)})
		}
	}
	if err := n.write(o.RunDir, o.Name); err != nil {
		t.Fatal(err)
	}
	o.look = func(dir string) (datapath.Handover, error) {
		v := byDir[dir]
		return datapath.Handover{Draining: v.draining, SNAT: v.snat}, nil
	}
	o.Unfinished = func(dir string) (uint64, error) { return byDir[dir].flows, nil }
	return f, o
}

// outcome is what a Load has led to.
type outcome struct {
	Serves uint32
	Older  []uint32
	Left   []uint32 // with bpfman
	Ports  lb.PortRange
}

func TestWhichProgramServesAndWhichDrain(t *testing.T) {
	const fresh = 7 // the id of what is loaded
	for name, c := range map[string]struct {
		have    map[uint32]version
		replace bool
		want    outcome
	}{
		"nothing": {want: outcome{fresh, nil, []uint32{fresh}, lower}},
		"the same one": {
			have: map[uint32]version{3: {snat: upper, noted: true}},
			want: outcome{3, nil, []uint32{3}, upper},
		},
		"the same one, of other ports": {
			have: map[uint32]version{3: {snat: lb.PortRange{First: 5000, Last: 5999}, noted: true}},
			want: outcome{3, nil, []uint32{3}, lower},
		},
		"another version": {
			have: map[uint32]version{3: {digest: "other", snat: lower, noted: true}},
			want: outcome{fresh, []uint32{3}, []uint32{3, fresh}, upper},
		},
		"another version, of the upper half": {
			have: map[uint32]version{3: {digest: "other", snat: upper}},
			want: outcome{fresh, []uint32{3}, []uint32{3, fresh}, lower},
		},
		"another version, of ports elsewhere": {
			have: map[uint32]version{3: {digest: "other", snat: lb.PortRange{First: 5000, Last: 5999}}},
			want: outcome{fresh, []uint32{3}, []uint32{3, fresh}, lower},
		},
		"killed before the other drained": {
			have: map[uint32]version{3: {digest: "other", snat: lower, flows: 9}, 4: {noted: true}},
			want: outcome{4, []uint32{3}, []uint32{3, 4}, upper},
		},
		"killed while the other drained": {
			have: map[uint32]version{3: {digest: "other", snat: lower, draining: true, flows: 9}, 4: {snat: upper}},
			want: outcome{4, []uint32{3}, []uint32{3, 4}, upper},
		},
		"killed, and back to the version before": {
			have: map[uint32]version{3: {snat: lower}, 4: {digest: "other", noted: true}},
			want: outcome{3, nil, []uint32{3}, lower},
		},
		"back to the version before, which drains": {
			have:    map[uint32]version{3: {snat: lower, draining: true, flows: 9}, 4: {digest: "other", snat: upper, noted: true}},
			replace: false,
			want:    outcome{}, // refused
		},
		"two of the same, one of which serves": {
			have: map[uint32]version{3: {}, 4: {snat: lower}, 5: {}},
			want: outcome{4, nil, []uint32{4}, lower},
		},
		"a third version, the first has drained": {
			have: map[uint32]version{3: {digest: "first", snat: lower, draining: true}, 4: {digest: "second", snat: upper, noted: true}},
			want: outcome{fresh, []uint32{4}, []uint32{4, fresh}, lower},
		},
		"a third version, the time of the first is up": {
			have: map[uint32]version{3: {digest: "first", snat: lower, draining: true, flows: 9, since: 2 * time.Hour}, 4: {digest: "second", snat: upper, noted: true}},
			want: outcome{fresh, []uint32{4}, []uint32{4, fresh}, lower},
		},
		"told to replace": {
			have:    map[uint32]version{3: {digest: "first", snat: lower, draining: true, flows: 9}, 4: {digest: "second", snat: upper, flows: 9}},
			replace: true,
			want:    outcome{fresh, nil, []uint32{fresh}, lower},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, o := upgrading(t, c.have)
			o.Replace = c.replace
			d, err := Load(o)
			if c.want.Serves == 0 {
				if err == nil || !strings.Contains(err.Error(), "no half of --snat-ports") || strings.Count(err.Error(), "of bpfman has ports") != 2 || !strings.Contains(err.Error(), "with 9 flows, at most until") {
					t.Error(err)
				}
				if len(f.programs) != len(c.have) || slices.Contains(f.calls, "load") || slices.Contains(f.calls, "unload") {
					t.Errorf("bpfman was asked to %v", f.calls)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := outcome{Serves: d.note.Program, Left: slices.Sorted(maps.Keys(f.programs)), Ports: d.SNATPorts()}
			for _, older := range d.Older() {
				got.Older = append(got.Older, older.Program)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if e := d.note.Ended; strings.HasPrefix(name, "a third version") && (e == nil || e.Program != 3 || *e.Cut != c.have[3].flows) {
				t.Errorf("the note says %+v of the first", e)
			}
			if err := d.Close(false); err != nil || len(f.programs) > 0 {
				t.Errorf("at the end bpfman has %v (%v)", f.programs, err)
			}
		})
	}
}

func TestLoadThatFailsRemovesNothing(t *testing.T) {
	for _, replace := range []bool{false, true} {
		f, o := upgrading(t, map[uint32]version{3: {digest: "other", snat: lower, noted: true}})
		before, err := os.ReadFile(notePath(o.RunDir, o.Name))
		if err != nil {
			t.Fatal(err)
		}
		f.refuses["load"] = status.Error(codes.Aborted, "the verifier says no")
		o.Replace = replace
		if _, err := Load(o); err == nil {
			t.Fatal("no error")
		}
		if f.programs[3] == nil {
			t.Errorf("replace %v: the old program is gone", replace)
		}
		f.refuses["load"] = nil
		o.Unfinished = func(string) (uint64, error) { return 0, errors.New("maps are of another layout") } // its maps are not ours to write
		o.Replace = replace
		if _, err := Load(o); err == nil {
			t.Fatal("no error")
		}
		if f.programs[3] == nil || f.programs[7] != nil {
			t.Errorf("replace %v: bpfman has %v", replace, f.programs)
		}
		if after, err := os.ReadFile(notePath(o.RunDir, o.Name)); err != nil || string(after) != string(before) {
			t.Errorf("replace %v: the note was %s, is %s (%v)", replace, before, after, err)
		}
	}
}

// The clock of what drains runs on while nobody looks.
func TestDrainingOutlivesARestart(t *testing.T) {
	f, o := upgrading(t, map[uint32]version{3: {digest: "other", snat: lower, noted: true, flows: 9}})
	d, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	since, until, err := d.Older()[0].Begin()
	if err != nil || until.Sub(since) != time.Hour || time.Since(since) > time.Minute {
		t.Errorf("drains from %s to %s (%v)", since, until, err)
	}
	if err := d.Close(true); err != nil {
		t.Fatal(err)
	}
	o.look = func(dir string) (datapath.Handover, error) {
		if filepath.Base(dir) == "3" {
			return datapath.Handover{Draining: true, SNAT: lower}, nil
		}
		return datapath.Handover{SNAT: upper}, nil
	}
	o.DrainTimeout = 2 * time.Hour
	if d, err = Load(o); err != nil {
		t.Fatal(err)
	}
	again, until, err := d.Older()[0].Begin()
	if err != nil || !again.Equal(since) || until.Sub(since) != 2*time.Hour {
		t.Errorf("drains from %s, and after a restart from %s to %s (%v)", since, again, until, err)
	}
	cut := uint64(9)
	if err := d.Older()[0].Unload(&cut); err != nil || f.programs[3] != nil {
		t.Errorf("not unloaded: %v", err)
	}
	older, ended, err := Replaced(o.RunDir, o.Name)
	if err != nil || len(older) != 0 || ended == nil || ended.Program != 3 || ended.Digest != "other" || *ended.Cut != 9 {
		t.Errorf("the note says %v, %+v (%v)", older, ended, err)
	}
	if err := d.Close(false); err != nil || Loaded(o.RunDir, o.Name) {
		t.Errorf("the note is left (%v)", err)
	}
}

func TestPlaceAmongThePrograms(t *testing.T) {
	d := &Loader{note: note{Older: []*Older{{held: held{Program: 3}}, {held: held{Program: 4}}}}}
	for _, c := range []struct {
		order []uint32
		says  string
	}{
		{[]uint32{3, 4, 7}, ""},
		{[]uint32{9, 4, 9, 7, 9}, ""}, // one is not attached here, and others are no business of ours
		{[]uint32{7}, ""},
		{[]uint32{3, 7, 4}, "before program 4 (), whose flows it would break: give it the --priority"},
		{[]uint32{3, 4}, "--netns"},
	} {
		err := d.misplaced(c.order, 7, "")
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.order, err, c.says)
		}
	}
}

func TestProgramThatIsGoneIsLost(t *testing.T) {
	f, o := upgrading(t, map[uint32]version{3: {snat: lower}})
	d, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Lost(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(d.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := d.Lost(); err == nil || !strings.Contains(err.Error(), "program 3 is gone, somebody had bpfman unload it") {
		t.Error(err)
	}
	f.refuses["unload"] = status.Error(codes.Aborted, "no such program")
	if err := d.Close(false); err != nil {
		t.Errorf("what is gone cannot be unloaded: %v", err)
	}
	if _, err := os.Stat(notePath(o.RunDir, o.Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note is left (%v)", err)
	}
}
