// SPDX-License-Identifier: Apache-2.0

// Package audit compares what runs on the nodes of a cluster with what was
// declared. Read takes Facts from the API server and, for images, from their
// registries; Audit makes a Report of them: which node runs which bytecode, who
// may change it, and what is not as declared. Audit is pure, and nothing is
// written.
package audit

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Severity of a Problem.
type Severity string

// The severities.
const (
	// Failed: something is not as declared.
	Failed Severity = "failed"
	// Warning: it is, but somebody should look at it.
	Warning Severity = "warning"
)

// The reasons of Problems.
const (
	AnotherDigest    = "AnotherDigest"
	AnotherSpec      = "AnotherSpec"
	AnotherProgram   = "AnotherProgram"
	AnotherLayout    = "AnotherLayout"
	ProgramMissing   = "ProgramMissing"
	LinkMissing      = "LinkMissing"
	OldGeneration    = "OldGeneration"
	ForeignWriter    = "ForeignWriter"
	ForeignManager   = "ForeignManager"
	NotReady         = "NotReady"
	Drifted          = "Drifted"
	Silent           = "Silent"
	NobodysProgram   = "NobodysProgram"
	ProgramBefore    = "ProgramBefore"
	ImageNotFound    = "ImageNotFound"
	ImageNotVerified = "ImageNotVerified"
	ImageUnread      = "ImageUnread"
	Unread           = "Unread"
)

// Problem is something that is not as declared, or should be looked at.
type Problem struct {
	Severity Severity `json:"severity"`
	Reason   string   `json:"reason"`
	// Object is kind and name, and Node where it is, if it is on one.
	Object  string `json:"object"`
	Node    string `json:"node,omitempty"`
	Message string `json:"message"`
}

// Report of an audit.
type Report struct {
	Time time.Time `json:"time"`
	// Declared is the image that nodes are to run, "" if nothing declares one.
	Declared string    `json:"declared"`
	Programs []Program `json:"programs"`
	Images   []Image   `json:"images,omitempty"`
	Writers  []Writer  `json:"writers"`
	Problems []Problem `json:"problems"`
}

// Program is one that runs on a node, by everybody's word.
type Program struct {
	Node        string `json:"node"`
	Application string `json:"application"`
	Image       string `json:"image"`
	Digest      string `json:"digest"`
	// SignedBy is the fingerprint of the key that the operator has verified.
	SignedBy string `json:"signedBy,omitempty"`
	// ID in the kernel, nil: none.
	ID    *int64                `json:"programID"`
	Links []v1alpha1.LinkStatus `json:"links"`
	// Layout, Draining, Frontends and Backends are of its maps, as its agent says.
	Layout    int32 `json:"layout"`
	Draining  bool  `json:"draining"`
	Frontends int32 `json:"frontends"`
	Backends  int32 `json:"backends"`
	// Since is when bpfman had loaded it, and AckedAt when its agent has last
	// written its maps.
	Since   *metav1.Time          `json:"since"`
	Version v1alpha1.StateVersion `json:"version"`
	AckedAt *metav1.Time          `json:"ackedAt"`
}

// Failures returns how many problems there are besides warnings.
func (r *Report) Failures() (n int) {
	for i := range r.Problems {
		if r.Problems[i].Severity == Failed {
			n++
		}
	}
	return n
}

// Audit compares.
func Audit(f *Facts) *Report {
	a := &auditor{Facts: f, report: &Report{Time: f.Now, Images: f.Images, Programs: []Program{}, Writers: []Writer{}, Problems: []Problem{}}}
	for kind, why := range f.Unread {
		a.failed(Unread, kind, "", "cannot be read, so this says nothing of it: %s", why)
	}
	a.declare()
	a.applications()
	for i := range f.States {
		a.state(&f.States[i])
	}
	a.missing()
	for i := range f.Dataplanes {
		a.dataplane(&f.Dataplanes[i])
	}
	a.images()
	a.report.Writers = append(a.report.Writers, writers(f)...)
	slices.SortFunc(a.report.Programs, func(a, b Program) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Application, b.Application))
	})
	slices.SortFunc(a.report.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Message, b.Message))
	})
	return a.report
}
