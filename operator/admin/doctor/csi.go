// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"slices"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/admission"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

func bpfmanCSI(f *Facts) (string, []Finding) {
	const driver = admission.Driver
	object := "CSIDriver " + driver
	d := kube.Named(f.CSIDrivers, driver)
	if d == nil {
		return "", []Finding{failed(object, "it is not there: the pods of agents wait for their volume for ever", "bpfman's operator creates it if there is a Config: "+installBpfman)}
	}
	if !slices.Contains(d.Spec.VolumeLifecycleModes, storagev1.VolumeLifecycleEphemeral) {
		return "", []Finding{failed(object, "spec.volumeLifecycleModes does not have Ephemeral: pods may not use its volumes",
			"kubectl delete csidriver "+driver+": bpfman's operator creates it again, correctly.")}
	}
	var wrong []Finding
	nodes := f.selected()
	for _, n := range nodes {
		has := slices.ContainsFunc(f.CSINodes, func(c storagev1.CSINode) bool {
			return c.Name == n.Name && slices.ContainsFunc(c.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == driver })
		})
		if !has {
			wrong = append(wrong, failed("CSINode "+n.Name, "spec.drivers does not have "+driver+": the agent's pod on it waits for its volume",
				"In the node's "+bpfmanDaemon+" pod, see the log of container node-driver-registrar, and whether container bpfman has --csi-support: kubectl -n "+f.BpfmanNamespace()+" logs POD -c node-driver-registrar. If the kubelet's directory is not /var/lib/kubelet, correct it in DaemonSet "+bpfmanDaemon+"."))
		}
	}
	return fmt.Sprintf("%s is on %d selected nodes", driver, len(nodes)), wrong
}
