// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"slices"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// slow is how long even a slow download may take.
const slow = 2 * time.Minute

// programs finds states that are stuck, failed or nobody's. Those of others
// matter too: one that bpfman cannot finish keeps it from the next.
func programs(f *Facts) (string, []Finding) {
	var wrong []Finding
	for i := range f.Applications {
		if a := &f.Applications[i]; a.DeletionTimestamp != nil && f.Now.Sub(a.DeletionTimestamp.Time) > slow {
			wrong = append(wrong, failed("ClusterBpfApplication "+a.Name, "it is being deleted since "+stamp(*a.DeletionTimestamp)+", and some node has not unloaded it",
				"kubectl get clusterbpfapplicationstates -l "+v1alpha1.OwnedByLabel+"="+a.Name+" shows which; the log of bpfman-agent there says why. Is a state without its program there, or a node that is gone: restart the node, then remove the state's finalizers."))
		}
	}
	for i := range f.States {
		if found, is := f.state(&f.States[i]); is {
			wrong = append(wrong, found)
		}
	}
	return fmt.Sprintf("%d programs are loaded on nodes as asked for", len(f.States)), wrong
}

// state tells what is wrong with one, if anything is.
func (f *Facts) state(s *bpfmanv1.ClusterBpfApplicationState) (Finding, bool) {
	owner, node := kube.ApplicationOf(s), kube.NodeOf(s)
	object := "ClusterBpfApplicationState " + s.Name
	i := slices.IndexFunc(f.Applications, func(a bpfmanv1.ClusterBpfApplication) bool { return a.Name == owner })
	log := fmt.Sprintf("kubectl -n %s logs -c bpfman-agent POD, of the %s pod on %s, says why.", f.bpfmanNamespace(), bpfmanDaemon, node)
	switch {
	case i < 0:
		return failed(object, "its ClusterBpfApplication "+owner+" is not there: the program may be attached on node "+node+" for ever",
			"Restart the node, then remove the finalizers of the state: "+dropFinalizers(s)), true
	case !slices.ContainsFunc(f.Nodes, func(n corev1.Node) bool { return n.Name == node }):
		return warning(object, "its node "+node+" is not in the cluster: when "+owner+" is deleted, that will wait for the node for ever", "Remove its finalizers: "+dropFinalizers(s)), true
	}
	verdict := failed
	if !v1alpha1.Managed(&f.Applications[i]) {
		verdict = warning // others' programs
	}
	stale := f.Now.Sub(s.CreationTimestamp.Time) > slow
	switch status := s.Status.AppLoadStatus; {
	case status == bpfmanv1.AppLoadError:
		return verdict(object, fmt.Sprintf("status.appLoadStatus is LoadError on node %s, at attempt %d: bpfman tries ten times a second, which slows what else it has to do", node, s.Status.UpdateCount), log), true
	case status == bpfmanv1.ProgListChangedError:
		return verdict(object, "status.appLoadStatus is ProgramListChangedError on node "+node+": somebody has changed the programs of "+owner+", which bpfman cannot do to what is loaded", "Change them back, or delete it: kubectl delete clusterbpfapplication "+owner), true
	case status == bpfmanv1.AppUnloadError:
		return verdict(object, "status.appLoadStatus is UnloadError on node "+node, log), true
	case (status == bpfmanv1.AppLoadNotLoaded || status == "") && stale:
		return verdict(object, fmt.Sprintf("status.appLoadStatus is NotLoaded on node %s since %s, with updateCount %d: bpfman-agent does not get on", node, stamp(s.CreationTimestamp), s.Status.UpdateCount),
			"If bpfman-link-ids or bpfman-selector are not ok, mend those first. Else "+log), true
	case s.DeletionTimestamp != nil && f.Applications[i].DeletionTimestamp == nil:
		return verdict(object, "somebody has deleted it, and its ClusterBpfApplication is there: the deletion of that will hang", "Restart node "+node+", then remove the finalizers of the state: "+dropFinalizers(s)), true
	}
	return Finding{}, false
}

func dropFinalizers(s *bpfmanv1.ClusterBpfApplicationState) string {
	return "kubectl patch clusterbpfapplicationstate " + s.Name + ` --type=merge -p '{"metadata":{"finalizers":null}}'`
}

// since is how long ago something was, in words.
func (f *Facts) since(t metav1.Time) time.Duration { return f.Now.Sub(t.Time).Round(time.Second) }
