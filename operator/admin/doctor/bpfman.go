// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// The names of what bpfman's operator creates.
const (
	bpfmanDaemon  = "bpfman-daemon"
	bpfmanConfig  = "bpfman-config" // the Config and the ConfigMap
	bpfmanPinsDir = "/run/bpfman/fs"
	installBpfman = "helm upgrade with bpfman.enabled=true, as is the default: Blixt's chart has bpfman with all that Blixt needs"
	// installedByOLM is a label of what OLM has installed.
	installedByOLM = "olm.owner"
	// pinsPatch is what bpfman's DaemonSet lacks, as it is released.
	pinsPatch = `{"spec":{"template":{"spec":{"containers":[{"name":"bpfman","volumeMounts":[{"name":"pins","mountPath":"` + bpfmanPinsDir + `","mountPropagation":"Bidirectional"}]}],` +
		`"volumes":[{"name":"pins","hostPath":{"path":"` + bpfmanPinsDir + `","type":"DirectoryOrCreate"}}]}}}}`
)

// daemonSet returns the DaemonSet of bpfman's nodes; nil: there is none.
func (f *Facts) daemonSet() *appsv1.DaemonSet { return kube.Named(f.DaemonSets, bpfmanDaemon) }

// BpfmanNamespace returns the namespace in which bpfman is, or would be.
func (f *Facts) BpfmanNamespace() string {
	if d := f.daemonSet(); d != nil {
		return d.Namespace
	}
	for i := range f.BpfmanConfigs {
		if ns := f.BpfmanConfigs[i].Spec.Namespace; ns != "" {
			return ns
		}
	}
	return "bpfman"
}

// noDaemon is the result of checks of bpfman's DaemonSet if there is none.
func noDaemon() (string, []Finding) {
	return "", []Finding{{Verdict: Unknown, Seen: "there is no DaemonSet " + bpfmanDaemon, Remedy: "See bpfman-nodes."}}
}

// bpfmanSource says who has installed bpfman, and so who can mend it.
func bpfmanSource(f *Facts) (string, []Finding) {
	d := kube.Named(f.Deployments, "bpfman-operator")
	if d == nil {
		return "nobody has installed any: see bpfman-operator", nil
	}
	if owner := d.Labels[installedByOLM]; owner != "" {
		return "", []Finding{warning(at("Deployment", d), "OLM has installed it ("+owner+"), as on OpenShift: OLM restores what is changed in its kinds and Deployment. So what bpfman-link-ids and bpfman-pins find below cannot be mended for long: "+
			"programs are loaded again and again until their link IDs happen to be below 2^31, and a restart of bpfman's container ends what its node serves",
			"Remove the eBPF Manager Operator with its kinds, if nobody else needs it, then "+installBpfman+". Or keep it: after each restart of bpfman do what programs-dead says.")}
	}
	if release := releaseOf(d); release != "" {
		return at("Deployment", d) + " is of Helm's release " + release, nil
	}
	return at("Deployment", d) + " is of manifests, not of Blixt's chart: helm does not upgrade it", nil
}

// The annotations by which Helm knows the objects of a release.
const (
	helmName      = "meta.helm.sh/release-name"
	helmNamespace = "meta.helm.sh/release-namespace"
)

// releaseOf returns namespace and name of the release that Helm has installed an object
// with; "": with none.
func releaseOf(o metav1.Object) string {
	if a := o.GetAnnotations(); a[helmName] != "" {
		return a[helmNamespace] + "/" + a[helmName]
	}
	return ""
}

func bpfmanOperator(f *Facts) (string, []Finding) {
	d := kube.Named(f.Deployments, "bpfman-operator")
	if d == nil {
		return "", []Finding{failed("Deployment "+f.BpfmanNamespace()+"/bpfman-operator", "it is not there: bpfman is not installed", installBpfman)}
	}
	if d.Status.ReadyReplicas == 0 {
		return "", []Finding{failed(at("Deployment", d), "status.readyReplicas is 0: no node learns what to load, and no deletion is completed",
			fmt.Sprintf("kubectl -n %s describe deployment %s; kubectl -n %s logs deployment/%s", d.Namespace, d.Name, d.Namespace, d.Name))}
	}
	return at("Deployment", d) + " is ready", nil
}

// bpfmanNodes: every selected node needs bpfman's pod.
func bpfmanNodes(f *Facts) (string, []Finding) {
	d := f.daemonSet()
	if d == nil {
		return "", []Finding{failed("DaemonSet "+f.BpfmanNamespace()+"/"+bpfmanDaemon, "it is not there: no node loads programs", installBpfman)}
	}
	var wrong []Finding
	nodes, pods := f.selected(), f.daemonPods(d)
	for _, n := range nodes {
		p := pods[n.Name]
		if p == nil {
			wrong = append(wrong, failed("Node "+n.Name, "no pod of "+at("DaemonSet", d)+" is on it, so it loads no program",
				fmt.Sprintf("kubectl -n %s describe daemonset %s: does a taint repel it (spec.template.spec.tolerations)? Or exclude the node by spec.dataplane.nodes of the BlixtConfig.", d.Namespace, d.Name)))
		} else if why := notRunning(p); why != "" {
			wrong = append(wrong, failed(at("Pod", p), why+", so node "+n.Name+" loads no program", fmt.Sprintf("kubectl -n %s describe pod %s; kubectl -n %s logs %s --all-containers --previous", p.Namespace, p.Name, p.Namespace, p.Name)))
		}
	}
	return fmt.Sprintf("bpfman runs on %d selected nodes", len(nodes)), wrong
}

