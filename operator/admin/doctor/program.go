// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// slow is the time that even a slow download needs at most.
const slow = 2 * time.Minute

// programs finds states that are stuck, failed or without an application. Programs
// other than Blixt's matter too: one that bpfman cannot finish blocks the next.
func programs(f *Facts) (string, []Finding) {
	var wrong []Finding
	for i := range f.Applications {
		if a := &f.Applications[i]; a.DeletionTimestamp != nil && f.Now.Sub(a.DeletionTimestamp.Time) > slow {
			wrong = append(wrong, failed("ClusterBpfApplication "+a.Name, "it is being deleted since "+stamp(*a.DeletionTimestamp)+", and some node has not unloaded it",
				"kubectl get clusterbpfapplicationstates -l "+v1alpha1.OwnedByLabel+"="+a.Name+" shows which; the log of bpfman-agent on that node says why. If a state has lost its program, restart its node; then, or if the node is gone, remove the state's finalizers."))
		}
	}
	for i := range f.States {
		if found, is := f.state(&f.States[i]); is {
			wrong = append(wrong, found)
		}
	}
	return fmt.Sprintf("%d programs are loaded on nodes as asked for", len(f.States)), wrong
}

// state reports what is wrong with a state, if anything is.
func (f *Facts) state(s *bpfmanv1.ClusterBpfApplicationState) (Finding, bool) {
	owner, node := kube.ApplicationOf(s), kube.NodeOf(s)
	object := "ClusterBpfApplicationState " + s.Name
	application := kube.Named(f.Applications, owner)
	log := fmt.Sprintf("kubectl -n %s logs -c bpfman-agent POD, of the %s pod on %s, says why.", f.BpfmanNamespace(), bpfmanDaemon, node)
	switch {
	case application == nil:
		return failed(object, "its ClusterBpfApplication "+owner+" is not there: the program may stay attached on node "+node+" for ever",
			"Restart the node, then remove the finalizers of the state: "+dropFinalizers(s)), true
	case kube.Named(f.Nodes, node) == nil:
		return warning(object, "its node "+node+" is not in the cluster: the deletion of "+owner+" would wait for the node for ever", "Remove its finalizers: "+dropFinalizers(s)), true
	}
	verdict := failed
	if !v1alpha1.Managed(application) {
		verdict = warning // others' programs
	}
	stale := f.Now.Sub(s.CreationTimestamp.Time) > slow
	switch status := s.Status.AppLoadStatus; {
	case status == bpfmanv1.AppLoadError:
		return verdict(object, fmt.Sprintf("status.appLoadStatus is LoadError on node %s, at attempt %d: bpfman retries ten times a second, which slows all its other work", node, s.Status.UpdateCount), log), true
	case status == bpfmanv1.ProgListChangedError:
		return verdict(object, "status.appLoadStatus is ProgramListChangedError on node "+node+": somebody has changed the programs of "+owner+", and bpfman cannot apply that to a loaded program", "Undo the change, or delete the application: kubectl delete clusterbpfapplication "+owner), true
	case status == bpfmanv1.AppUnloadError:
		return verdict(object, "status.appLoadStatus is UnloadError on node "+node, log), true
	case (status == bpfmanv1.AppLoadNotLoaded || status == "") && stale:
		return verdict(object, fmt.Sprintf("status.appLoadStatus is NotLoaded on node %s since %s, with updateCount %d: bpfman-agent makes no progress", node, stamp(s.CreationTimestamp), s.Status.UpdateCount),
			"If bpfman-link-ids or bpfman-selector are not ok, repair them first. Otherwise: "+log), true
	case s.DeletionTimestamp != nil && application.DeletionTimestamp == nil:
		return verdict(object, "somebody has deleted it, but not its ClusterBpfApplication: the deletion of the latter will hang", "Restart node "+node+", then remove the finalizers of the state: "+dropFinalizers(s)), true
	}
	return Finding{}, false
}

func dropFinalizers(s *bpfmanv1.ClusterBpfApplicationState) string {
	return "kubectl patch clusterbpfapplicationstate " + s.Name + ` --type=merge -p '{"metadata":{"finalizers":null}}'`
}

// since returns the age of a time.
func (f *Facts) since(t metav1.Time) time.Duration { return f.Now.Sub(t.Time).Round(time.Second) }
