// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

func operator(f *Facts) (string, []Finding) {
	object := "Deployment " + f.Namespace + "/" + v1alpha1.Operator
	d := f.operator()
	if d == nil {
		remedy := "Install Blixt: helm install blixt oci://ghcr.io/kubernetes-sigs/blixt/charts/blixt --namespace " + f.Namespace + " --create-namespace"
		if d := kube.Named(f.Deployments, v1alpha1.Operator); d != nil {
			remedy = "There is one in another namespace: blixt doctor --namespace " + d.Namespace
		}
		return "", []Finding{failed(object, "it is not there", remedy)}
	}
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	look := fmt.Sprintf("kubectl -n %s describe deployment %s; kubectl -n %s logs deployment/%s", d.Namespace, d.Name, d.Namespace, d.Name)
	seen := fmt.Sprintf("status.readyReplicas is %d of %d", d.Status.ReadyReplicas, wanted)
	switch {
	case wanted == 0:
		return "", []Finding{failed(object, "spec.replicas is 0: somebody has stopped it, perhaps by blixt uninstall", fmt.Sprintf("kubectl -n %s scale deployment %s --replicas=2", d.Namespace, d.Name))}
	case d.Status.ReadyReplicas == 0:
		return "", []Finding{failed(object, seen, look)}
	case d.Status.ReadyReplicas < wanted:
		return "", []Finding{warning(object, seen, look)}
	}
	return object + ": " + seen, nil
}

// leader checks that an operator holds the Lease. Without a leader nothing changes any
// more, and nothing else shows it.
func leader(f *Facts) (string, []Finding) {
	object := "Lease " + f.Namespace + "/" + v1alpha1.Operator
	restart := fmt.Sprintf("kubectl -n %s logs deployment/%s: is it permitted to write the Lease, and can it reach the API server?", f.Namespace, v1alpha1.Operator)
	l := kube.Named(f.Leases, v1alpha1.Operator)
	if l == nil {
		return "", []Finding{failed(object, "it is not there: no operator leads", restart)}
	}
	s := l.Spec
	if s.HolderIdentity == nil || *s.HolderIdentity == "" || s.RenewTime == nil || s.LeaseDurationSeconds == nil {
		return "", []Finding{failed(object, "spec.holderIdentity is empty: no operator leads", restart)}
	}
	age := f.Now.Sub(s.RenewTime.Time)
	if age > 2*time.Duration(*s.LeaseDurationSeconds)*time.Second {
		return "", []Finding{failed(object, fmt.Sprintf("spec.renewTime is %s old: %s no longer leads, and no other operator does", age.Round(time.Second), *s.HolderIdentity), restart)}
	}
	return *s.HolderIdentity + " leads", nil
}

// agents checks that the agents run.
func agents(f *Facts) (string, []Finding) {
	var wrong []Finding
	var sets, pods int32
	for i := range f.DaemonSets {
		d := &f.DaemonSets[i]
		if d.Namespace != f.Namespace || !v1alpha1.Managed(d) {
			continue
		}
		sets++
		pods += d.Status.NumberReady
		if d.Status.NumberReady >= d.Status.DesiredNumberScheduled {
			continue
		}
		seen := fmt.Sprintf("status.numberReady is %d of %d", d.Status.NumberReady, d.Status.DesiredNumberScheduled)
		if d.Status.CurrentNumberScheduled < d.Status.DesiredNumberScheduled {
			seen += fmt.Sprintf(", and only %d pods are made: are the others rejected, for example by Pod Security?", d.Status.CurrentNumberScheduled)
		}
		for p := range f.Pods {
			if pod := &f.Pods[p]; metav1.IsControlledBy(pod, d) {
				if why := notRunning(pod); why != "" {
					seen += fmt.Sprintf("; pod %s on node %s: %s", pod.Name, pod.Spec.NodeName, why)
				}
			}
		}
		wrong = append(wrong, failed(at("DaemonSet", d), seen, fmt.Sprintf("kubectl -n %s describe daemonset %s; kubectl -n %s get events", d.Namespace, d.Name, d.Namespace)))
	}
	if sets == 0 && len(f.Applications) > 0 && slices.ContainsFunc(f.Classes, isOurs) {
		wrong = append(wrong, warning("DaemonSet "+f.Namespace+"/blixt-agent-…", "there are no agents yet", "The operator creates them once a node has loaded the program: see the findings above."))
	}
	return fmt.Sprintf("%d agents are ready", pods), wrong
}
