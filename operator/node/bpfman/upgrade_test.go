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

// version is a program that bpfman has, of this or another version.
type version struct {
	digest   string // "": that of what is to be loaded
	draining bool
	snat     lb.PortRange
	flows    uint64
	recorded bool          // as the one that serves
	since    time.Duration // how long it has drained by the record; 0: it is not in it
}

var (
	lower = lb.PortRange{First: 1000, Last: 1332}
	upper = lb.PortRange{First: 1667, Last: 1999}
	// What a program has when it is alone.
	lowerAlone = lb.PortRange{First: 1000, Last: 1666}
	upperAlone = lb.PortRange{First: 1333, Last: 1999}
)

// startWith starts a fake that has these programs, by id, and returns options to
// load another one.
func startWith(t *testing.T, have map[uint32]version) (*fake, Options) {
	t.Helper()
	f := &fake{programs: map[uint32]*pb.ProgramInfo{}, refuses: map[string]error{}, maps: t.TempDir()}
	o := f.start(t)
	n := record{}
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
		f.programs[id] = &pb.ProgramInfo{Metadata: map[string]string{metadataName: o.Name, metadataDigest: v.digest}, MapPinPath: dir}
		if v.recorded {
			n.Program = id
		}
		if v.since > 0 {
			n.Previous = append(n.Previous, &Previous{held: held{Program: id}, Draining: lb.Draining{Since: time.Now().Add(-v.since)}})
		}
	}
	if err := n.write(o.RunDir, o.Name); err != nil {
		t.Fatal(err)
	}
	o.readHandover = func(dir string) (datapath.Handover, error) {
		v := byDir[dir]
		return datapath.Handover{Draining: v.draining, SNAT: v.snat}, nil
	}
	o.Unfinished = func(dir string) (uint64, error) { return byDir[dir].flows, nil }
	return f, o
}

// outcome is what a Load leads to.
type outcome struct {
	Serves   uint32
	Previous []uint32
	Left     []uint32 // all that bpfman has
	Ports    lb.PortRange
}

