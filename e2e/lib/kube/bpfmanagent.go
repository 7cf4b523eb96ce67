// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"slices"

	bpfman "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

const (
	agentFinalizer = "bpfman.io.clbpfapplicationcontroller/finalizer"
	ownerLabel     = "bpfman.io/ownedByProgram"
)

// Primary is the interface that has the address of every node, and that is
// found where interfaces are discovered.
const Primary = "eth0"

// agent reconciles an application on a node, as bpfman-agent does.
func (b *Bpfman) agent(ctx context.Context, application *bpfman.ClusterBpfApplication, node *corev1.Node) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	fault := b.faults[node.Name]
	if fault == AgentAway {
		return nil
	}
	var states bpfman.ClusterBpfApplicationStateList
	owned := client.MatchingLabels{ownerLabel: application.Name, corev1.LabelHostname: node.Name}
	if err := b.client.List(ctx, &states, owned); err != nil {
		return err
	}
	if len(states.Items) == 0 {
		if !application.DeletionTimestamp.IsZero() {
			return nil
		}
		return b.begin(ctx, application, node, owned)
	}
	state := &states.Items[0]
	before := state.DeepCopy()
	b.load(application, node, state, fault)
	switch {
	case state.Status.AppLoadStatus == bpfman.AppLoadError: // again and again, ten times a second
	case !equality.Semantic.DeepEqual(before.Status, state.Status):
	case application.DeletionTimestamp.IsZero():
		return nil
	default:
		controllerutil.RemoveFinalizer(state, agentFinalizer)
		return b.client.Update(ctx, state)
	}
	state.Status.UpdateCount++
	return b.client.Status().Update(ctx, state)
}

// begin creates a state, in two requests as bpfman-agent does.
func (b *Bpfman) begin(ctx context.Context, application *bpfman.ClusterBpfApplication, node *corev1.Node, owned map[string]string) error {
	state := &bpfman.ClusterBpfApplicationState{ObjectMeta: metav1.ObjectMeta{
		Name:       application.Name + "-" + string(uuid.NewUUID())[:8],
		Labels:     owned,
		Finalizers: []string{agentFinalizer},
	}}
	if err := controllerutil.SetControllerReference(application, state, Scheme); err != nil {
		return err
	}
	if err := b.client.Create(ctx, state); err != nil {
		return err
	}
	state.Status = bpfman.ClBpfApplicationStateStatus{UpdateCount: 1, Node: node.Name, AppLoadStatus: bpfman.AppLoadNotLoaded}
	for _, program := range application.Spec.Programs {
		state.Status.Programs = append(state.Status.Programs, bpfman.ClBpfApplicationProgramState{
			BpfProgramStateCommon: bpfman.BpfProgramStateCommon{Name: program.Name, ProgramLinkStatus: bpfman.ProgAttachPending},
			Type:                  program.Type, TCX: &bpfman.ClTcxProgramInfoState{},
		})
	}
	setCondition(state, bpfman.BpfAppStateCondPending)
	return b.client.Status().Update(ctx, state)
}

// setCondition sets a condition, unless there is one of this type already.
func setCondition(state *bpfman.ClusterBpfApplicationState, kind bpfman.BpfApplicationStateConditionType) {
	conditions := &state.Status.Conditions
	if len(*conditions) != 1 || (*conditions)[0].Type != string(kind) {
		*conditions = nil
		meta.SetStatusCondition(conditions, kind.Condition())
	}
}

