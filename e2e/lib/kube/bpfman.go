// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bpfman "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// Fault is a failure on a node.
type Fault int

const (
	// LoadFails is what the kernel, a registry or a signature refuses.
	LoadFails Fault = iota + 1
	// LinksEmpty is success without links: bpfman-agent may not look at the
	// node's network namespace.
	LinksEmpty
	// AttachFails is an interface that is not there, or positions that dead
	// programs hold.
	AttachFails
	// AgentAway is a node whose bpfman-agent does not run.
	AgentAway
)

// Program is a program in the kernel of a simulated node.
type Program struct {
	ID                uint32
	Node, Application string
}

// Bpfman simulates bpfman's operator v0.6.0 and its agents on the server's nodes, for
// TCX programs, a few times faster than they are. Nothing is loaded. What an
// application leaves behind is deleted, as Kubernetes would.
type Bpfman struct {
	client client.Client

	mu       sync.Mutex
	faults   map[string]Fault
	linkID   func() uint32
	programs []Program
	last     uint32 // program id
	// forgotten is the last id that bpfman knows nothing of, by node.
	forgotten map[string]uint32
}

// PlayBpfman starts the simulation, which ends with the test. Its link ids are random,
// like bpfman's, but fit a kind that holds 32 bits with a sign.
func (s *Server) PlayBpfman(t testing.TB) *Bpfman {
	b := &Bpfman{client: s.Client, faults: map[string]Fault{}, forgotten: map[string]uint32{}, linkID: func() uint32 { return rand.Uint32N(1 << 31) }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := b.pass(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("play bpfman: %v", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

// Break has a node fail from now on. 0 repairs it.
func (b *Bpfman) Break(node string, f Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults[node] = f
}

// SetLinkIDs sets the function that returns the next link id, of 32 bits.
func (b *Bpfman) SetLinkIDs(next func() uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.linkID = next
}

// Lose unloads the programs of a node, and reports it nowhere: what a restart of
// bpfman's pod does when its pins do not outlive it. Agents still find the program in
// bpfman's database, so nothing is loaded again.
func (b *Bpfman) Lose(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.programs = slices.DeleteFunc(b.programs, func(p Program) bool { return p.Node == node })
}

// Forget unloads the programs of a node, and has them loaded anew: what follows when
// the database is deleted too.
func (b *Bpfman) Forget(node string) {
	b.Lose(node)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgotten[node] = b.last
}

// Programs returns the programs in the kernels of all nodes, including copies that no
// object names.
func (b *Bpfman) Programs() []Program {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.programs)
}

// pass reconciles each application on each node.
func (b *Bpfman) pass(ctx context.Context) error {
	var applications bpfman.ClusterBpfApplicationList
	var nodes corev1.NodeList
	if err := b.client.List(ctx, &applications); err != nil {
		return err
	}
	if err := b.client.List(ctx, &nodes); err != nil {
		return err
	}
	for i := range applications.Items {
		application := &applications.Items[i]
		for n := range nodes.Items {
			if err := b.agent(ctx, application, &nodes.Items[n]); unexpected(err) {
				return err
			}
		}
		if err := b.operator(ctx, application, nodes.Items); unexpected(err) {
			return err
		}
	}
	return nil
}

// unexpected is false for errors that the next pass repairs: a conflict, or a link id
// that the server refused.
func unexpected(err error) bool {
	refused := apierrors.IsInvalid(err) && strings.Contains(err.Error(), "with format int32")
	return err != nil && !refused && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err)
}

const operatorFinalizer = "bpfman.io.operator/finalizer"

// operator aggregates the states that agents have written.
func (b *Bpfman) operator(ctx context.Context, application *bpfman.ClusterBpfApplication, nodes []corev1.Node) error {
	if application.DeletionTimestamp.IsZero() && controllerutil.AddFinalizer(application, operatorFinalizer) {
		return b.client.Update(ctx, application)
	}
	var states bpfman.ClusterBpfApplicationStateList
	if err := b.client.List(ctx, &states, client.MatchingLabels{ownerLabel: application.Name}); err != nil {
		return err
	}
	var held, failed, pending []string
	for i := range states.Items {
		state := &states.Items[i]
		if controllerutil.ContainsFinalizer(state, agentFinalizer) {
			held = append(held, state.Name)
		}
		for _, c := range state.Status.Conditions {
			switch {
			case strings.HasSuffix(c.Type, "Error"):
				failed = append(failed, state.Name)
			case c.Type == string(bpfman.BpfAppStateCondPending):
				pending = append(pending, state.Name)
			}
		}
	}
	switch {
	case !application.DeletionTimestamp.IsZero() && len(held) > 0:
		return b.conclude(ctx, application, bpfman.BpfAppCondDeleteError, fmt.Sprintf("Program Deletion failed on the following BpfApplicationState objects: %v", held))
	case !application.DeletionTimestamp.IsZero():
		controllerutil.RemoveFinalizer(application, operatorFinalizer)
		if err := b.client.Update(ctx, application); err != nil {
			return err
		}
		return b.client.DeleteAllOf(ctx, &bpfman.ClusterBpfApplicationState{}, client.MatchingLabels{ownerLabel: application.Name})
	case len(states.Items) < len(nodes):
		return b.conclude(ctx, application, bpfman.BpfAppCondPending, "")
	case len(failed) > 0:
		return b.conclude(ctx, application, bpfman.BpfAppCondError, fmt.Sprintf("BpfApplication Reconciliation failed on the following BpfApplicationState objects: %v", failed))
	case len(pending) > 0:
		return b.conclude(ctx, application, bpfman.BpfAppCondPending, fmt.Sprintf("BpfApplication Reconciliation is pending on the following BpfApplicationState objects: %v", pending))
	}
	return b.conclude(ctx, application, bpfman.BpfAppCondSuccess, "")
}

// conclude sets a condition, unless there is one of this type already, whatever its
// message.
func (b *Bpfman) conclude(ctx context.Context, application *bpfman.ClusterBpfApplication, kind bpfman.BpfApplicationConditionType, message string) error {
	conditions := &application.Status.Conditions
	if len(*conditions) == 1 && (*conditions)[0].Type == string(kind) {
		return nil
	}
	*conditions = nil
	meta.SetStatusCondition(conditions, kind.Condition(message))
	return b.client.Status().Update(ctx, application)
}
