// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkMetadata rejects names and labels that Kubernetes rejects.
func checkMetadata(object metav1.Object) []invalid {
	var wrong []invalid
	if object.GetName() == "" {
		wrong = append(wrong, invalid{"metadata", "a name is needed"})
	} else if why := misnamed(object.GetName(), content.IsDNS1123Subdomain); why != "" {
		wrong = append(wrong, invalid{"metadata.name", why})
	}
	if namespace := object.GetNamespace(); namespace != "" {
		if why := misnamed(namespace, content.IsDNS1123Label); why != "" {
			wrong = append(wrong, invalid{"metadata.namespace", why})
		}
	}
	for key, value := range object.GetLabels() {
		for _, why := range append(content.IsLabelKey(key), content.IsLabelValue(value)...) {
			wrong = append(wrong, invalid{"metadata.labels", fmt.Sprintf("%s: %s: %s", key, value, why)})
		}
	}
	return wrong
}

// misnamed returns why a name is invalid; "": it is not.
func misnamed(name string, check func(string) []string) string {
	why := check(name)
	if why == nil {
		return ""
	}
	if lower := strings.ToLower(name); check(lower) == nil {
		return fmt.Sprintf("%q has capital letters: write %s", name, lower)
	}
	return why[0]
}

// checkService checks the fields of a Service that Blixt reads.
func checkService(service *corev1.Service) []invalid {
	var wrong []invalid
	names, numbers := map[string]bool{}, map[string]bool{}
	for i := range service.Spec.Ports {
		port, path := &service.Spec.Ports[i], fmt.Sprintf("spec.ports[%d]", i)
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		wrong = append(wrong, checkPort(path, port.Port, port.Protocol)...)
		number := fmt.Sprintf("%d/%s", port.Port, port.Protocol)
		switch {
		case port.Name == "" && len(service.Spec.Ports) > 1:
			wrong = append(wrong, invalid{path, "a name is needed if there are several ports"})
		case names[port.Name]:
			wrong = append(wrong, invalid{path + ".name", fmt.Sprintf("%q is the name of another port already", port.Name)})
		case numbers[number]:
			wrong = append(wrong, invalid{path + ".port", "another port is " + number + " already"})
		}
		names[port.Name], numbers[number] = true, true
	}
	return wrong
}

// checkEndpointSlice checks the fields of an EndpointSlice that Blixt reads, and that it
// belongs to a Service: without the label nothing would use it.
func checkEndpointSlice(s *discoveryv1.EndpointSlice) []invalid {
	var wrong []invalid
	if s.Labels[discoveryv1.LabelServiceName] == "" {
		wrong = append(wrong, invalid{"metadata.labels", "the label " + discoveryv1.LabelServiceName + " must name the Service"})
	}
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN:
	default:
		return append(wrong, invalid{"addressType", fmt.Sprintf("%q is not IPv4, IPv6 or FQDN", s.AddressType)})
	}
	names := map[string]bool{}
	for i := range s.Ports {
		port, path := &s.Ports[i], fmt.Sprintf("ports[%d]", i)
		name, protocol := "", corev1.ProtocolTCP
		if port.Name != nil {
			name = *port.Name
		}
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		if port.Port != nil {
			wrong = append(wrong, checkPort(path, *port.Port, protocol)...)
		}
		if names[name] {
			wrong = append(wrong, invalid{path, fmt.Sprintf("another port has the name %q already", name)})
		}
		names[name] = true
	}
	for i := range s.Endpoints {
		path := fmt.Sprintf("endpoints[%d].addresses", i)
		if len(s.Endpoints[i].Addresses) == 0 {
			wrong = append(wrong, invalid{path, "an address is needed"})
		}
		for j, text := range s.Endpoints[i].Addresses {
			if addr, err := netip.ParseAddr(text); s.AddressType != discoveryv1.AddressTypeFQDN &&
				(err != nil || addr.Is4() != (s.AddressType == discoveryv1.AddressTypeIPv4)) {
				wrong = append(wrong, invalid{fmt.Sprintf("%s[%d]", path, j), fmt.Sprintf("%q is not an %s address", text, s.AddressType)})
			}
		}
	}
	return wrong
}

func checkPort(path string, number int32, protocol corev1.Protocol) []invalid {
	var wrong []invalid
	if number < 1 || number > 65535 {
		wrong = append(wrong, invalid{path + ".port", fmt.Sprintf("%d is not a port: use 1 to 65535", number)})
	}
	switch protocol {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	default:
		wrong = append(wrong, invalid{path + ".protocol", fmt.Sprintf("%q is not TCP, UDP or SCTP%s", protocol, upper(protocol))})
	}
	return wrong
}

// upper returns a hint for the most common mistake, lower case.
func upper(protocol corev1.Protocol) string {
	switch up := corev1.Protocol(strings.ToUpper(string(protocol))); up {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		return ": write " + string(up)
	}
	return ""
}
