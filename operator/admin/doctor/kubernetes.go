// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

// OldestKubernetes is the oldest version that Blixt runs in. Since 1.32 the token of a
// pod names its node, and by that the operator identifies an agent.
const OldestKubernetes = "1.32.0"

func kubernetes(f *Facts) (string, []Finding) {
	v, err := version.ParseGeneric(f.Version)
	if err != nil {
		return "", []Finding{{Verdict: Unknown, Seen: fmt.Sprintf("version %q cannot be read: %v", f.Version, err)}}
	}
	if v.LessThan(version.MustParseGeneric(OldestKubernetes)) {
		return "", []Finding{failed("", "the API server is "+f.Version+": the tokens of its pods do not name their node, so the operator rejects agents",
			"Upgrade Kubernetes to "+OldestKubernetes+" or newer.")}
	}
	return "the API server is " + f.Version, nil
}

// The kernels that the program and the agent need.
const (
	tcxKernel   = "6.6"
	agentKernel = "5.19"
)

// exclude is the remedy for a node that cannot be repaired.
const exclude = "exclude it by spec.dataplane.nodes of the BlixtConfig"

func kernel(f *Facts) (string, []Finding) {
	var wrong []Finding
	nodes := f.selected()
	for _, n := range nodes {
		info := n.Status.NodeInfo
		object := "Node " + n.Name
		v, err := version.ParseGeneric(info.KernelVersion)
		switch {
		case info.OperatingSystem != "" && info.OperatingSystem != "linux":
			wrong = append(wrong, failed(object, "status.nodeInfo.operatingSystem is "+info.OperatingSystem, "Blixt needs Linux: "+exclude+", for example nodes: {matchLabels: {kubernetes.io/os: linux}}."))
		case err != nil:
			wrong = append(wrong, Finding{Verdict: Unknown, Object: object, Seen: fmt.Sprintf("status.nodeInfo.kernelVersion is %q, which cannot be read", info.KernelVersion)})
		case v.LessThan(version.MustParseGeneric(agentKernel)):
			wrong = append(wrong, failed(object, "status.nodeInfo.kernelVersion is "+info.KernelVersion+": it does not let processes without privileges use bpf(2), as agents do, and has no TCX",
				"Upgrade its kernel to "+tcxKernel+" or newer, or "+exclude+"."))
		case v.LessThan(version.MustParseGeneric(tcxKernel)):
			wrong = append(wrong, failed(object, "status.nodeInfo.kernelVersion is "+info.KernelVersion+": it has no TCX, to which the program attaches",
				"Upgrade its kernel to "+tcxKernel+" or newer, or "+exclude+"."))
		}
	}
	return fmt.Sprintf("%d nodes have Linux %s or newer", len(nodes), tcxKernel), wrong
}

// ringBuffer: who reads a ring buffer may write any consumer position into it. Kernels that
// do not remember what they have handed out then hand it out again (CVE-2024-41009). Agents
// have no other way to write to the kernel's memory.
func ringBuffer(f *Facts) (string, []Finding) {
	var wrong []Finding
	nodes := f.selected()
	for _, n := range nodes {
		release := n.Status.NodeInfo.KernelVersion
		v, err := version.ParseGeneric(release)
		if err != nil || v.LessThan(version.MustParseGeneric(tcxKernel)) { // see kernel
			continue
		}
		mended := v.AtLeast(version.MustParseGeneric("6.9.8")) || v.Major() == 6 && v.Minor() == 6 && v.Patch() >= 37
		if !mended {
			wrong = append(wrong, warning("Node "+n.Name, "status.nodeInfo.kernelVersion is "+release+": unless its distributor has mended CVE-2024-41009 in it, an agent that somebody has broken into can have the kernel write past records of ring buffers",
				"Upgrade its kernel to 6.6.37, 6.9.8, or 6.10 or newer, or see whether its changelog names CVE-2024-41009."))
		}
	}
	return fmt.Sprintf("%d nodes have ring buffers that readers cannot break", len(nodes)), wrong
}

// disk warns of full disks: when bpfman's database cannot write, it hangs until its
// pod is restarted.
func disk(f *Facts) (string, []Finding) {
	var wrong []Finding
	for i := range f.Nodes {
		n := &f.Nodes[i]
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeDiskPressure && c.Status == corev1.ConditionTrue {
				wrong = append(wrong, warning("Node "+n.Name, "condition DiskPressure is True: bpfman hangs on a full disk until its pod is restarted",
					"Free space on the node, then: kubectl -n "+f.BpfmanNamespace()+" delete pod --field-selector=spec.nodeName="+n.Name+" -l name=bpfman-daemon"))
			}
		}
	}
	return "no node is short of disk", wrong
}
