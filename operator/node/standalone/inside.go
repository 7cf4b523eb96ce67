// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"sync"

	"github.com/kubernetes-sigs/blixt/operator/admission"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/node/metrics"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Inside is what a running load balancer tells what runs in its process, such as a page.
// Its methods wait for nobody who makes a change.
type Inside struct{ r *runner }

// Name returns the name of the load balancer.
func (i *Inside) Name() string { return i.r.Name }

// RunDir returns where its files are.
func (i *Inside) RunDir() string { return i.r.RunDir }

// NodeName returns the name of this host.
func (i *Inside) NodeName() string { return i.r.NodeName }

// Version returns that of the process.
func (i *Inside) Version() string { return i.r.Version }

// Answerer answers questions to this host.
func (i *Inside) Answerer() observe.Answerer { return i.r.answerer }

// Status returns what the process says of itself.
func (i *Inside) Status() ProcessStatus { return i.r.statusNow() }

// Declared returns what the files say, and what is served of that. It is another one
// whenever that differs. nil: the files were not read yet.
func (i *Inside) Declared() *Declared { return i.r.declared.Load() }

// Declared is what files declare, and what became of that. Nobody modifies it.
type Declared struct {
	// State is what is to be served.
	State lb.State
	// Review has the objects that it comes from: what was good last may stand for what a
	// file says.
	Review *admission.Review
	// Files returns the objects of the files, and Problems what is wrong with them. With
	// thousands the first call takes a while.
	Files    func() *manifest.Set
	Problems func() (mistakes, states []admission.Message)
}

// declare tells what was read last.
func (r *runner) declare(d *desired) {
	review := r.resolved.review
	r.declared.Store(&Declared{State: d.state, Review: &review, Files: sync.OnceValue(d.files.Set), Problems: d.problems})
}

// Active returns how many flows the frontends of each Gateway have, as of the last count.
func (i *Inside) Active() (flows map[string]uint64) {
	_ = i.r.readMaps(func(d metrics.DataPlane) error {
		flows = d.Writer.Active()
		return nil
	})
	return flows
}
