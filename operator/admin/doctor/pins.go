// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// bpfmanPins: programs end with the container of bpfman, unless they are pinned to a
// file system of the host.
func bpfmanPins(f *Facts) (string, []Finding) {
	d := f.daemonSet()
	if d == nil {
		return noDaemon()
	}
	object := at("DaemonSet", d)
	restart := leaveAlone(bpfmanConfig, d) + fmt.Sprintf(" && kubectl -n %s patch daemonset %s -p '%s'. The restart of its pods ends what nodes serve, once more: afterwards on each node, one after the other, delete /run/bpfman/db and its %s pod", d.Namespace, d.Name, pinsPatch, bpfmanDaemon)
	mount, host := pins(d)
	switch {
	case mount == nil:
		return "", []Finding{failed(object, "container bpfman has no volumeMount at "+bpfmanPinsDir+": a restart of the container ends the data plane of its node, and bpfman continues to report it as attached", restart)}
	case host != bpfmanPinsDir:
		return "", []Finding{failed(object, "volume "+mount.Name+" at "+bpfmanPinsDir+" is not hostPath "+bpfmanPinsDir+": programs end with the pod", restart)}
	case mount.MountPropagation == nil || *mount.MountPropagation != corev1.MountPropagationBidirectional:
		return "", []Finding{failed(object, "volumeMount "+mount.Name+" at "+bpfmanPinsDir+" of container bpfman has no mountPropagation Bidirectional: programs end with the container", restart)}
	}
	for _, m := range bpfmanContainer(d).VolumeMounts {
		if m.MountPath == "/run/bpfman" && m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional {
			return "", []Finding{warning(object, "volumeMount "+m.Name+" has mountPropagation Bidirectional for all of /run/bpfman: each restart of the container doubles the mounts of the node",
				"Remove mountPropagation there, and keep it for "+bpfmanPinsDir+": "+restart)}
		}
	}
	return "pins at " + bpfmanPinsDir + " outlive the container of bpfman", nil
}

// pins returns the mount that holds the pins of container bpfman, nil if they are in
// the container's own file system, and the mount's path on the host, "" if it is
// another kind of volume.
func pins(d *appsv1.DaemonSet) (*corev1.VolumeMount, string) {
	c := bpfmanContainer(d)
	if c == nil {
		return nil, ""
	}
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		if strings.TrimRight(m.MountPath, "/") != bpfmanPinsDir {
			continue
		}
		for _, v := range d.Spec.Template.Spec.Volumes {
			if v.Name == m.Name && v.HostPath != nil {
				return m, strings.TrimRight(v.HostPath.Path, "/")
			}
		}
		return m, ""
	}
	return nil, ""
}

func bpfmanContainer(d *appsv1.DaemonSet) *corev1.Container {
	all := d.Spec.Template.Spec.Containers
	i := slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == "bpfman" })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// deadPrograms finds programs that a restart of bpfman has ended: they were loaded
// before its container started, and their pins ended with the previous container.
func deadPrograms(f *Facts) (string, []Finding) {
	d := f.daemonSet()
	if d == nil {
		return noDaemon()
	}
	if _, wrong := bpfmanPins(f); len(wrong) == 0 || wrong[0].Verdict != Failed {
		return "programs outlive a restart of bpfman", nil
	}
	var wrong []Finding
	for i := range f.States {
		s := &f.States[i]
		loaded := meta.FindStatusCondition(s.Status.Conditions, string(bpfmanv1.BpfAppStateCondSuccess))
		if loaded == nil || s.Status.AppLoadStatus != bpfmanv1.AppLoadSuccess {
			continue
		}
		for p := range f.Pods {
			pod := &f.Pods[p]
			if pod.Spec.NodeName != s.Status.Node || !metav1.IsControlledBy(pod, d) {
				continue
			}
			for _, c := range pod.Status.ContainerStatuses {
				if c.Name == "bpfman" && c.State.Running != nil && c.State.Running.StartedAt.After(loaded.LastTransitionTime.Time) {
					wrong = append(wrong, failed("ClusterBpfApplicationState "+s.Name, "it says LoadSuccess since "+stamp(loaded.LastTransitionTime)+
						", but container bpfman of pod "+pod.Name+" has started at "+stamp(c.State.Running.StartedAt)+": the program on node "+s.Status.Node+" is gone",
						"Delete /run/bpfman/db on the node, and pod "+pod.Name+"; repair bpfman-pins first."))
				}
			}
		}
	}
	return "no program was lost with a restart of bpfman", wrong
}

func stamp(t metav1.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
