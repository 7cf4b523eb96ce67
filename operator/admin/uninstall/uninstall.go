// SPDX-License-Identifier: Apache-2.0

// Package uninstall removes from a cluster what Blixt's operator has created, until no
// node runs a program of Blixt. In goes a client; out come lines that say what is done
// and what blocks it. It skips what is already gone, so it can be run again after it
// was stopped at any point.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// ErrOthers is wrapped by the error of a removal that has done nothing, as bpfman has
// programs of others.
var ErrOthers = errors.New("bpfman, which goes with this release, has programs of others")

var ours = client.MatchingLabels{v1alpha1.ManagedByLabel: v1alpha1.Manager}

// Options of a removal.
type Options struct {
	// Namespace of the operator.
	Namespace string
	// Timeout of the whole removal.
	Timeout time.Duration
	// KeepCRDs keeps the CRDs of Blixt, and with them the objects that people wrote.
	KeepCRDs bool
	// ForceNodesDown does not wait for nodes that are not ready: nobody can unload
	// their programs.
	ForceNodesDown bool
	// WithBpfman says that bpfman is to be removed next: Run then does nothing while bpfman
	// has programs of others, and at last removes bpfman's Config, if this account may.
	WithBpfman bool
	// DryRun changes nothing: the API server checks each request, and Out gets what
	// would be done.
	DryRun bool
	// Out gets a line for each step, and for what blocks it.
	Out io.Writer
	// Pause between looks, 0: a second.
	Pause time.Duration
}

// remover is a removal that is running.
type remover struct {
	Options
	client client.Client
}

// Run removes everything, with a client of kube.Scheme. Its error names what is
// left at the timeout.
func Run(ctx context.Context, c client.Client, o Options) error {
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	r := &remover{Options: o, client: c}
	if o.DryRun {
		r.client = client.NewDryRunClient(c)
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"look for others' programs", r.findForeign},
		// Before the rest, or it would create again what is removed.
		{"stop the operator", r.stopOperator},
		// Agents hold the programs' maps.
		{"remove agents", r.removeAgents},
		{"unload programs", r.unload},
		{"remove agents of nodes that were down", r.removePods},
		{"remove Services of Gateways", r.removeServices},
		{"take back statuses", r.takeBack},
		{"remove the operator's GatewayClass", r.removeClass},
		{"remove NodeDataplanes", r.removeNodes},
		{"remove certificates and the operator's lease", r.removeOwn},
		{"remove the Config of bpfman", r.removeConfig},
		{"remove the kinds of Blixt", r.removeKinds},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	if !o.DryRun {
		r.say("Blixt is off this cluster.")
	}
	return nil
}

func (r *remover) say(format string, args ...any) {
	if r.DryRun {
		format += " (dry run)"
	}
	fmt.Fprintf(r.Out, format+"\n", args...)
}
