// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// silence is the age of an agent's last contact that is a problem: the operator writes
// the time every five minutes.
const silence = 10 * time.Minute

// state compares what bpfman reports of an application on a node.
func (a *auditor) state(s *bpfmanv1.ClusterBpfApplicationState) {
	node, owner := kube.NodeOf(s), kube.ApplicationOf(s)
	object := "ClusterBpfApplicationState " + s.Name
	o := a.application(owner)
	switch {
	case o == nil && kube.Named(a.Applications, owner) != nil:
		a.before(s, node)
		return
	case o == nil:
		a.failed(NobodysProgram, object, node, "its ClusterBpfApplication %s is not there: its program may stay attached for ever. Restart the node.", owner)
		return
	case !a.selected(node) && owner == a.wanted && s.Status.AppLoadStatus != bpfmanv1.AppLoadSuccess:
		return // bpfman has a state for each node
	}
	p := kube.ProgramOf(s)
	entry := Program{Node: node, Application: owner, Links: []v1alpha1.LinkStatus{}}
	if o.Spec.ByteCode.Image != nil {
		entry.Image, entry.Digest, _ = strings.Cut(o.Spec.ByteCode.Image.Url, "@")
	}
	if loaded := meta.FindStatusCondition(s.Status.Conditions, string(bpfmanv1.BpfAppStateCondSuccess)); loaded != nil {
		entry.Since = &loaded.LastTransitionTime
	}
	if p == nil {
		a.failed(ProgramMissing, object, node, "the program is not loaded (%s): blixt doctor says more", cmp.Or(string(s.Status.AppLoadStatus), "bpfman has not reported yet"))
	} else {
		entry.ID = new(int64(*p.ProgramId))
		entry.Links = a.links(o, p, object, node)
	}
	a.agent(&entry, object)
	a.report.Programs = append(a.report.Programs, entry)
}

// links returns the links of a program, and reports those that are missing.
func (a *auditor) links(o *bpfmanv1.ClusterBpfApplication, p *bpfmanv1.ClBpfApplicationProgramState, object, node string) []v1alpha1.LinkStatus {
	all := []v1alpha1.LinkStatus{}
	attached := map[string]bool{} // "eth0 Ingress"
	interfaces := map[string]bool{}
	for _, l := range p.TCX.Links {
		if !l.ShouldAttach {
			continue
		}
		link := v1alpha1.LinkStatus{Interface: l.InterfaceName, Direction: string(l.Direction), Status: string(l.LinkStatus)}
		if l.LinkId != nil {
			link.LinkID = new(int64(*l.LinkId))
		}
		all = append(all, link)
		interfaces[l.InterfaceName] = true
		if l.LinkStatus == bpfmanv1.ApAttachAttached && l.LinkId != nil {
			attached[l.InterfaceName+" "+string(l.Direction)] = true
		}
	}
	slices.SortFunc(all, func(x, y v1alpha1.LinkStatus) int {
		return cmp.Or(cmp.Compare(x.Interface, y.Interface), -cmp.Compare(x.Direction, y.Direction))
	})
	if o.DeletionTimestamp != nil {
		return all
	}
	missing := map[string]bool{}
	for _, name := range union(a.spec.Interfaces.Names, interfaces) {
		for _, direction := range []bpfmanv1.TCDirectionType{bpfmanv1.TCIngress, bpfmanv1.TCEgress} {
			if where := name + " " + string(direction); !attached[where] {
				missing[where] = true
			}
		}
	}
	if len(interfaces) == 0 {
		a.failed(LinkMissing, object, node, "the program is loaded, but attached nowhere")
	}
	for where := range missing {
		name, direction, _ := strings.Cut(where, " ")
		a.failed(LinkMissing, object, node, "the program is not attached at %s of %s", strings.ToLower(direction), name)
	}
	return all
}

// union returns, sorted, the interfaces that are named and those that bpfman has found.
func union(named []string, found map[string]bool) []string {
	all := slices.AppendSeq(slices.Clone(named), maps.Keys(found))
	slices.Sort(all)
	return slices.Compact(all)
}

