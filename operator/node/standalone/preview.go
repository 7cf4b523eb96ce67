// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/admission"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/vip"
)

// PreviewOptions are those of Run that decide what becomes of files.
type PreviewOptions struct {
	Files source.Options
	// Network is that of the host; nil: of this one.
	Network *hostnet.View
	// Capacity is that of the program's tables; zero: the default.
	Capacity lb.Capacity
	// Decisions are those of Options.
	Decisions
	// Like is a load balancer that would read the files instead of its own: what was good
	// last, and who serves what, is remembered as it does. nil: one that has no past.
	Like *ProcessStatus
	// Drained is what somebody has drained by hand.
	Drained lb.DrainedSet
}

// Decisions are options of Run that decide what files mean.
type Decisions struct {
	NodeName    string `json:"nodeName,omitempty"`
	FlowRecords bool   `json:"flowRecords,omitempty"`
	Lenient     bool   `json:"lenient,omitempty"`
	// SNATPorts are those of Options; zero: the default.
	SNATPorts lb.PortRange `json:"snatPorts,omitzero"`
}

// Preview is what Run would serve, and what it would say of the files.
type Preview struct {
	Remarks []Remark
	// State is nil if nothing can be served, because no file is valid.
	State *lb.State
	// Explain returns what BlixtPolicies make of each listener; nil with State.
	Explain func() []gateway.Explained
}

// Remark is something to say of files.
type Remark struct {
	// Level is slog.LevelError for what does not take effect, slog.LevelWarn for what may
	// not be meant, and slog.LevelInfo for what is ignored.
	Level slog.Level
	// File is empty, or Line 0, if they are not known.
	File string
	Line int
	// Object is kind and name, "": none.
	Object  string
	Message string
	// Unread is true if a file or directory could not be read.
	Unread bool
}

// NewPreview reads the files once. It needs no privilege, and changes nothing. It returns
// an error if the files or the network cannot be read at all.
func NewPreview(o PreviewOptions) (*Preview, error) {
	o.Files.Once = true
	memory := &admission.Memory{}
	if like := o.Like; like != nil {
		o.Files.StateDir, o.Files.InsteadOf, o.Decisions = like.StateDir, like.Files, like.Decisions
		if like.StateDir != "" && !like.Lenient {
			f := memoryFile{path: filepath.Join(like.StateDir, "objects"), paths: like.Files}
			var err error
			if memory, err = f.read(); err != nil {
				return nil, err
			}
		}
	}
	files, err := source.Open(o.Files)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	if err := files.Kept(); err != nil {
		return nil, err
	}
	n := &network{View: o.Network}
	if n.View == nil {
		s, err := hostnet.Read()
		if err != nil {
			return nil, fmt.Errorf("read the host's network: %w", err)
		}
		n.View = (&hostnet.Memory{}).See(s, time.Now(), vip.IsBlixts)
	}
	r := &runner{
		Options: Options{NodeName: o.NodeName, FlowRecords: o.FlowRecords, Lenient: o.Lenient, SNATPorts: o.SNATPorts},
		source:  files, memory: memory, assumed: o.Capacity, byHand: byHand{set: o.Drained},
	}
	r.judging.failovers.Now = time.Now
	d, err := r.read(n)
	p := &Preview{}
	for _, e := range files.Wrong() {
		p.add(slog.LevelError, e)
	}
	if err != nil {
		return p, nil // Wrong says why
	}
	p.State, p.Explain = &d.state, r.resolved.review.Explain
	mistakes, states := d.problems()
	p.addMessages(slog.LevelError, mistakes)
	p.addMessages(slog.LevelWarn, states)
	for _, note := range d.files.Notes {
		p.Remarks = append(p.Remarks, Remark{Level: slog.LevelInfo, Message: note})
	}
	for _, o := range d.files.Ignored() {
		p.add(slog.LevelInfo, ignored(o))
	}
	var alone []netip.Addr
	for _, a := range d.state.Addresses {
		if a.Exclusive {
			alone = append(alone, a.IP)
		}
	}
	for _, line := range vip.InNoNetwork(alone, n.View) {
		p.Remarks = append(p.Remarks, Remark{Level: slog.LevelInfo, Message: line})
	}
	return p, nil
}

func (p *Preview) add(level slog.Level, e *manifest.Error) {
	p.Remarks = append(p.Remarks, Remark{level, e.File, e.Line, e.Object, e.Reason, e.Unread})
}

func (p *Preview) addMessages(level slog.Level, all []admission.Message) {
	for _, m := range all {
		r := Remark{Level: level, File: m.At, Object: m.Object, Message: m.Text}
		if i := strings.LastIndexByte(m.At, ':'); i >= 0 {
			if line, err := strconv.Atoi(m.At[i+1:]); err == nil {
				r.File, r.Line = m.At[:i], line
			}
		}
		p.Remarks = append(p.Remarks, r)
	}
}

// String returns file:line: object: message.
func (r Remark) String() string {
	e := manifest.Error{File: r.File, Line: r.Line, Object: r.Object, Reason: r.Message}
	return strings.TrimPrefix(e.Error(), ": ")
}