// load loads and attaches what the application wants.
func (b *Bpfman) load(application *bpfman.ClusterBpfApplication, node *corev1.Node, state *bpfman.ClusterBpfApplicationState, fault Fault) {
	selector, err := metav1.LabelSelectorAsSelector(&application.Spec.NodeSelector)
	selected := err == nil && selector.Matches(labels.Set(node.Labels))
	status := &state.Status
	switch {
	case !selected && application.DeletionTimestamp.IsZero():
		b.unload(state.DeepCopy()) // bpfman-agent panics here, and never says so
		return
	case !selected:
		b.unload(state)
		status.AppLoadStatus = bpfman.NotSelected
		setCondition(state, bpfman.BpfAppStateCondSuccess)
		return
	case !application.DeletionTimestamp.IsZero():
		b.unload(state)
		status.AppLoadStatus = bpfman.AppUnLoadSuccess
		setCondition(state, bpfman.BpfAppStateCondUnloaded)
		return
	case !sameList(application, state):
		status.AppLoadStatus = bpfman.ProgListChangedError
		setCondition(state, bpfman.BpfAppStateCondError)
		return
	}
	for i := range status.Programs {
		if id := status.Programs[i].ProgramId; id != nil && *id > b.forgotten[node.Name] {
			continue
		}
		if fault == LoadFails {
			status.AppLoadStatus = bpfman.AppLoadError
			setCondition(state, bpfman.BpfAppStateCondError)
			return
		}
		b.last++
		b.programs = append(b.programs, Program{ID: b.last, Node: node.Name, Application: application.Name})
		status.Programs[i].ProgramId = new(uint32)
		*status.Programs[i].ProgramId = b.last
		for l := range status.Programs[i].TCX.Links {
			status.Programs[i].TCX.Links[l].LinkId = nil
		}
	}
	status.AppLoadStatus = bpfman.AppLoadSuccess
	condition := bpfman.BpfAppStateCondSuccess
	for i := range status.Programs {
		b.attach(&application.Spec.Programs[i], &status.Programs[i], fault)
		if status.Programs[i].ProgramLinkStatus != bpfman.ProgAttachSuccess {
			condition = bpfman.BpfAppStateCondError
		}
	}
	setCondition(state, condition)
}

func sameList(application *bpfman.ClusterBpfApplication, state *bpfman.ClusterBpfApplicationState) bool {
	return slices.EqualFunc(application.Spec.Programs, state.Status.Programs,
		func(p bpfman.ClBpfApplicationProgram, s bpfman.ClBpfApplicationProgramState) bool {
			return p.Name == s.Name
		})
}

// attach keeps the links that are still wanted, and makes those that are missing.
func (b *Bpfman) attach(program *bpfman.ClBpfApplicationProgram, state *bpfman.ClBpfApplicationProgramState, fault Fault) {
	had := state.TCX.Links
	state.TCX.Links, state.ProgramLinkStatus = nil, bpfman.ProgAttachSuccess
	if program.TCX == nil || fault == LinksEmpty {
		return
	}
	for _, want := range program.TCX.Links {
		priority := bpfman.DefaultAttachPriority
		if want.Priority != nil {
			priority = *want.Priority
		}
		interfaces := want.InterfaceSelector.Interfaces
		if len(interfaces) == 0 {
			interfaces = []string{Primary}
		}
		for _, name := range interfaces {
			link := bpfman.ClTcxAttachInfoState{
				AttachInfoStateCommon: bpfman.AttachInfoStateCommon{ShouldAttach: true, UUID: string(uuid.NewUUID())},
				InterfaceName:         name, Direction: want.Direction, Priority: priority,
			}
			same := func(l bpfman.ClTcxAttachInfoState) bool {
				return l.InterfaceName == name && l.Direction == want.Direction && l.Priority == priority
			}
			if i := slices.IndexFunc(had, same); i >= 0 {
				link = had[i]
			}
			switch {
			case link.LinkId != nil:
			case fault == AttachFails:
				link.LinkStatus, state.ProgramLinkStatus = bpfman.ApAttachError, bpfman.ProgAttachError
			default:
				id := b.linkID()
				link.LinkId, link.LinkStatus = &id, bpfman.ApAttachAttached
			}
			state.TCX.Links = append(state.TCX.Links, link)
		}
	}
}

// unload unloads a state's program. Copies that no state names stay.
func (b *Bpfman) unload(state *bpfman.ClusterBpfApplicationState) {
	for i := range state.Status.Programs {
		program := &state.Status.Programs[i]
		if program.ProgramId != nil {
			b.programs = slices.DeleteFunc(b.programs, func(p Program) bool { return p.ID == *program.ProgramId })
		}
		program.ProgramId, program.TCX.Links, program.ProgramLinkStatus = nil, nil, bpfman.ProgAttachSuccess
	}
}
