// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// refresh limits writes. Fields that change constantly, such as flows and last
// contact, are written at least this often, and earlier only along with another
// change: 1,000 nodes make three writes a second.
const refresh = 5 * time.Minute

// status returns what is known of an application on the node. What the agent
// has not reported to this operator is as it was stored.
func (j *judge) status(i planned) v1alpha1.ApplicationStatus {
	a := v1alpha1.ApplicationStatus{}
	if stored := j.stored(i.at); stored != nil {
		a = *stored.DeepCopy()
	}
	image, hex, _ := strings.Cut(i.Bytecode.Url, "@")
	a.Name = i.Name
	a.Bytecode = v1alpha1.BytecodeStatus{Image: image, Digest: hex, SignedBy: j.signer(i.Bytecode.Url)}
	a.DrainingSince = nil
	if i.drains {
		a.DrainingSince = timestamp(j.drainingSince(i.at))
	}
	j.programStatus(i.at, &a)
	if r := j.reports[i.at]; r != nil {
		a.Layout, a.Draining = int32(r.Layout), r.Draining
		a.Frontends, a.Backends, a.Flows = int32(r.Frontends), int32(r.Backends), int64(r.Flows)
		a.Version = v1alpha1.StateVersion{Epoch: int64(r.Version.Epoch), Sequence: int64(r.Version.Sequence)}
		a.AckedAt, a.PacketsSeenAt, a.AnsweredElsewhereAt = nil, timestamp(r.PacketsSeenAt), timestamp(r.AnsweredElsewhereAt)
		if r.Version != (lb.Version{}) {
			a.AckedAt = timestamp(r.AckedAt)
		}
	}
	return a
}

// signer returns the key that has signed an image. The operator verifies only the image
// that is asked for, and after a restart not at once: else it is as stored for the same
// digest, on this node or, for one that joins, on others.
func (j *judge) signer(image string) string {
	if signer := j.c.Signers[image]; signer != "" {
		return signer
	}
	var others string
	for i := range j.c.Dataplanes {
		d := &j.c.Dataplanes[i]
		for _, a := range d.Status.Applications {
			switch signer := a.Bytecode.SignedBy; {
			case signer == "" || a.Bytecode.Digest == "" || !strings.HasSuffix(image, "@"+a.Bytecode.Digest):
			case d.Name == j.node:
				return signer
			case others == "" || signer < others:
				others = signer
			}
		}
	}
	return others
}

// programStatus fills in what bpfman reports. A pod keeps the maps of the
// program that was there when the pod was first observed: Pod and ProgramID
// change together.
func (j *judge) programStatus(at instanceKey, a *v1alpha1.ApplicationStatus) {
	a.Links = nil
	p := j.program(at)
	if pod := j.pods[at]; a.ProgramID == nil || a.Pod == "" || j.replaced(at) {
		a.Pod, a.ProgramID = "", nil
		if pod != nil {
			a.Pod = pod.Name
		}
		if p != nil {
			a.ProgramID = new(int64(*p.ProgramId))
		}
	}
	if p == nil || p.TCX == nil {
		return
	}
	for _, l := range p.TCX.Links {
		link := v1alpha1.LinkStatus{Interface: l.InterfaceName, Direction: string(l.Direction), Status: string(l.LinkStatus)}
		if l.LinkId != nil {
			link.LinkID = new(int64(*l.LinkId))
		}
		a.Links = append(a.Links, link)
	}
	slices.SortFunc(a.Links, func(x, y v1alpha1.LinkStatus) int {
		return cmp.Or(cmp.Compare(x.Interface, y.Interface), -cmp.Compare(x.Direction, y.Direction))
	})
}

// keepStored returns the stored status if its last contact is younger than
// refresh and only fields that change constantly differ; else the new one.
func keepStored(now time.Time, before *v1alpha1.NodeDataplaneStatus, after v1alpha1.NodeDataplaneStatus) v1alpha1.NodeDataplaneStatus {
	if before.LastContact == nil || now.Sub(before.LastContact.Time) >= refresh {
		return after
	}
	same := after.DeepCopy()
	same.LastContact = before.LastContact
	for i := range same.Applications {
		if i >= len(before.Applications) {
			break
		}
		a, b := &same.Applications[i], &before.Applications[i]
		if (a.AckedAt == nil) == (b.AckedAt == nil) {
			a.Version, a.AckedAt = b.Version, b.AckedAt
		}
		a.Backends, a.Flows, a.PacketsSeenAt = b.Backends, b.Flows, b.PacketsSeenAt
		if (a.AnsweredElsewhereAt == nil) == (b.AnsweredElsewhereAt == nil) {
			a.AnsweredElsewhereAt = b.AnsweredElsewhereAt
		}
	}
	if equality.Semantic.DeepEqual(steady(before.ClientAddress), steady(same.ClientAddress)) {
		same.ClientAddress = before.ClientAddress
	}
	if equality.Semantic.DeepEqual(before, same) {
		return *before
	}
	return after
}

// timestamp returns a time in the form of a status; nil: zero.
func timestamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.UTC().Truncate(time.Second)}
}

// later returns the later of two times; nil and zero are none.
func later(known *metav1.Time, t time.Time) *metav1.Time {
	if new := timestamp(t); known == nil || new != nil && new.After(known.Time) {
		return new
	}
	return known
}
