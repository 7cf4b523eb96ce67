// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// auditor collects a Report about Facts.
type auditor struct {
	*Facts
	report *Report
	// spec is the declared data plane, and wanted the name of its application.
	spec   v1alpha1.Dataplane
	wanted string
}

func (a *auditor) failed(reason, object, node, format string, args ...any) {
	a.problem(Failed, reason, object, node, fmt.Sprintf(format, args...))
}

func (a *auditor) warn(reason, object, node, format string, args ...any) {
	a.problem(Warning, reason, object, node, fmt.Sprintf(format, args...))
}

func (a *auditor) problem(s Severity, reason, object, node, message string) {
	a.report.Problems = append(a.report.Problems, Problem{Severity: s, Reason: reason, Object: object, Node: node, Message: message})
}

// declare sets what is declared.
func (a *auditor) declare() {
	a.spec, a.report.Declared = Declared(a.Facts)
	if a.report.Declared != "" {
		a.wanted = rollout.Name(a.report.Declared)
	}
}

// Declared returns the data plane in force, and its image: the BlixtConfig's or, if
// that names none, the one of the operator's arguments. "": none is declared.
func Declared(f *Facts) (v1alpha1.Dataplane, string) {
	release := rollout.Release{}
	i := slices.IndexFunc(f.Deployments, func(d appsv1.Deployment) bool { return d.Name == v1alpha1.Operator })
	if i >= 0 {
		for _, c := range f.Deployments[i].Spec.Template.Spec.Containers {
			for _, arg := range c.Args {
				if image, is := strings.CutPrefix(arg, "--bytecode="); is {
					release.Bytecode = image
				}
			}
		}
	}
	t := gateway.Translate(gateway.Objects{GatewayClasses: f.Classes, Configs: f.Configs}, gateway.Options{Cluster: &gateway.Cluster{}})
	if len(t.Classes) == 0 { // there is nothing to serve
		return rollout.Default(nil, release, f.Nodes), ""
	}
	spec := rollout.Default(t.DataplaneSpec(), release, f.Nodes)
	return spec, spec.Bytecode.Image
}

// application returns an application of Blixt; nil: there is none of that name, or it
// is not Blixt's.
func (a *auditor) application(name string) *bpfmanv1.ClusterBpfApplication {
	for i := range a.Applications {
		if o := &a.Applications[i]; o.Name == name && (v1alpha1.Managed(o) || name == a.wanted) {
			return o
		}
	}
	return nil
}

// selected reports whether the declared data plane selects a node.
func (a *auditor) selected(node string) bool {
	return slices.ContainsFunc(a.Nodes, func(n corev1.Node) bool {
		return n.Name == node && rollout.Selector(a.spec).Matches(labels.Set(n.Labels))
	})
}

// stored returns what the operator has written about an application on a node; nil:
// nothing.
func (a *auditor) stored(node, application string) *v1alpha1.ApplicationStatus {
	for i := range a.Dataplanes {
		if a.Dataplanes[i].Name != node {
			continue
		}
		for j := range a.Dataplanes[i].Status.Applications {
			if s := &a.Dataplanes[i].Status.Applications[j]; s.Name == application {
				return s
			}
		}
	}
	return nil
}