// daemonPods returns the pods of bpfman's DaemonSet, by node.
func (f *Facts) daemonPods(d *appsv1.DaemonSet) map[string]*corev1.Pod {
	pods := map[string]*corev1.Pod{}
	for i := range f.Pods {
		if p := &f.Pods[i]; p.Namespace == d.Namespace && metav1.IsControlledBy(p, d) && p.DeletionTimestamp == nil {
			pods[p.Spec.NodeName] = p
		}
	}
	return pods
}

// notRunning returns why a pod does not work; "": it does.
func notRunning(p *corev1.Pod) string {
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			why := cmp.Or(c.State.Waiting.Reason, "no reason given")
			if m := c.State.Waiting.Message; m != "" {
				why += ": " + m
			}
			return fmt.Sprintf("container %s waits (%s, %d restarts)", c.Name, why, c.RestartCount)
		case c.State.Terminated != nil:
			return fmt.Sprintf("container %s has ended (%s, %d restarts)", c.Name, cmp.Or(c.State.Terminated.Reason, "no reason given"), c.RestartCount)
		case !c.Ready:
			return fmt.Sprintf("container %s is not ready", c.Name)
		}
	}
	if p.Status.Phase != corev1.PodRunning {
		return "its phase is " + cmp.Or(string(p.Status.Phase), "unknown")
	}
	return ""
}

// bpfmanSelector: bpfman-agent v0.6.0 panics again and again, by a nil dereference, on
// nodes that an application does not select.
func bpfmanSelector(f *Facts) (string, []Finding) {
	d := f.daemonSet()
	if d == nil {
		return "there is no DaemonSet " + bpfmanDaemon, nil
	}
	left := f.daemonPods(d)
	for _, n := range f.selected() {
		delete(left, n.Name)
	}
	if len(left) == 0 {
		return "the data plane selects all nodes that bpfman is on", nil
	}
	return "", []Finding{warning("BlixtConfig", "spec.dataplane.nodes leaves out "+phrase.Sample(slices.Collect(maps.Keys(left)))+", where bpfman runs: bpfman-agent v0.6.0 panics on nodes that an application does not select; there it stays Pending for good, and other applications may starve",
		"Select all nodes, or keep bpfman off those that are left out: give "+at("DaemonSet", d)+" a nodeSelector with the same labels.")}
}

// bpfmanOverride: without the override bpfman's operator undoes the remedy of
// bpfman-pins.
func bpfmanOverride(f *Facts) (string, []Finding) {
	d := f.daemonSet()
	if d == nil {
		return noDaemon()
	}
	if len(f.BpfmanConfigs) == 0 {
		return "there is no Config, so bpfman's operator leaves " + at("DaemonSet", d) + " alone", nil
	}
	for i := range f.BpfmanConfigs {
		if slices.ContainsFunc(f.BpfmanConfigs[i].Spec.Overrides, func(o bpfmanv1.ComponentOverride) bool {
			return o.Kind == "DaemonSet" && o.Namespace == d.Namespace && o.Name == d.Name && o.Unmanaged
		}) {
			return "Config " + f.BpfmanConfigs[i].Name + " leaves " + at("DaemonSet", d) + " alone", nil
		}
	}
	c := &f.BpfmanConfigs[0]
	return "", []Finding{failed("Config "+c.Name, "spec.overrides does not have "+at("DaemonSet", d)+" unmanaged: bpfman's operator resets it to its release, in which pins end with the container",
		leaveAlone(c.Name, d)+", then see bpfman-pins.")}
}

// leaveAlone is the command that has bpfman's operator leave its DaemonSet alone.
func leaveAlone(config string, d *appsv1.DaemonSet) string {
	return fmt.Sprintf(`kubectl patch configs.bpfman.io %s --type=merge -p '{"spec":{"overrides":[{"apiVersion":"apps/v1","kind":"DaemonSet","namespace":%q,"name":%q,"unmanaged":true}]}}'`, config, d.Namespace, d.Name)
}

// bpfmanSigning: with verify_enabled, which is the default, bpfman contacts a server
// in the internet before every load, even if it allows unsigned images.
func bpfmanSigning(f *Facts) (string, []Finding) {
	object, text := "ConfigMap "+f.BpfmanNamespace()+"/"+bpfmanConfig, f.Configuration
	if text == "" && len(f.BpfmanConfigs) > 0 {
		object, text = "Config "+f.BpfmanConfigs[0].Name, f.BpfmanConfigs[0].Spec.Configuration
	}
	if text == "" {
		return "", []Finding{{Verdict: Unknown, Object: object, Seen: "bpfman has no configuration yet", Remedy: "See bpfman-nodes."}}
	}
	if setting(text, "signing", "verify_enabled") == "false" {
		return "bpfman verifies no signatures: Blixt's operator does, if BlixtConfig has verificationKeys", nil
	}
	return "", []Finding{warning(object, "bpfman.toml does not say verify_enabled = false in [signing]: before every load bpfman contacts tuf-repo-cdn.sigstore.dev, and fails if it cannot be reached",
		"If nodes have no access to the internet, set verify_enabled = false in spec.configuration of Config "+bpfmanConfig+", as Blixt's chart does (value bpfman.configuration), then: kubectl -n "+f.BpfmanNamespace()+" rollout restart daemonset/"+bpfmanDaemon)}
}

// setting returns a key of a section of a TOML file, in the subset of TOML that
// bpfman.toml uses.
func setting(text, section, key string) string {
	in := ""
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			in = strings.Trim(line, "[] ")
			continue
		}
		if name, value, found := strings.Cut(line, "="); found && in == section && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