// agent compares a program with what its agent reports, as the operator has written it.
func (a *auditor) agent(p *Program, object string) {
	s := a.stored(p.Node, p.Application)
	if s == nil {
		if p.ID != nil {
			a.failed(Silent, object, p.Node, "NodeDataplane %s does not have the program: no operator manages it", p.Node)
		}
		return
	}
	p.SignedBy, p.Layout, p.Draining = s.Bytecode.SignedBy, s.Layout, s.Draining
	p.Frontends, p.Backends, p.Version, p.AckedAt = s.Frontends, s.Backends, s.Version, s.AckedAt
	if s.Bytecode.Digest != p.Digest {
		a.failed(AnotherDigest, "NodeDataplane "+p.Node, p.Node, "%s was loaded from %s, but its object now says %s", p.Application, s.Bytecode.Digest, p.Digest)
	}
	if p.ID != nil && s.ProgramID != nil && *s.ProgramID != *p.ID {
		a.failed(AnotherProgram, object, p.Node, "bpfman reports program %d, but agent %s has the maps of program %d: another program was loaded without the agent", *p.ID, s.Pod, *s.ProgramID)
	}
}

// missing reports nodes that should run what is declared, but have no state of it.
func (a *auditor) missing() {
	if a.wanted == "" {
		return
	}
	for i := range a.Nodes {
		n := &a.Nodes[i]
		known := slices.ContainsFunc(a.States, func(s bpfmanv1.ClusterBpfApplicationState) bool {
			return kube.NodeOf(&s) == n.Name && kube.ApplicationOf(&s) == a.wanted
		})
		if a.selected(n.Name) && !known {
			a.failed(ProgramMissing, "Node "+n.Name, n.Name, "bpfman has no ClusterBpfApplicationState of %s, which is declared", a.wanted)
		}
	}
}

// before warns of foreign programs that see packets before Blixt does.
func (a *auditor) before(s *bpfmanv1.ClusterBpfApplicationState, node string) {
	for i := range a.States {
		mine := &a.States[i]
		p := kube.ProgramOf(mine)
		if kube.NodeOf(mine) != node || p == nil || a.application(kube.ApplicationOf(mine)) == nil {
			continue
		}
		for _, l := range p.TCX.Links {
			for _, other := range s.Status.Programs {
				if how := earlier(&other, &l); how != "" {
					a.warn(ProgramBefore, "ClusterBpfApplication "+kube.ApplicationOf(s), node, "its program %s is %s at %s of %s, before %s: it sees every packet first, and can change it",
						other.Name, how, strings.ToLower(string(l.Direction)), l.InterfaceName, kube.ApplicationOf(mine))
				}
			}
		}
	}
}

// earlier returns how a foreign program precedes a link; "": it does not.
func earlier(p *bpfmanv1.ClBpfApplicationProgramState, l *bpfmanv1.ClTcxAttachInfoState) string {
	switch {
	case p.TCX != nil && slices.ContainsFunc(p.TCX.Links, func(o bpfmanv1.ClTcxAttachInfoState) bool {
		return o.InterfaceName == l.InterfaceName && o.Direction == l.Direction && o.Priority < l.Priority
	}):
		return "attached by TCX, with a lower priority,"
	case p.XDP != nil && l.Direction == bpfmanv1.TCIngress && slices.ContainsFunc(p.XDP.Links, func(o bpfmanv1.ClXdpAttachInfoState) bool { return o.InterfaceName == l.InterfaceName }):
		return "attached by XDP"
	}
	return ""
}

// dataplane reports what the operator has found on a node.
func (a *auditor) dataplane(n *v1alpha1.NodeDataplane) {
	object := "NodeDataplane " + n.Name
	if c := meta.FindStatusCondition(n.Status.Conditions, v1alpha1.NodeReady); c != nil && c.Status == "False" {
		reason := NotReady
		if c.Reason == rollout.Outdated {
			reason = OldGeneration
		}
		a.failed(reason, object, n.Name, "Ready is False, %s: %s", c.Reason, c.Message)
	}
	if c := meta.FindStatusCondition(n.Status.Conditions, v1alpha1.NodeDrifted); c != nil && c.Status == "True" {
		reason := Drifted
		if c.Reason == rollout.ForeignWriter {
			reason = ForeignWriter
		}
		a.failed(reason, object, n.Name, "Drifted is True, %s: %s", c.Reason, c.Message)
	}
	if last := n.Status.LastContact; last == nil || a.Now.Sub(last.Time) > silence {
		when := "never"
		if last != nil {
			when = "at " + last.UTC().Format("2006-01-02 15:04:05")
		}
		a.failed(Silent, object, n.Name, "its agent's last contact was %s: the contents of the maps are unknown", when)
	}
}