func TestWhichProgramServesAndWhichDrain(t *testing.T) {
	const fresh = 7 // the id of what is loaded
	for name, c := range map[string]struct {
		have    map[uint32]version
		replace bool
		want    outcome
	}{
		"nothing": {want: outcome{fresh, nil, []uint32{fresh}, lowerAlone}},
		"the same one": {
			have: map[uint32]version{3: {snat: upper, recorded: true}},
			want: outcome{3, nil, []uint32{3}, upperAlone},
		},
		"the same one, of other ports": {
			have: map[uint32]version{3: {snat: lb.PortRange{First: 5000, Last: 5999}, recorded: true}},
			want: outcome{3, nil, []uint32{3}, lowerAlone},
		},
		"another version": {
			have: map[uint32]version{3: {digest: "other", snat: lower, recorded: true}},
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
			have: map[uint32]version{3: {digest: "other", snat: lower, flows: 9}, 4: {recorded: true}},
			want: outcome{4, []uint32{3}, []uint32{3, 4}, upper},
		},
		"killed while the other drained": {
			have: map[uint32]version{3: {digest: "other", snat: lower, draining: true, flows: 9}, 4: {snat: upper}},
			want: outcome{4, []uint32{3}, []uint32{3, 4}, upper},
		},
		"killed, and back to the previous version": {
			have: map[uint32]version{3: {snat: lower}, 4: {digest: "other", recorded: true}},
			want: outcome{3, nil, []uint32{3}, lowerAlone},
		},
		"back to the previous version, which drains": {
			have:    map[uint32]version{3: {snat: lower, draining: true, flows: 9}, 4: {digest: "other", snat: upper, recorded: true}},
			replace: false,
			want:    outcome{}, // refused
		},
		"two of the same, one of which serves": {
			have: map[uint32]version{3: {}, 4: {snat: lower}, 5: {}},
			want: outcome{4, nil, []uint32{4}, lowerAlone},
		},
		"a third version, the first has drained": {
			have: map[uint32]version{3: {digest: "first", snat: lower, draining: true}, 4: {digest: "second", snat: upper, recorded: true}},
			want: outcome{fresh, []uint32{4}, []uint32{4, fresh}, lower},
		},
		"a third version, the time of the first is up": {
			have: map[uint32]version{3: {digest: "first", snat: lower, draining: true, flows: 9, since: 2 * time.Hour}, 4: {digest: "second", snat: upper, recorded: true}},
			want: outcome{fresh, []uint32{4}, []uint32{4, fresh}, lower},
		},
		"told to replace": {
			have:    map[uint32]version{3: {digest: "first", snat: lower, draining: true, flows: 9}, 4: {digest: "second", snat: upper, flows: 9}},
			replace: true,
			want:    outcome{fresh, nil, []uint32{fresh}, lowerAlone},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, o := startWith(t, c.have)
			o.Replace = c.replace
			d, err := Load(o)
			if c.want.Serves == 0 {
				if err == nil || !strings.Contains(err.Error(), "no end of --snat-ports") || strings.Count(err.Error(), "of bpfman has ports") != 2 || !strings.Contains(err.Error(), "with 9 flows, at most until") {
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
			got := outcome{Serves: d.record.Program, Left: slices.Sorted(maps.Keys(f.programs)), Ports: d.SNATPorts()}
			for _, p := range d.Previous() {
				got.Previous = append(got.Previous, p.Program)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if e := d.record.Ended; strings.HasPrefix(name, "a third version") && (e == nil || e.Program != 3 || *e.Cut != c.have[3].flows) {
				t.Errorf("the record says %+v of the first", e)
			}
			if err := d.Close(false); err != nil || len(f.programs) > 0 {
				t.Errorf("at the end bpfman has %v (%v)", f.programs, err)
			}
		})
	}
}

func TestLoadThatFailsRemovesNothing(t *testing.T) {
	for _, replace := range []bool{false, true} {
		f, o := startWith(t, map[uint32]version{3: {digest: "other", snat: lower, recorded: true}})
		before, err := os.ReadFile(recordPath(o.RunDir, o.Name))
		if err != nil {
			t.Fatal(err)
		}
		f.refuses["load"] = status.Error(codes.Aborted, "the verifier says no")
		o.Replace = replace
		if _, err := Load(o); err == nil {
			t.Fatal("no error")
		}
		if f.programs[3] == nil {
			t.Errorf("replace %v: the previous program is gone", replace)
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
		if after, err := os.ReadFile(recordPath(o.RunDir, o.Name)); err != nil || string(after) != string(before) {
			t.Errorf("replace %v: the record was %s, is %s (%v)", replace, before, after, err)
		}
	}
}

// TestDrainingOutlivesARestart: the time of a program that drains goes on while no
// process watches it.
func TestDrainingOutlivesARestart(t *testing.T) {
	f, o := startWith(t, map[uint32]version{3: {digest: "other", snat: lower, recorded: true, flows: 9}})
	d, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	first, err := d.Previous()[0].StartDraining()
	if err != nil || first.Until.Sub(first.Since) != time.Hour || time.Since(first.Since) > time.Minute {
		t.Errorf("drains %+v (%v)", first, err)
	}
	if err := d.Close(true); err != nil {
		t.Fatal(err)
	}
	o.readHandover = func(dir string) (datapath.Handover, error) {
		if filepath.Base(dir) == "3" {
			return datapath.Handover{Draining: true, SNAT: lower}, nil
		}
		return datapath.Handover{SNAT: upper}, nil
	}
	o.DrainTimeout = 2 * time.Hour
	if d, err = Load(o); err != nil {
		t.Fatal(err)
	}
	again, err := d.Previous()[0].StartDraining()
	if err != nil || !again.Since.Equal(first.Since) || again.Until.Sub(first.Since) != 2*time.Hour {
		t.Errorf("drains %+v, and after a restart %+v (%v)", first, again, err)
	}
	cut := uint64(9)
	if err := d.Previous()[0].Unload(&cut); err != nil || f.programs[3] != nil {
		t.Errorf("not unloaded: %v", err)
	}
	previous, ended, err := ReadPrevious(o.RunDir, o.Name)
	if err != nil || len(previous) != 0 || ended == nil || ended.Program != 3 || ended.Digest != "other" || *ended.Cut != 9 {
		t.Errorf("the record says %v, %+v (%v)", previous, ended, err)
	}
	if err := d.Close(false); err != nil || Loaded(o.RunDir, o.Name) {
		t.Errorf("the record is left (%v)", err)
	}
}

func TestOrderAmongThePrograms(t *testing.T) {
	d := &Loader{record: record{Previous: []*Previous{{held: held{Program: 3}}, {held: held{Program: 4}}}}}
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
		err := d.checkOrder(c.order, 7, "")
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.order, err, c.says)
		}
	}
}

func TestProgramThatIsGoneIsLost(t *testing.T) {
	f, o := startWith(t, map[uint32]version{3: {snat: lower}})
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
	if _, err := os.Stat(recordPath(o.RunDir, o.Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the record is left (%v)", err)
	}
}
